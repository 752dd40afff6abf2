package shard

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
)

// ErrOpen is returned for a shard that is said to have ended and has not.
var ErrOpen = errors.New("the shard has not ended")

// EndOf returns the leases of the children that go on where a shard ends, or ErrOpen if it does not end. Last is the
// read that made the caller believe in the end, listed the whole listing; both are needed: the read may name no children
// (some emulators, or a shard that retention has taken away), and the listing may lag behind the read.
//
// Without last.Ended the shard was not found. That is its end only if the listing does not know it either: a closed
// shard has children, and may still have records that nobody has read.
//
// A child begins at TRIM_HORIZON whatever the configured position is: nothing of it has been read, and its parent was
// ours. It copies the parent's anchor, which says since when the stream is.
func EndOf(parent lease.Lease, last retrieval.Read, listed []Shard, stream string) ([]lease.Lease, error) {
	children := map[string]Shard{}
	known, closed := false, false
	for _, s := range listed {
		if s.ID == parent.Key {
			known, closed = true, s.Closed
		}
		if slices.Contains(s.Parents, parent.Key) {
			children[s.ID] = s
		}
	}
	if known && !last.Ended {
		return nil, fmt.Errorf("ending %s, which was not found and is listed: %w", parent.Key, ErrOpen)
	}
	for _, c := range last.Children {
		if _, has := children[c.ID]; !has && slices.Contains(c.Parents, parent.Key) {
			children[c.ID] = Shard{ID: c.ID, Parents: c.Parents, StartingHashKey: c.StartingHashKey, EndingHashKey: c.EndingHashKey}
		}
	}
	if len(children) == 0 {
		if known && !closed {
			return nil, fmt.Errorf("ending %s, which kinesis lists as open: %w", parent.Key, ErrOpen)
		}
		if known {
			return nil, fmt.Errorf("ending %s: kinesis does not tell its children yet", parent.Key)
		}
		// Retention has taken the shard away, and its children with it. What is left of the stream is found by lineage.
	}
	var leases []lease.Lease
	for _, c := range children {
		leases = append(leases, childLease(c, parent, stream))
	}
	slices.SortFunc(leases, func(a, b lease.Lease) int { return strings.Compare(a.Key, b.Key) })
	return leases, nil
}

func childLease(c Shard, parent lease.Lease, stream string) lease.Lease {
	l := firstLease(c, Start{Position: checkpoint.TrimHorizon}, stream)
	l.Start = parent.Start
	return l
}

// MissingChildren returns the leases of listed children that a shard at SHARD_END should have and has not: KCL, and the
// rule of Holes, both leave a shard with a leased ancestor to the end of that ancestor, which in this case is past.
func MissingChildren(listed []Shard, leases map[string]lease.Lease, stream string) []lease.Lease {
	var missing []lease.Lease
	for _, s := range byStart(listed) {
		if _, has := leases[s.ID]; has {
			continue
		}
		for _, p := range s.Parents {
			// The parent is still there, so the child cannot have been cleaned up: that comes after its parents.
			if parent, has := leases[p]; has && parent.Ended() {
				missing = append(missing, childLease(s, parent, stream))
				break
			}
		}
	}
	return missing
}

// MissingAncestors returns the leases, parents first, that have to exist before those of the given children: of shards
// that nobody has come to yet, because an ancestor of theirs is still being read. A merge has two parents. When the first
// of them ends, the other may be a grandchild of a shard in the middle of its backlog; without a lease it would look
// like a shard that was never ours or is cleaned up already, and the merged shard would be read before it (I3). (KCL
// waits with the end of the first parent instead, and holds a lease for nothing as long as the other takes.)
//
// Such a shard cannot have been cleaned up: that comes after its child has begun. One without a leased ancestor lies
// before the start position and gets no lease.
func MissingAncestors(children []lease.Lease, listed []Shard, leases map[string]lease.Lease, stream string) []lease.Lease {
	byID := make(map[string]Shard, len(listed))
	for _, s := range listed {
		byID[s.ID] = s
	}
	descends, begun := descendants(listed, leases), begunBelow(listed, leases)
	wanted := map[string]lease.Lease{}
	for _, c := range children {
		if _, has := leases[c.Key]; has {
			continue
		}
		for queue := slices.Clone(c.Parents); len(queue) > 0; queue = queue[1:] {
			id := queue[0]
			s, shown := byID[id]
			_, has := leases[id]
			_, seen := wanted[id]
			if !shown || has || seen || !descends[id] || begun[id] {
				continue
			}
			wanted[id] = childLease(s, c, stream)
			queue = append(queue, s.Parents...)
		}
	}
	var missing []lease.Lease
	for _, s := range byStart(listed) {
		if l, want := wanted[s.ID]; want {
			missing = append(missing, l)
		}
	}
	return missing
}
