package lease

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// view is what a plan is made from, besides the observations.
type view struct {
	worker   string
	stream   string
	isOwn    func(Lease) bool // whether it shows a run of this process
	failover time.Duration
	max      int             // most leases at once, 0 = any number
	busy     map[string]bool // an actor of ours takes, keeps, gives or releases the lease
	// asked are leases of others that we have asked for and neither got nor given up, ours to come, and since when.
	asked map[string]time.Duration
	// giving are leases in busy that are being drained for another worker, and which: theirs to come.
	giving map[string]string
	// pending is how many takes have begun that have no answer yet.
	pending int
	mayTake func(Lease) bool
	// beside is what scans told of KCL 3.x (r8.4).
	beside Beside
	// stoleAt is when a lease was last stolen from a KCL 2.x worker, or tried to be; before the first time it is when
	// this worker first scanned.
	stoleAt time.Duration
	// since is when this worker first scanned.
	since time.Duration
	now   time.Duration
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
	// contested is set when others are after the same leases, or have refused one: a scan soon tells more than further tries
	// would.
	contested bool
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

// makePlan decides what to take, ask for and give back now. It is a function of its arguments alone.
//
// Everybody deals the free leases out by the same rules from much the same view, and takes at once what falls to itself
// (r8.6). What a worker that is dead, full or unknown leaves of its part is dealt to the others after failover/6, and is
// anybody's after as much again. Shares that became unequal are mended by asking those who have too many.
func makePlan(known map[string]observation, v view) decisions {
	p := planner{known: known, v: v, roster: callTheRoll(known, v)}
	p.d.workers, p.d.kcl2 = len(p.workers), len(p.kcl) > 0 && v.beside != Beside3
	p.room = len(known)
	if v.max > 0 {
		p.room = max(0, v.max-len(v.busy)-len(v.asked))
	}
	p.most = map[string]int{}
	if v.max > 0 {
		// The limit is for all that we hold, the share is of the weighed ones.
		p.most[v.worker] = max(0, v.max-p.light[v.worker])
	}
	if foreign := p.foreign(); foreign != nil {
		p.d.foreign = foreign
		return p.d
	}
	p.contested = p.isContested()
	p.refused = p.isRefused()
	p.d.contested = p.contested || p.refused
	p.settleOwn()
	if v.beside == Beside3 {
		// Its leader assigns whatever is free; taking would only make both move the same leases to and fro (r8.4).
		return p.d
	}
	if p.d.kcl2 {
		p.takeBesideKCL()
	} else {
		p.take()
	}
	p.wakeAtExpiry()
	p.ask()
	p.d.leftover = p.leftover()
	return p.d
}

// planner is the state of one makePlan.
type planner struct {
	known map[string]observation
	v     view
	roster
	most map[string]int // most weighed leases of a worker, where there is a limit
	room int            // how many more leases we may hold
	// coming is how many weighed leases fall to us that are free or will be so very soon.
	coming int
	// contested: others have been quicker several times since the last scan.
	contested bool
	// refused: an owner has refused an ask since the last scan, so it does not stand as that scan showed it.
	refused bool
	d       decisions
}

func (p *planner) foreign() (found *Lease) {
	for _, o := range p.known {
		if l := o.lease; l.Stream != "" && l.Stream != p.v.stream && (found == nil || l.Key < found.Key) {
			found = &l
		}
	}
	return found
}

// settleOwn decides over leases that are ours in the table and that no actor keeps: a take whose answer was lost, a run
// that ended at its fence, or something that came to us unasked (r3.6).
func (p *planner) settleOwn() {
	var own []Lease
	for key, o := range p.known {
		if l := o.lease; l.Owner == p.v.worker && l.IsOurs() && l.CheckpointOwner == "" && !p.v.busy[key] && !p.isAsked(key) && !o.tried {
			own = append(own, l)
		}
	}
	slices.SortFunc(own, func(a, b Lease) int { return cmp.Compare(a.Key, b.Key) })
	for _, l := range own {
		switch {
		case !p.v.isOwn(l) || l.Ended() || p.room <= 0 || !p.v.mayTake(l):
			p.d.release = append(p.d.release, l)
		case len(p.d.take) < p.slots():
			p.takeNow(l)
		default:
			// After an outage there may be hundreds. The answer to one of those under way brings the next plan.
		}
	}
}

func (p *planner) takeNow(l Lease) {
	p.d.take = append(p.d.take, l)
	p.room--
}

// wake asks for another plan at the given moment, if that is to come.
func (p *planner) wake(at time.Duration) {
	if at > p.v.now && (p.d.next == 0 || at < p.d.next) {
		p.d.next = at
	}
}

// freeSince is when the lease became free, for this observer.
func (p *planner) freeSince(o observation) time.Duration {
	if !isOwned(o.lease) {
		return o.seenAt
	}
	return o.expiresAt(p.v.failover)
}

// dealtSince is when everybody could have seen the deal as it is now: what has just changed hands has changed it. Where
// there is no end of changes, the lease waits a failover time longer and no more.
func (p *planner) dealtSince(key string) time.Duration {
	since := p.freeSince(p.known[key])
	return max(since, min(p.lastMove, since+p.v.failover))
}

// take deals the free leases, the weighed ones and those that are no work yet for themselves.
func (p *planner) take() {
	var weighed, light []string
	for _, key := range p.free {
		if isBlocked(p.known[key].lease, p.known) {
			light = append(light, key)
		} else {
			weighed = append(weighed, key)
		}
	}
	mine := p.falls(weighed, p.weighed, p.most)
	p.coming = len(mine)
	p.takeAll(mine)
	p.takeAll(p.falls(light, p.light, nil))
}

// wakeAtExpiry has a look at the earliest expiry, even while the owner seems to live (r3.4).
func (p *planner) wakeAtExpiry() {
	for key, o := range p.known {
		if p.room > 0 && isOwned(o.lease) && o.confirmed && !o.tried && !o.lease.Ended() && !p.v.busy[key] && !p.isAsked(key) && p.v.mayTake(o.lease) {
			p.wake(p.freeSince(o))
		}
	}
}

// leftover counts the leases that nobody has come for in a failover time, while we are full.
func (p *planner) leftover() (n int) {
	if p.room > 0 {
		return 0
	}
	for _, key := range p.free {
		if o := p.known[key]; p.v.now-p.freeSince(o) > p.v.failover && p.v.mayTake(o.lease) {
			n++
		}
	}
	return n
}

// deals is how often a free lease is dealt out before it is anybody's.
const deals = 2

// falls returns which of the free leases of one class fall to us now, in the order in which to take them. Holds are the
// leases of that class that each worker has.
func (p *planner) falls(free []string, holds, most map[string]int) (mine []string) {
	me, workers := p.v.worker, p.workers
	holds = maps.Clone(holds)
	for n := range deals {
		total := len(free)
		for _, w := range workers {
			total += holds[w]
		}
		dealt := deal(free, workers, shares(total, workers, holds, most), holds)
		var rest []string
		absent := map[string]bool{}
		for _, key := range free {
			w := dealt[key] // "" = nobody has room for it
			until := p.dealtSince(key) + time.Duration(n+1)*p.v.failover/6
			switch {
			case w == me && p.v.mayTake(p.known[key].lease):
				mine = append(mine, key)
				holds[me]++
			case w == me:
				rest = append(rest, key)
			case p.v.now < until:
				holds[w]++
				if p.room > 0 {
					p.wake(until)
				}
			default:
				absent[w] = true
				rest = append(rest, key)
			}
		}
		workers = slices.DeleteFunc(slices.Clone(workers), func(w string) bool { return absent[w] })
		free = rest
	}
	free = slices.DeleteFunc(free, func(key string) bool { return !p.v.mayTake(p.known[key].lease) })
	sortFor(me, mine)
	sortFor(me, free)
	if limit, ok := most[me]; ok {
		free = free[:min(len(free), max(0, limit-holds[me]))]
	}
	return append(mine, free...)
}

// firstTakes is the number of takes with which a worker begins. It doubles with every answer: each failed one teaches who
// else is there, before hundreds of others are under way in vain.
const firstTakes = 8

func (p *planner) slots() int {
	return min(parallelTakes, max(firstTakes, len(p.v.busy)-p.v.pending)) - p.v.pending
}

// enoughLost is how many takes and asks may be lost to others between two scans before the rest waits for the next one.
const enoughLost = 4

func (p *planner) isContested() bool {
	n := 0
	for key, o := range p.known {
		if l := o.lease; o.tried && !p.v.busy[key] && (keeper(l) != "" && !o.isExpired(p.v.failover, p.v.now) && o.askAfter == 0 || asker(l) != "") {
			n++
		}
	}
	return n >= enoughLost
}

func (p *planner) isRefused() bool {
	for key, o := range p.known {
		if o.tried && o.askAfter > p.v.now && !p.v.busy[key] {
			return true
		}
	}
	return false
}

func (p *planner) isAsked(key string) bool {
	_, asked := p.v.asked[key]
	return asked
}

// takeAll takes of the leases what can be taken now.
func (p *planner) takeAll(keys []string) {
	for _, key := range keys {
		o := p.known[key]
		if o.tried || !p.v.mayTake(o.lease) || p.room <= 0 || p.contested || len(p.d.take) >= p.slots() {
			continue
		}
		if isOwned(o.lease) && !o.isExpired(p.v.failover, p.v.now) {
			continue
		}
		p.takeNow(o.lease)
	}
}

// workersPerScan is the number of workers up to which everybody scans three times per failover time. Above it scans
// become rarer, so that they never cost more than the renewals.
const workersPerScan = 16

// contestedScans is how many scans per failover time there may be while several workers are after the same leases.
const contestedScans = 12

// scanPeriod is the mean time between two scans (r3.4).
func scanPeriod(failover time.Duration, workers int) time.Duration {
	return failover / 3 * time.Duration(max(workersPerScan, workers)) / workersPerScan
}
