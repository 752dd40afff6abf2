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
	max      int             // most leases at once, 0 = any number
	busy     map[string]bool // an actor of ours takes, keeps, gives or releases the lease
	// asked are leases of others that we have asked for and neither got nor given up: ours to come.
	asked map[string]bool
	// giving are leases in busy that are being drained for another worker, and which: theirs to come.
	giving map[string]string
	// takes is how many takes may begin now, 0 = any number. The fewer begin at once, the more the failed ones teach of
	// who else is there.
	takes   int
	mayTake func(Lease) bool
	// beside is what scans told of KCL 3.x; see besideKCL.
	beside Beside
	// stoleAt is when a lease was last stolen from a KCL 2.x worker, or tried to be; before the first time it is when
	// this worker first scanned.
	stoleAt time.Duration
	now     time.Duration
}

// decisions is a plan. The conditions of the writes keep any plan safe; a good one is fair and quiet.
type decisions struct {
	take []Lease
	// ask are leases of other workers of ours to ask for (r4.1).
	ask []Lease
	// release are leases that the table calls ours, but which we do not want (r3.6): nobody would renew them.
	release []Lease
	// stolen is set when one of take is stolen from a live KCL 2.x worker; view.stoleAt is now then.
	stolen bool
	// next is when another plan is worthwhile without a scan: the earliest expiry, or the end of a wait for another
	// worker to take what is its share; 0 = only a scan changes anything.
	next time.Duration
	// foreign is a lease of another stream, if there is one; nothing is taken then (r7.1).
	foreign *Lease
	// workers is the number of workers that seem to be alive, this one included.
	workers int
	// leftover is the number of leases that stay without an owner because this worker holds as many as it may, and
	// nobody else has come for them.
	leftover int
	// kcl2 tells that a KCL 2.x worker lives beside us: its formula is used (r8.5), and ended leases must be kept (r6.5).
	kcl2 bool
}

// Beside is what is known of KCL 3.x workers on the same table.
type Beside int

const (
	// BesideNone: no KCL 3.x worker lives here, or those that do work as KCL 2.x does.
	BesideNone Beside = iota
	// Beside3: a KCL 3.x worker lives here, whose leader assigns the leases: nothing may be taken or asked for (r8.4).
	Beside3
)

// judgeAsks decides over asks for leases that we hold (r4.2), of which asked is how they look with the ask in them: the
// poorest asker first, and as long as that makes shares fairer. Asks that are being served already (view.giving) are not
// among them.
func judgeAsks(known map[string]observation, v view, asked []Lease) (grant, refuse []Lease) {
	return nil, asked
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
