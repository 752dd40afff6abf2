package lease

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// handle brings the manager's picture up to date with what actors and scans have told.
func (m *Manager) handle(events []event) {
	now := m.cfg.Clock()
	for _, e := range events {
		switch {
		case e.scan != nil:
			m.handleScan(e.scan, now)
		case e.acquired != nil:
			m.noLongerOnItsWay(e.key, e.way)
			m.busy[e.key] = true
			m.took = append(m.took, e.key)
			m.handler.Acquired(e.acquired)
			close(e.acquired.announced)
			m.count(func(s *Stats) {
				if e.way == wayTake {
					s.Taken++
				} else {
					s.Received++
				}
			})
		case e.asked != nil:
			delete(m.giving, e.key)
			m.pending[e.key] = *e.asked
		case e.settled:
			delete(m.giving, e.key)
			delete(m.pending, e.key)
		case e.ended != nil:
			m.noLongerOnItsWay(e.key, e.way)
			if e.way == wayAsk {
				m.handleEndOfAsk(e.key, e.ended, now)
				continue
			}
			delete(m.busy, e.key)
			delete(m.giving, e.key)
			delete(m.pending, e.key)
			m.handleEnd(e.key, e.ended, now)
			if e.ran {
				m.count(func(s *Stats) { s.ended(e.ended.cause) })
			}
			switch {
			case errors.Is(e.ended.cause, errGaveUp):
				// Whether it was given nobody knows.
			case e.ran && errors.Is(e.ended.cause, errGivenToKCL):
				m.passed.add(e.key, now+m.cfg.Failover/3)
			case e.ran && errors.Is(e.ended.cause, ErrGiven):
				m.given.add(e.key, now+m.cfg.Failover/3)
			case e.ran && errors.Is(e.ended.cause, ErrLost):
				m.lost.add(fmt.Sprintf("%s (%v)", e.key, e.ended.cause), now+m.cfg.Failover/3)
			case errors.Is(e.ended.cause, ErrFenced):
				m.fenced.add(e.key, now+m.cfg.Failover/3)
			}
		}
	}
	if keys := m.lost.due(now); keys != nil {
		m.cfg.Log.Warnf("Lost %d leases: %s", len(keys), shortList(keys))
	}
	if keys := m.fenced.due(now); keys != nil {
		m.cfg.Log.Warnf("Stopped %d shards, whose leases could not be renewed within %s; they go on when the lease table answers again: %s",
			len(keys), m.cfg.life(), shortList(keys))
	}
	if keys := m.given.due(now); keys != nil {
		m.cfg.Log.Infof("Gave %d leases to workers that asked for them: %s", len(keys), shortList(keys))
	}
	if keys := m.passed.due(now); keys != nil {
		m.cfg.Log.Infof("Passed %d leases to workers of KCL 3.x, whose leader had assigned them: %s", len(keys), shortList(keys))
	}
}

// noLongerOnItsWay forgets the actor that was to get the lease.
func (m *Manager) noLongerOnItsWay(key string, by way) {
	switch by {
	case wayTake:
		m.starting--
	case wayAsk:
		delete(m.asking, key)
		delete(m.askedAt, key)
	}
}

// handleEndOfAsk notes what became of an ask that brought no lease. Nobody's clock starts anew: an ask moves no counter,
// and the owner may be dead.
func (m *Manager) handleEndOfAsk(key string, e *ending, now time.Duration) {
	o, ok := m.known[key]
	switch {
	case e.known && e.found && ok && e.lease.Counter == o.lease.Counter && isSameWrite(e.lease, o.lease):
		o.lease = e.lease
	case e.known && e.found:
		o = observation{lease: e.lease, seenAt: now, askAfter: o.askAfter}
	case e.known:
		delete(m.known, key)
		return
	case !ok:
		return
	}
	if !e.known {
		m.askedAt[key] = now
	}
	switch {
	case errors.Is(e.cause, errDropped), e.known && !isOwned(o.lease):
		// What its owner has left is free for the taking at once.
	case errors.Is(e.cause, ErrLost):
		// Somebody else was quicker. The owner has refused nothing.
		o.tried = true
	default:
		o = o.refused(m.cfg.Failover, now)
	}
	m.known[key] = o
}

// handleEnd notes how a lease looks that has no actor any more.
func (m *Manager) handleEnd(key string, e *ending, now time.Duration) {
	switch {
	case errors.Is(e.cause, ErrFenced):
		// Unless somebody else was quicker it is still ours, so there is nobody to wait for: the next plan takes it.
		m.known[key] = observation{lease: e.lease, seenAt: now}
	case e.known && e.found:
		m.known[key] = corrected(e.lease, now)
	case e.known:
		delete(m.known, key)
	default:
		if o, ok := m.known[key]; ok {
			o.tried = true
			m.known[key] = o
		}
	}
}

func (m *Manager) handleScan(s *scanResult, now time.Duration) {
	m.scanning = false
	period := scanPeriod(m.cfg.Failover, m.workers)
	if isNoTable(s.err) {
		m.missing++
	} else {
		m.missing = 0
	}
	if s.err != nil {
		m.reads.fail(now, s.err)
		if m.reads.warn() {
			m.cfg.Log.Warnf("The lease table cannot be read, no leases are taken until it can: %v", s.err)
		}
		m.nextScan = now + m.cfg.jitter(m.cfg.Failover/6)
		return
	}
	if m.reads.ok(now) {
		m.cfg.Log.Infof("Lease table %s could be read each time for %s again", m.cfg.Table.Name(), m.reads.calm)
	}
	if m.isEmptied(s, now) {
		return
	}
	if m.stoleAt == 0 {
		m.stoleAt = now
	}
	if m.since == 0 {
		m.since = now
	}
	m.scanned = true
	m.nextScan = max(now, m.started+m.cfg.jitter(period))
	m.known = observe(m.known, s.snapshot.Leases, m.cfg.Failover, s.at)
	m.lookBeside(s)
	for _, l := range s.snapshot.Leases {
		if a := m.asking[l.Key]; a != nil && m.mayNotLook.Load() {
			a.tell(l)
		}
	}
	maps.DeleteFunc(m.askedAt, func(_ string, at time.Duration) bool { return now-at > 2*m.cfg.Failover })
	broken := map[string]bool{}
	for _, b := range s.snapshot.Broken {
		broken[b.Key] = true
		if !m.broken[b.Key] {
			m.cfg.Log.Warnf("A lease cannot be used, nobody reads its shard: %v", b.Err)
		}
	}
	m.broken = broken
	m.handler.Scanned(s.snapshot.Leases)
}

// isEmptied tells whether a scan shows nothing of leases that there were. They are not forgotten for that: a table that was
// deleted and made again between two scans is as good as deleted, and what is known of it is all that is left. Whoever is at
// refilling it has a failover time for that, by when no run can be left either.
func (m *Manager) isEmptied(s *scanResult, now time.Duration) bool {
	if len(s.snapshot.Leases)+len(s.snapshot.Broken) > 0 || !m.filled {
		m.filled = slices.ContainsFunc(s.snapshot.Leases, func(l Lease) bool { return !l.Ended() }) // the ended ones are cleaned up
		m.emptyAt = 0
		return false
	}
	if m.emptyAt == 0 {
		m.emptyAt = now
	}
	m.emptied = s.consistent && now-m.emptyAt >= m.cfg.Failover
	m.scanned = false // the next one must not be a stale one
	m.nextScan = now + m.cfg.jitter(m.cfg.Failover/6)
	return true
}

// gathered are the leases that one line of the log will name. What happens to a worker happens to all its leases, one
// after the other as their renewals are due, so the line waits for a renewal period.
type gathered struct {
	keys []string
	at   time.Duration // when to tell; meaningful if there are keys
}

func (g *gathered) add(key string, at time.Duration) {
	if len(g.keys) == 0 {
		g.at = at
	}
	g.keys = append(g.keys, key)
}

// due returns the leases to tell of now, and forgets them.
func (g *gathered) due(now time.Duration) (keys []string) {
	if len(g.keys) > 0 && now >= g.at {
		keys, g.keys = g.keys, nil
	}
	return keys
}

// shortList names a few of many.
func shortList(keys []string) string {
	const most = 5
	slices.Sort(keys)
	if len(keys) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(keys[:most], ", "), len(keys)-most)
	}
	return strings.Join(keys, ", ")
}
