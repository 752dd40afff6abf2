package lease

import "time"

// observation is what a worker knows of a lease that it does not hold: how it last looked, and since when its counter
// has stood still, on the worker's own clock. No clocks of different machines are ever compared.
type observation struct {
	lease Lease
	// seenAt is when the answer with this counter arrived first: the owner's stamp is from before that write was sent,
	// so its fence ends before the observer's patience.
	seenAt time.Duration
	// movedAt is when the lease was last seen to change hands, or to begin or end being work.
	movedAt time.Duration
	// confirmed is set when a later scan showed the counter unchanged.
	confirmed bool
	// evidentAt is when a scan first showed the counter unchanged for so long that a live owner would have renewed; 0 = none
	// has. Time alone is no evidence: in large fleets there is less than one scan per failover time.
	evidentAt time.Duration
	// tried is set when a take failed or gave up since the last scan; the next scan comes first then.
	tried bool
	// askAfter is when the lease may be asked for again: a refusal has a reason that takes time to go away.
	askAfter time.Duration
}

// refused is an observation after the owner has refused an ask, or has not given the lease in time.
func (o observation) refused(failover, now time.Duration) observation {
	o.tried, o.askAfter = true, now+2*failover
	return o
}

// observe brings observations up to date with the leases of a scan whose answer arrived at now. The scan may be stale:
// takes are conditional on the counter, so an old picture can only delay them.
func observe(known map[string]observation, leases []Lease, own, now time.Duration) map[string]observation {
	next := make(map[string]observation, len(leases))
	for _, l := range leases {
		o, ok := known[l.Key]
		switch {
		case !ok:
			o = observation{lease: l, seenAt: now, movedAt: now}
		case l.Counter > o.lease.Counter, l.Counter == o.lease.Counter && !isSameWrite(l, o.lease):
			o = observation{lease: l, seenAt: now, movedAt: o.lastMove(l, now), askAfter: o.askAfter}
		case l.Counter == o.lease.Counter:
			// Attributes that move without the counter (kp_start, a hand-over of KCL 3.x) are taken as they are now.
			o.movedAt = o.lastMove(l, now)
			o.lease = l
			o = o.unmoved(own, now)
		default:
			// A stale read, or an item that was deleted and created again. Which of them is told by the item that a
			// take on the remembered counter fails on.
			o = o.unmoved(own, now)
		}
		o.tried = false
		next[l.Key] = o
	}
	return next
}

// isSameWrite tells whether two pictures of a lease with one counter show the same write of its owner. They do not when the
// lease was deleted and made anew between them, and its counter has come as far again: to somebody who looked away meanwhile,
// the new owner's lease would seem to have stood still since the days of the old.
func isSameWrite(a, b Lease) bool {
	return a.Acquisition == b.Acquisition && a.Checkpoint == b.Checkpoint
}

// corrected is the observation of a lease as a failed condition returned it. That answer is consistent, so it replaces
// what is remembered even with a lower counter, and the patience starts anew.
func corrected(l Lease, now time.Duration) observation {
	return observation{lease: l, seenAt: now, movedAt: now, tried: true}
}

func (o observation) lastMove(l Lease, now time.Duration) time.Duration {
	if l.Owner != o.lease.Owner || l.CheckpointOwner != o.lease.CheckpointOwner || l.Ended() != o.lease.Ended() {
		return now
	}
	return o.movedAt
}

// patience is how long the counter of a lease must stand still until it may be taken from its keeper. One of ours, also in
// a hand-over of KCL 3.x, says how long it believes in the lease; without that a worker with a short failover time would
// rob one with a long.
func patience(l Lease, own time.Duration) time.Duration {
	if w := keeper(l); w != "" && w == acquirer(l) {
		return max(own, l.Failover)
	}
	return own
}

// isOwned tells whether somebody must be waited for: the owner, or the worker that a hand-over of KCL 3.x has left
// behind.
func isOwned(l Lease) bool { return l.Owner != "" || l.CheckpointOwner != "" }

// unmoved is the observation after a scan that has shown nothing new.
func (o observation) unmoved(own, now time.Duration) observation {
	o.confirmed = true
	if o.evidentAt == 0 && now-o.seenAt >= patience(o.lease, own)/2 {
		o.evidentAt = now
	}
	return o
}

// expiresAt is the first moment at which the owner of the lease has lost it, for the observer, if it stays unmoved.
func (o observation) expiresAt(own time.Duration) time.Duration {
	return max(o.seenAt+patience(o.lease, own)+1, o.evidentAt)
}

// isExpired tells whether the owner of the lease has lost it, for the observer.
func (o observation) isExpired(own, now time.Duration) bool {
	return o.evidentAt != 0 && now >= o.expiresAt(own)
}
