package lease

import (
	"errors"
	"fmt"
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
			m.starting--
			m.took = append(m.took, e.key)
			m.handler.Acquired(e.acquired)
		case e.ended != nil:
			delete(m.busy, e.key)
			if e.notTaken {
				m.starting--
			}
			m.handleEnd(e.key, e.ended, now)
			switch {
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
	if m.starting == 0 && len(m.took) > 0 {
		m.cfg.Log.Infof("Took %d leases: %s", len(m.took), shortList(m.took))
		m.took = nil
	}
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
	if s.err != nil {
		m.reads.fail(now, s.err)
		if m.reads.warn() {
			m.cfg.Log.Warnf("The lease table cannot be read, no leases are taken until it can: %v", s.err)
		}
		m.nextScan = now + m.cfg.jitter(m.cfg.Failover/6)
		return
	}
	m.reads.ok()
	m.scanned = true
	m.nextScan = max(now, m.started+m.cfg.jitter(period))
	m.known = observe(m.known, s.snapshot.Leases, s.at)
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
