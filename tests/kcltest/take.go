package kcltest

import (
	"context"
	"time"
)

// longAgo is the age of a lease that was never owned.
const longAgo = -1 << 62

// observe brings the remembered counters up to date with a scan. The memory stays what it was when a scan fails.
func observe(seen map[string]Lease, scanned []Lease, now time.Duration) map[string]Lease {
	next := make(map[string]Lease, len(scanned))
	for _, l := range scanned {
		old, known := seen[l.Key]
		switch {
		case known && old.Counter == l.Counter:
			l.seenAt = old.seenAt
		case !known && l.Owner == "":
			l.seenAt = longAgo
		default:
			l.seenAt = now
		}
		next[l.Key] = l
	}
	return next
}

// wish is what a taker wants.
type wish struct {
	take []Lease
	// steal are leases of a living owner.
	steal []Lease
}

// fairness is what the choice depends on besides the leases.
type fairness struct {
	worker            string
	failover          time.Duration
	most              int // 0 = any number
	unownedMustExpire bool
	now               time.Duration
	shuffle           func([]Lease)
}

func (f fairness) isExpired(l Lease) bool { return l.seenAt == longAgo || f.now-l.seenAt > f.failover }

func (f fairness) isAvailable(l Lease) bool {
	return l.Owner == "" && !f.unownedMustExpire || f.isExpired(l)
}

// choose is KCL 2.x's taker: the leases to take in this round.
func choose(seen map[string]Lease, f fairness) (w wish) {
	var available, old []Lease
	counts := map[string]int{f.worker: 0}
	for _, l := range sorted(seen) {
		if f.isAvailable(l) {
			available = append(available, l)
		} else if l.Owner != "" {
			counts[l.Owner]++ // ended leases count as any other
		}
		if l.seenAt == longAgo || f.now-l.seenAt > veryOld*f.failover {
			old = append(old, l)
		}
	}
	mine := counts[f.worker]
	room := len(seen)
	if f.most > 0 {
		room = f.most
	}
	// Whoever meets leases that nobody has had for long takes all of them; others steal theirs later.
	if len(old) > 0 {
		f.shuffle(old)
		return wish{take: old[:max(0, min(room-mine, len(old)))]}
	}
	target := 1
	if len(counts) < len(seen) {
		target = (len(seen) + len(counts) - 1) / len(counts)
	}
	target = min(target, room)
	needed := target - mine
	if needed <= 0 {
		return w
	}
	f.shuffle(available)
	if len(available) > 0 {
		return wish{take: available[:min(needed, len(available))]}
	}
	return wish{steal: stealable(seen, counts, target, needed, f)}
}

// stealable picks leases of the worker that has most.
func stealable(seen map[string]Lease, counts map[string]int, target, needed int, f fairness) []Lease {
	victim, most := "", 0
	for _, l := range sorted(seen) {
		if n := counts[l.Owner]; l.Owner != "" && l.Owner != f.worker && n > most {
			victim, most = l.Owner, n
		}
	}
	if victim == "" || most < target {
		return nil
	}
	n := min(needed, most-target)
	if needed > 1 && n == 0 {
		n = 1
	}
	n = min(n, stealAtOnce)
	var theirs []Lease
	for _, l := range sorted(seen) {
		if l.Owner == victim {
			theirs = append(theirs, l)
		}
	}
	f.shuffle(theirs)
	return theirs[:min(n, len(theirs))]
}

// takeLeases is one round of the taker.
func (w *Worker) takeLeases(ctx context.Context) {
	scanned, err := w.table.list(ctx)
	if isThrottle(err) {
		scanned, err = w.table.list(ctx)
	}
	if err != nil {
		if isNullPointer(err) {
			w.cfg.OnEvent(Event{Kind: Failed})
		}
		return
	}
	now := w.cfg.Clock()
	w.seen = observe(w.seen, scanned, now)
	choice := choose(w.seen, fairness{
		worker: w.cfg.WorkerID, failover: w.cfg.Failover, most: w.cfg.MaxLeases, unownedMustExpire: w.cfg.UnownedMustExpire, now: now, shuffle: w.shuffle,
	})
	for kind, leases := range map[EventKind][]Lease{Took: choice.take, Stole: choice.steal} {
		for _, l := range leases {
			w.take(ctx, l, kind)
		}
	}
}

func (w *Worker) take(ctx context.Context, l Lease, kind EventKind) {
	for range takeTries {
		done, err := w.table.take(ctx, l, w.cfg.WorkerID)
		if isThrottle(err) {
			continue
		}
		if err != nil || !done {
			return
		}
		l.Owner, l.CheckpointOwner = w.cfg.WorkerID, ""
		l.Counter++
		l.seenAt = w.cfg.Clock()
		w.seen[l.Key] = l
		w.cfg.OnEvent(Event{Kind: kind, Key: l.Key, Counter: l.Counter})
		w.keep(l)
		return
	}
}
