package lease

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// epsilon is what KCL adds to the failover time in all its periods.
const epsilon = 25 * time.Millisecond

// theftPeriod is the period of KCL 2.x's taker, which steals one lease at a time.
func theftPeriod(failover time.Duration) time.Duration { return 2 * (failover + epsilon) }

// veryOld is the number of failover times after which a KCL 2.x worker takes a free lease whatever it has already. Below
// that, those beside us have had a run of their taker to come for what is their share.
const veryOld = 3

// takeBesideKCL takes free leases as a KCL 2.x worker does: up to its formula's share, in which ended leases count, and
// what has been free for very long beyond that (r8.5).
func (p *planner) takeBesideKCL() {
	most := map[string]int{}
	for _, w := range p.workers {
		most[w] = p.target()
	}
	if limit, ok := p.most[p.v.worker]; ok {
		most[p.v.worker] = min(most[p.v.worker], limit)
	}
	p.most = most
	mine := p.falls(p.free, p.weighed, most)
	p.coming = len(mine)
	p.takeAll(mine)
	var old []string
	for _, key := range p.free {
		since := p.freeSince(p.known[key])
		if p.v.now-since > veryOld*p.v.failover && !slices.ContainsFunc(p.d.take, func(l Lease) bool { return l.Key == key }) {
			old = append(old, key)
		}
		if p.room > 0 {
			p.wake(since + veryOld*p.v.failover + 1)
		}
	}
	sortFor(p.v.worker, old)
	p.takeAll(old)
	p.steal()
}

// steal takes one lease from a live KCL 2.x worker, which knows no other way of giving. That worker learns of it by its
// next renewal, and what it had not checkpointed is read again; so it is done as seldom as KCL does it, and only by as
// many of us as there are leases above the share.
func (p *planner) steal() {
	me := p.v.worker
	next := p.v.stoleAt + theftPeriod(p.v.failover)
	fewest := p.total / len(p.workers)
	if len(p.free) > 0 || p.weighed[me] >= fewest || p.room <= 0 {
		return
	}
	tooMany := 0
	var victims []string
	for w := range p.kcl {
		// KCL steals from who has more than the formula's share; and from who has just that, if it lacks more than one.
		// Down to the floor is both, and leaves the victim no poorer than the thief becomes.
		if n := p.weighed[w] - fewest; n > 0 {
			tooMany += n
			victims = append(victims, w)
		}
	}
	poorer := 0
	for _, w := range p.workers {
		if !p.kcl[w] && w != me && cmp.Or(cmp.Compare(p.weighed[w], p.weighed[me]), cmp.Compare(w, me)) < 0 {
			poorer++
		}
	}
	if poorer >= tooMany {
		return
	}
	if p.v.now < next {
		p.wake(next)
		return
	}
	slices.SortFunc(victims, func(a, b string) int {
		return cmp.Or(cmp.Compare(p.weighed[b], p.weighed[a]), cmp.Compare(a, b))
	})
	for _, w := range victims {
		if keys := p.stealable(w); len(keys) > 0 {
			sortFor(me, keys)
			p.takeNow(p.known[keys[0]].lease)
			p.d.stolen = true
			return
		}
	}
}

// stealable are the leases of a KCL worker that may be stolen. One at LATEST may not (r5.5): where the worker began to
// read it is stored nowhere, so what it has read and not checkpointed would be lost.
func (p *planner) stealable(victim string) (keys []string) {
	for _, key := range slices.Sorted(maps.Keys(p.known)) {
		o := p.known[key]
		l := o.lease
		if l.Owner == victim && !l.IsOurs() && l.CheckpointOwner == "" && !l.Ended() && !isBlocked(l, p.known) && l.Checkpoint.Sequence != checkpoint.Latest &&
			!o.tried && !p.v.busy[key] && !o.isExpired(p.v.failover, p.v.now) && p.v.mayTake(l) {
			keys = append(keys, key)
		}
	}
	return keys
}
