package lease

import (
	"cmp"
	"hash/fnv"
	"maps"
	"slices"
	"time"
)

// roster is who shares the leases and how they stand, as one worker sees it. Leases on their way, by a take, an ask or
// a hand-over, count for the worker they go to, so that nobody asks for what is being given already.
type roster struct {
	// workers are those that seem to be alive, this one included, sorted. One without a lease is known by its asks only.
	workers []string
	// kcl are those of workers that are not ours.
	kcl map[string]bool
	// weighed and light are the leases of each worker: those that are work and those that are none yet, as the children
	// of a shard that is still being read. Beside KCL 2.x all are weighed, as it does.
	weighed, light map[string]int
	// hopes are those of weighed that a worker does not have yet, but only asks for. Their owners may refuse them.
	hopes map[string][]string
	// total is the number of all weighed leases, whoever has them.
	total int
	// free are the keys of unended leases that nobody has or whose owner is dead, sorted. Some of a dead owner's may not
	// have expired yet: they are dealt out with the others, so that all observers come to the same result, and taken when
	// their time comes.
	free []string
	// quiet is set when nothing has changed hands for so long that everybody has had the time to ask for its share: who
	// has less and does not ask does not want more (e.g. maxLeasesForWorker).
	quiet bool
	// lastMove is when a lease was last seen to change hands.
	lastMove time.Duration
}

// liveAsk is how many counts of the owner's heartbeat an ask stays alive (r4.1).
const liveAsk = 6

// asker is the worker that asks for the lease, "" if none does or the ask is too old. The counter is the clock: nobody
// else's would be comparable.
func asker(l Lease) string {
	if l.Ask == "" || !l.IsOurs() || l.Ask == l.Owner || l.Counter-l.AskAt > liveAsk {
		return ""
	}
	return l.Ask
}

// keeper is the worker that keeps the lease alive: during a hand-over of KCL 3.x the old one.
func keeper(l Lease) string {
	if l.CheckpointOwner != "" {
		return l.CheckpointOwner
	}
	return l.Owner
}

// isBlocked tells whether a parent of the lease's shard has still to be read. A missing parent does not block.
func isBlocked(l Lease, known map[string]observation) bool {
	return slices.ContainsFunc(l.Parents, func(p string) bool {
		o, ok := known[p]
		return ok && !o.lease.Ended()
	})
}

// deadWorkers are the owners that have let a lease expire, and of whose leases none has moved since. All their leases
// are as good as expired then, though the clocks of some run a little longer.
func deadWorkers(known map[string]observation, v view) map[string]bool {
	expired, moving := map[string]bool{}, map[string]bool{}
	for _, o := range known {
		w := keeper(o.lease)
		switch {
		case w == "" || w == v.worker:
		case o.isExpired(v.failover, v.now):
			expired[w] = true
		case !o.confirmed:
			moving[w] = true
		}
	}
	maps.DeleteFunc(expired, func(w string, _ bool) bool { return moving[w] })
	return expired
}

// callTheRoll makes the roster.
func callTheRoll(known map[string]observation, v view) roster {
	r := roster{kcl: map[string]bool{}, weighed: map[string]int{}, light: map[string]int{}, hopes: map[string][]string{}}
	dead := deadWorkers(known, v)
	alive := map[string]bool{v.worker: true}
	holder := make(map[string]string, len(known)) // "" = free
	asking, hoped := map[string]bool{}, map[string]bool{}
	for key, o := range known {
		l := o.lease
		r.lastMove = max(r.lastMove, o.movedAt)
		to, giving := v.giving[key]
		_, isAsked := v.asked[key]
		switch {
		case giving:
			holder[key], alive[to], asking[to] = to, true, true
			continue
		case v.busy[key], isAsked, l.Owner == v.worker && l.CheckpointOwner == "" && (l.IsOurs() || !o.isExpired(v.failover, v.now)):
			// One with our name that is no run of ours, since somebody has edited it, is nobody's when nobody renews it.
			holder[key], hoped[key] = v.worker, isAsked
			continue
		}
		w := keeper(l)
		if w == "" || dead[w] || o.isExpired(v.failover, v.now) {
			continue
		}
		holder[key], alive[w] = w, true
		if !l.IsOurs() && w != v.worker {
			r.kcl[w] = true
		}
		// The ask of a lease whose owner is dead says nothing of the asker: its clock has stopped.
		if to := asker(l); to != "" && to != v.worker {
			holder[key], alive[to], asking[to], hoped[key] = to, true, true, true
		}
	}
	for key, o := range known {
		w, class := holder[key], r.weighed
		switch {
		case len(r.kcl) > 0:
			r.total++
		case o.lease.Ended():
			continue
		case isBlocked(o.lease, known):
			class = r.light
		default:
			r.total++
		}
		if w != "" {
			class[w]++
			if hoped[key] {
				r.hopes[w] = append(r.hopes[w], key)
			}
		} else if !o.lease.Ended() {
			r.free = append(r.free, key)
		}
	}
	r.workers = slices.Sorted(maps.Keys(alive))
	slices.Sort(r.free)
	r.quiet = v.now-r.lastMove > 2*scanPeriod(v.failover, len(r.workers))
	for w := range asking {
		// Somebody is catching up.
		r.quiet = r.quiet && r.weighed[w] >= r.weighed[v.worker]
	}
	return r
}

// has is how many weighed leases the worker has for certain.
func (r roster) has(worker string) int { return r.weighed[worker] - len(r.hopes[worker]) }

// target is the number of leases above which KCL 2.x takes none (r8.5).
func (r roster) target() int {
	return max(1, (r.total+len(r.workers)-1)/len(r.workers))
}

// shares divides total leases among the workers, as equally as most allows, which limits some of them. Those that have
// most get the odd ones, so that as few as possible change hands, and none when all are equal within one.
func shares(total int, workers []string, holds, most map[string]int) map[string]int {
	share := make(map[string]int, len(workers))
	open := slices.SortedFunc(slices.Values(workers), func(a, b string) int {
		return cmp.Or(cmp.Compare(holds[b], holds[a]), cmp.Compare(a, b))
	})
	for limited := true; limited && len(open) > 0; {
		limited = false
		each, odd := total/len(open), total%len(open)
		var rest []string
		for i, w := range open {
			n := each
			if i < odd {
				n++
			}
			if limit, ok := most[w]; ok && limit < n {
				limited = true
				share[w] = max(limit, 0)
				total -= share[w]
				continue
			}
			share[w] = n
			rest = append(rest, w)
		}
		open = rest
	}
	return share
}

// fingerprint and suits order the workers for each lease, and the leases for each worker, alike in every process and
// differently for each: rendezvous hashing. The hash is FNV-1a.
func fingerprint(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // never fails
	return h.Sum64()
}

// suits is how well a worker suits a lease, by their fingerprints. FNV's results for similar strings are similar; the
// finalizer of splitmix64 mixes them.
func suits(worker, key uint64) uint64 {
	z := worker ^ key*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// sortFor puts the leases that suit the worker best first.
func sortFor(worker string, keys []string) {
	w := fingerprint(worker)
	scores := make(map[string]uint64, len(keys))
	for _, key := range keys {
		scores[key] = suits(w, fingerprint(key))
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(scores[b], scores[a]), cmp.Compare(a, b))
	})
}

// deal gives each free lease to the worker that suits it best among those below their share. Leases that find nobody
// are missing in the result. As long as shares stay, taking a dealt lease changes nothing for the others, so workers that
// take at different moments agree nevertheless.
func deal(free, workers []string, share, holds map[string]int) map[string]string {
	type player struct {
		name        string
		fingerprint uint64
		room        int
	}
	var open []player
	for _, w := range workers {
		if n := share[w] - holds[w]; n > 0 {
			open = append(open, player{w, fingerprint(w), n})
		}
	}
	dealt := make(map[string]string, len(free))
	for _, key := range free {
		if len(open) == 0 {
			break
		}
		k, best, most := fingerprint(key), 0, uint64(0)
		for i, w := range open {
			if s := suits(w.fingerprint, k); s > most || i == 0 {
				best, most = i, s
			}
		}
		dealt[key] = open[best].name
		if open[best].room--; open[best].room == 0 {
			open = slices.Delete(open, best, best+1)
		}
	}
	return dealt
}
