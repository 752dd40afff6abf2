package lease

import (
	"cmp"
	"maps"
	"slices"
)

// ask decides which leases of other workers of ours to ask for: all that we lack, spread over those that have more than
// their share.
func (p *planner) ask() {
	me := p.v.worker
	workers := p.workers
	share := shares(p.total, workers, p.weighed, p.most)
	if share[me] <= p.weighed[me] && p.quiet && !p.d.kcl2 {
		// Those that have less than we do are content with it, so what is too much is shared among the others.
		workers = slices.DeleteFunc(slices.Clone(workers), func(w string) bool { return p.weighed[w] < p.weighed[me] })
		total := 0
		for _, w := range workers {
			total += p.weighed[w]
		}
		share = shares(total, workers, p.weighed, p.most)
	}
	if share[me]-p.weighed[me]-p.coming <= 0 || p.room <= 0 || p.contested || p.refused {
		return
	}
	lack, excess, scatter := p.imbalance(workers, share)
	candidates := p.askable()
	leaveToOwners(candidates, excess, scatter)
	mine := match(candidates, lack, excess)[me]
	for _, key := range mine[:min(len(mine), p.burst(len(candidates)))] {
		p.d.ask = append(p.d.ask, p.known[key].lease)
	}
}

// imbalance tells who lacks leases and who has too many. What somebody only hopes for he cannot give.
//
// There may be others like us, whom we do not see: those that have no lease yet, or had none in the picture that we have.
// If all of them asked for the odd leases of those that shares finds too rich, which may be a few owners only, they would
// meet each other there. So whoever is new, or has nothing, leaves odd leases to nobody and asks everywhere above the
// floor (scatter). Whoever has something and has seen the others do the same goes to the richest: they are what is left to be
// done.
func (p *planner) imbalance(workers []string, share map[string]int) (lack, excess map[string]int, scatter bool) {
	me, floor := p.v.worker, p.total/len(p.workers)
	isNew := p.has(me) == 0 || p.v.now-p.v.since < p.v.failover/3
	scatter = p.weighed[me] < floor && isNew
	lack, excess = map[string]int{}, map[string]int{}
	for _, w := range workers {
		want := share[w]
		if scatter && w != me {
			want = floor
		}
		switch n := want - p.weighed[w]; {
		case w == me:
			lack[w] = min(n-p.coming, p.room)
		case n > 0 && !p.kcl[w]:
			lack[w] = n
		case n < 0:
			excess[w] = max(0, p.has(w)-want)
		}
	}
	return lack, excess, scatter
}

// leaveToOwners takes out of the candidates what suits their owners best. An owner with two leases where everybody gets
// one has one to give; if one asker wanted this and another that, the second would be told so only by a refusal, after a
// renewal period. When both want the same the second one's write fails at once, and it looks elsewhere.
// Those that scatter leave a quarter at most: when they are many, there is more to give than it seems, and they would only
// get in each other's way.
func leaveToOwners(candidates map[string]string, excess map[string]int, scatter bool) {
	has := map[string][]string{}
	for key, owner := range candidates {
		has[owner] = append(has[owner], key)
	}
	for owner, keys := range has {
		sortFor(owner, keys)
		left := max(0, len(keys)-excess[owner])
		if scatter {
			left = min(left, (len(keys)+3)/4)
		}
		for _, key := range keys[:left] {
			delete(candidates, key)
		}
	}
}

// firstBurst is the number of asks with which a worker begins at least.
const firstBurst = 8

// burst is how many asks may begin now. Workers that start together do not know of each other until they see each other's
// asks, of which a lease has room for one. So everybody begins with a few; who has met nobody after failover/6 asks for
// the rest.
func (p *planner) burst(unasked int) int {
	most := max(firstBurst, unasked/32)
	for _, since := range p.v.asked {
		if p.v.now-since >= p.v.failover/6 {
			return max(firstBurst, len(p.v.asked))
		}
		p.wake(since + p.v.failover/6)
	}
	return max(0, most-len(p.v.asked))
}

// match pairs leases with the workers that lack some: each lease, best pair first, with the worker it suits best. All
// workers with the same view come to the same result, so their asks do not meet. One that sees nobody else in want gets
// what suits it best, so that it hardly meets others which it cannot see.
func match(owners map[string]string, lack, excess map[string]int) map[string][]string {
	type pair struct {
		key, worker string
		score       uint64
	}
	prints := map[string]uint64{}
	for w, n := range lack {
		if n > 0 {
			prints[w] = fingerprint(w)
		}
	}
	best := func(key string) (b pair) {
		k := fingerprint(key)
		for w, print := range prints {
			if s := suits(print, k); s > b.score || s == b.score && (b.worker == "" || w < b.worker) {
				b = pair{key, w, s}
			}
		}
		return b
	}
	var pairs []pair
	for key, owner := range owners {
		if excess[owner] > 0 {
			pairs = append(pairs, best(key))
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.key, b.key))
	})
	lack, excess = maps.Clone(lack), maps.Clone(excess)
	matched := map[string][]string{}
	for _, c := range pairs {
		owner := owners[c.key]
		if excess[owner] == 0 {
			continue
		}
		if lack[c.worker] == 0 {
			if c = best(c.key); c.worker == "" {
				break
			}
		}
		matched[c.worker] = append(matched[c.worker], c.key)
		excess[owner]--
		if lack[c.worker]--; lack[c.worker] == 0 {
			delete(prints, c.worker)
		}
	}
	return matched
}

// askable are the leases that may be asked for, and their owners. Only an owner of ours understands an ask; an ended lease is
// nobody's gain, and one that waits for its parent is no load yet.
func (p *planner) askable() map[string]string {
	owners := map[string]string{}
	for key, o := range p.known {
		l := o.lease
		if !l.IsOurs() || l.Owner == p.v.worker || l.CheckpointOwner != "" || asker(l) != "" || l.Ended() || isBlocked(l, p.known) ||
			p.v.busy[key] || p.isAsked(key) || o.tried || o.askAfter > p.v.now || o.isExpired(p.v.failover, p.v.now) || !p.v.mayTake(l) {
			continue
		}
		owners[key] = l.Owner
	}
	return owners
}

// judgeAsks decides over asks for leases that we hold (r4.2), of which asked is how they look with the ask in them: the
// poorest asker first, and as long as that makes shares fairer. Asks that are being served already (view.giving) are not
// among them.
func judgeAsks(known map[string]observation, v view, asked []Lease) (grant, refuse []Lease) {
	r := callTheRoll(known, v)
	for _, l := range asked {
		if !slices.Contains(r.workers, l.Ask) {
			r.workers = append(r.workers, l.Ask)
		}
	}
	fewest, most := r.total/len(r.workers), r.target()
	left := slices.SortedFunc(slices.Values(asked), func(a, b Lease) int { return cmp.Compare(a.Key, b.Key) })
	for len(left) > 0 {
		next := 0
		for i, l := range left {
			if cmp.Or(cmp.Compare(r.weighed[l.Ask], r.weighed[left[next].Ask]), cmp.Compare(l.Ask, left[next].Ask)) < 0 {
				next = i
			}
		}
		l := left[next]
		left = slices.Delete(left, next, next+1)
		mine, theirs := r.has(v.worker), r.has(l.Ask)
		// With a difference of one the two would only change places. A newcomer gets no more than its share, since there
		// may be others whose asks have not been seen yet; who has been here longer knows that some want no more. What else
		// it asks for counts in the order of the keys: if all its owners took the asks at the others for granted, each would
		// leave it to the others to grant theirs.
		if l.Ended() || isBlocked(l, known) || mine-theirs < 2 || mine-1 < fewest ||
			theirs+r.hopesBefore(l) >= most && !isSettled(l.Ask, known, v, len(r.workers)) {
			refuse = append(refuse, l)
			continue
		}
		grant = append(grant, l)
		r.weighed[v.worker]--
		r.weighed[l.Ask]++
	}
	return grant, refuse
}

// hopesBefore is how many other leases the asker asks for whose keys come before this one's.
func (r roster) hopesBefore(l Lease) (n int) {
	for _, key := range r.hopes[l.Ask] {
		if key < l.Key {
			n++
		}
	}
	return n
}

// isSettled tells whether the worker has had a lease for so long that it knows the others.
func isSettled(worker string, known map[string]observation, v view, workers int) bool {
	for _, o := range known {
		if o.lease.Owner == worker && v.now-o.movedAt > 2*scanPeriod(v.failover, workers) {
			return true
		}
	}
	return false
}
