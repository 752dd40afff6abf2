package shard

import (
	"slices"
	"strings"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
)

// Cleanable returns the leases of ended shards that are of no use any more, by KCL's rule: no worker of KCL holds them
// (one of ours does so only to keep them from those), the leases of their own parents are gone, and every child has a
// lease that shows that its reading has begun. As long as a child has not begun, its parent's lease is what tells that
// the child is to be read from its beginning; and a lease deleted too early would be made anew from the listing, and its
// shard read again behind its children.
//
// A shard that is listed no more, and that no listed shard or lease names as its parent, is garbage as well.
func Cleanable(listed []Shard, leases map[string]lease.Lease) []lease.Lease {
	byID := make(map[string]Shard, len(listed))
	childrenOf := map[string][]string{}
	for _, s := range listed {
		byID[s.ID] = s
		for _, p := range s.Parents {
			childrenOf[p] = append(childrenOf[p], s.ID)
		}
	}
	for _, l := range leases {
		for _, p := range l.Parents {
			if !slices.Contains(childrenOf[p], l.Key) {
				childrenOf[p] = append(childrenOf[p], l.Key)
			}
		}
	}
	var cleanable []lease.Lease
	for _, l := range leases {
		if !l.Ended() || l.Owner != "" && !l.IsOurs() || l.CheckpointOwner != "" {
			continue
		}
		if slices.ContainsFunc(l.Parents, func(p string) bool { _, has := leases[p]; return has }) {
			continue
		}
		children := slices.Clone(l.Children)
		for _, c := range childrenOf[l.Key] {
			if !slices.Contains(children, c) {
				children = append(children, c)
			}
		}
		if len(children) == 0 {
			if _, shown := byID[l.Key]; !shown {
				cleanable = append(cleanable, l)
			}
			continue
		}
		if !slices.ContainsFunc(children, func(c string) bool {
			child, has := leases[c]
			return !has || !HasBegun(child)
		}) {
			cleanable = append(cleanable, l)
		}
	}
	slices.SortFunc(cleanable, func(a, b lease.Lease) int { return strings.Compare(a.Key, b.Key) })
	return cleanable
}
