package lease

import (
	"maps"
	"slices"
	"time"
)

// view is what a plan is made from, besides the observations.
type view struct {
	worker   string
	stream   string
	isOwn    func(acquisition string) bool // whether this process made the acquisition
	failover time.Duration
	max      int // most leases at once, 0 = any number
	busy     map[string]bool
	mayTake  func(Lease) bool
	now      time.Duration
}

// decisions is a plan. Sharing the leases fairly with other workers will refine what is taken here; the conditions of
// the writes keep any plan safe.
type decisions struct {
	take []Lease
	// release are leases that the table calls ours, but which we do not want (r3.6): nobody would renew them.
	release []Lease
	// next is when the earliest expiry makes another plan worthwhile; 0 = only a scan does.
	next time.Duration
	// foreign is a lease of another stream, if there is one; nothing is taken then (r7.1).
	foreign *Lease
	// workers is the number of workers that seem to be alive, this one included.
	workers int
}

// makePlan decides what to take now.
func makePlan(known map[string]observation, v view) decisions {
	var d decisions
	alive := map[string]bool{v.worker: true}
	room := len(known)
	if v.max > 0 {
		room = max(0, v.max-len(v.busy))
	}
	for _, key := range slices.Sorted(maps.Keys(known)) {
		o := known[key]
		l := o.lease
		if l.Stream != "" && l.Stream != v.stream && d.foreign == nil {
			d.foreign = &l
		}
		expired := o.isExpired(v.failover, v.now)
		if isOwned(l) && !expired && l.Owner != "" {
			alive[l.Owner] = true
		}
		if v.busy[key] || o.tried {
			continue
		}
		if l.Owner == v.worker && l.IsOurs() && l.CheckpointOwner == "" {
			// Ours in the table, and no actor keeps it: a take whose answer was lost, a run that ended at its fence, or
			// something that came to us unasked.
			if v.isOwn(l.Acquisition) && !l.Ended() && room > 0 && v.mayTake(l) {
				d.take = append(d.take, l)
				room--
			} else {
				d.release = append(d.release, l)
			}
			continue
		}
		// An ended shard is nobody's work any more.
		if l.Ended() || room == 0 || !v.mayTake(l) {
			continue
		}
		switch {
		case !isOwned(l), expired && o.confirmed:
			d.take = append(d.take, l)
			room--
		case !expired && o.confirmed:
			if at := o.seenAt + patience(l, v.failover) + 1; d.next == 0 || at < d.next {
				d.next = at
			}
		}
	}
	d.workers = len(alive)
	if d.foreign != nil {
		d.take, d.release, d.next = nil, nil, 0
	}
	return d
}

// workersPerScan is the number of workers up to which everybody scans three times per failover time. Above it scans
// become rarer, so that they never cost more than the renewals.
const workersPerScan = 16

// scanPeriod is the mean time between two scans (r3.4).
func scanPeriod(failover time.Duration, workers int) time.Duration {
	return failover / 3 * time.Duration(max(workersPerScan, workers)) / workersPerScan
}
