package lease

import (
	"context"
	"errors"
	"time"
)

// try sends a write once, within the timeout.
func (m *Manager) try(ctx context.Context, timeout time.Duration, u *update) (answer, error) {
	tctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a, err := m.cfg.Table.send(tctx, u)
	switch {
	case err == nil:
		if m.writes.ok(m.cfg.Clock()) {
			m.cfg.Log.Infof("Lease table %s has done every write for %s again", m.cfg.Table.Name(), m.writes.calm)
		}
	case ctx.Err() == nil: // not just because we are being stopped
		m.writes.fail(m.cfg.Clock(), err)
	}
	return a, err
}

// errGaveUp is returned when a take got no answer, which leaves open whether it was done.
var errGaveUp = errors.New("no answer in time")

// take tries to become the owner of a lease, all tries under one acquisition, so that a lost answer is recognised. It
// returns the new run, or why there is none.
func (m *Manager) take(ctx context.Context, seen Lease) (*Held, ending) {
	var previous string
	if seen.Owner == m.cfg.WorkerID && m.acquisitions.isOwn(seen) {
		previous = seen.Acquisition
	}
	acquisition := m.acquisitions.next()
	anchor := m.cfg.AnchorFor(seen)
	giveUp := m.cfg.Clock() + m.cfg.life()
	var s stamps
	for failures := 0; ; {
		sent := m.cfg.Clock()
		timeout := min(m.cfg.tryTimeout(), giveUp-sent)
		if timeout <= 0 || m.isClosing() || ctx.Err() != nil {
			seen.Owner, seen.Acquisition = m.cfg.WorkerID, acquisition
			seen.Counter++
			return nil, m.giveUp(ctx, seen, s.open)
		}
		u := takeUpdate(seen, m.cfg.WorkerID, acquisition, m.cfg.Stream, m.cfg.Failover, anchor)
		a, err := m.try(ctx, timeout, u)
		if err != nil {
			if !isRefused(err) {
				s.unanswered(sent)
			}
			failures++
			if failures == max(1, m.cfg.NumRetries) && ctx.Err() == nil && m.writes.warn() {
				m.cfg.Log.Warnf("Lease %s could not be taken in %d tries, trying on: %v", seen.Key, failures, err)
			}
			m.wait(ctx, m.cfg.pause(err, failures, giveUp-m.cfg.Clock()))
			continue
		}
		v := verdictDone
		if a.failed {
			v = judgeTake(m.cfg.WorkerID, acquisition, previous, a.lease, a.found)
		}
		switch {
		case v == verdictDone:
			return newHeld(m, a.lease, s.settle(sent)), ending{}
		case v == verdictAgain && a.lease.Counter != seen.Counter:
			seen = a.lease
		default:
			return nil, *lostTo(a)
		}
	}
}

// giveUp ends a take or an adoption without an answer. On the way out of the process a lease that is ours, or may have
// become so as it is given here, is released, or left to Close; otherwise the next scan shows it, and it is taken again.
func (m *Manager) giveUp(ctx context.Context, l Lease, perhapsOurs bool) ending {
	if perhapsOurs && (m.isClosing() || ctx.Err() != nil) {
		h := newHeld(m, l, 0)
		h.fence.Close()
		if !m.isClosing() {
			m.leave(h)
		} else if _, _, err := h.release(m.closeCtx, parting{}); err != nil {
			m.noteUnreleased(err)
		}
	}
	return ending{cause: errGaveUp}
}

// wait pauses; closing and the end of ctx cut it short.
func (m *Manager) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-m.closing:
	case <-ctx.Done():
	}
}
