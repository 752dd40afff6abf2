package lease

import (
	"context"
	"errors"
	"time"
)

const (
	// lookPeriod is the time between two looks at a lease that was asked for: it bounds the gap between the end of one
	// run and the beginning of the next.
	lookPeriod = 200 * time.Millisecond
	// lookSpacing bounds the looks of one worker, at all leases it asks for, to 200 a second.
	lookSpacing = 5 * time.Millisecond
	// askGrace is what an ask is given beyond the times that the rules name, for the writes themselves.
	askGrace = 2 * time.Second
)

// asking is an ask under way, as the manager's goroutine knows it.
type asking struct {
	since  time.Duration
	cancel context.CancelFunc
	// news brings the lease as scans show it, the newest only: it takes the place of looks that are not permitted.
	news chan Lease
}

// tell brings news to an ask.
func (a *asking) tell(l Lease) {
	select {
	case <-a.news:
	default:
	}
	a.news <- l // only the manager's goroutine sends, so there is room
}

// ask asks the owner of a lease for it, and waits until it comes (r4.1, r4.5). It returns the new run, or why there is
// none. When askCtx ends the ask is dropped as it stands: the lease has expired, and whoever takes it removes the ask.
func (m *Manager) ask(ctx, askCtx context.Context, news <-chan Lease, seen Lease) (*Held, ending) {
	asked, e := m.sendAsk(askCtx, seen)
	if e != nil {
		return nil, *e
	}
	// He sees it when he renews, and has as long as he may to drain.
	patience := max(m.cfg.Failover, asked.Failover)
	giveUp := m.cfg.Clock() + patience/3 + patience + askGrace
	for failures := 0; m.cfg.Clock() < giveUp; {
		pause := max(lookPeriod, time.Duration(m.asks.Load())*lookSpacing)
		if failures > 0 {
			pause = max(pause, m.cfg.pause(nil, failures, giveUp-m.cfg.Clock()))
		}
		l, found, ok := m.look(askCtx, news, asked, min(pause, giveUp-m.cfg.Clock()), &failures)
		switch {
		case m.isClosing():
			return m.withdraw(ctx, asked)
		case askCtx.Err() != nil:
			return nil, ending{cause: errDropped}
		}
		if !ok {
			continue
		}
		switch judgeStanding(m.cfg.WorkerID, asked, l, found) {
		case standingWaits:
		case standingGiven:
			return m.adoptGiven(ctx, l)
		case standingRefused:
			return nil, ending{cause: errRefused, known: true, found: found, lease: l}
		case standingOver:
			return nil, ending{cause: ErrLost, known: true, found: found, lease: l}
		}
	}
	return m.withdraw(ctx, asked)
}

// sendAsk writes the ask. It returns the lease as it was asked for, or why it could not be. An ask without an answer may
// have been done; whether it was is seen at the lease.
func (m *Manager) sendAsk(ctx context.Context, seen Lease) (Lease, *ending) {
	owner := seen.Owner
	again := true
	for failures := 0; ; {
		if m.isClosing() || ctx.Err() != nil {
			return Lease{}, &ending{cause: errDropped}
		}
		a, err := m.try(ctx, m.cfg.tryTimeout(), askUpdate(seen, m.cfg.WorkerID))
		switch {
		case err != nil && !isRefused(err):
			return seen, nil
		case err != nil:
			failures++
			if failures == 3 {
				return Lease{}, &ending{cause: errGaveUp}
			}
			m.wait(ctx, m.cfg.pause(err, failures, m.cfg.Failover/3))
			continue
		case !a.failed:
			return a.lease, nil
		}
		switch v := judgeAsk(m.cfg.WorkerID, a.lease, a.found); {
		case v == verdictDone && a.lease.Owner == owner:
			a.lease.Counter = a.lease.AskAt
			return a.lease, nil
		case v == verdictAgain && a.lease.Owner == owner && again:
			// It was renewed since the scan. Once is enough: between an answer and the next request there is hardly time
			// for another renewal.
			seen, again = a.lease, false
		default:
			return Lease{}, &ending{cause: ErrLost, known: true, found: a.found, lease: a.lease}
		}
	}
}

// look waits and reads a lease that was asked for. ok is false when that brought nothing.
func (m *Manager) look(ctx context.Context, news <-chan Lease, asked Lease, pause time.Duration, failures *int) (l Lease, found, ok bool) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-m.closing:
		return Lease{}, false, false
	case <-ctx.Done():
		return Lease{}, false, false
	case l := <-news:
		return l, true, true
	}
	if m.mayNotLook.Load() {
		return Lease{}, false, false
	}
	tctx, cancel := context.WithTimeout(ctx, m.cfg.tryTimeout())
	defer cancel()
	l, found, err := m.cfg.Table.Get(tctx, asked.Key)
	switch {
	case isAccessDenied(err):
		if !m.mayNotLook.Swap(true) {
			m.cfg.Log.Warnf("Not permitted to look at single leases (dynamodb:GetItem); leases that other workers hand over are noticed by scans only, up to %s later: %v",
				m.cfg.Failover/3, err)
		}
	case err != nil:
		*failures++
	default:
		*failures = 0
	}
	return l, found, err == nil
}

// withdraw takes an ask back. The lease may have been given just before; then it is ours and has to be adopted, or, when
// the worker is about to end, released.
func (m *Manager) withdraw(ctx context.Context, asked Lease) (*Held, ending) {
	if m.isClosing() {
		ctx = m.closeCtx
	}
	until := m.cfg.Clock() + m.cfg.Failover/3
	for failures := 0; ctx.Err() == nil; {
		a, err := m.try(ctx, m.cfg.tryTimeout(), withdrawUpdate(asked, m.cfg.WorkerID))
		switch {
		case err == nil && judgeStanding(m.cfg.WorkerID, asked, a.lease, a.found) == standingGiven:
			return m.adoptGiven(ctx, a.lease)
		case err == nil:
			return nil, ending{cause: errRefused, known: true, found: a.found, lease: a.lease}
		}
		failures++
		if m.cfg.Clock() >= until || isNoTable(err) {
			break
		}
		_ = sleep(ctx, m.cfg.pause(err, failures, until-m.cfg.Clock()))
	}
	// If it is given after all, the next scan shows it.
	return nil, ending{cause: errGaveUp}
}

// adoptGiven makes a run of a lease that was given to us (r4.5): it begins when the first renewal of ours has succeeded,
// from the position that the item has then.
func (m *Manager) adoptGiven(ctx context.Context, given Lease) (*Held, ending) {
	own := ownership{key: given.Key, worker: m.cfg.WorkerID, acquisition: given.Acquisition, counter: given.Counter}
	giveUp := m.cfg.Clock() + m.cfg.life()
	for failures := 0; ; {
		sent := m.cfg.Clock()
		timeout := min(m.cfg.tryTimeout(), giveUp-sent)
		if timeout <= 0 || m.isClosing() || ctx.Err() != nil {
			given.Counter = own.counter
			return nil, m.giveUp(ctx, given, true)
		}
		a, err := m.try(ctx, timeout, adoptUpdate(own, m.cfg.Failover))
		if err != nil {
			failures++
			if failures == max(1, m.cfg.NumRetries) && ctx.Err() == nil && m.writes.warn() {
				m.cfg.Log.Warnf("Lease %s was given to us and could not be renewed in %d tries, trying on: %v", given.Key, failures, err)
			}
			m.wait(ctx, m.cfg.pause(err, failures, giveUp-m.cfg.Clock()))
			continue
		}
		if a.failed && (a.lease.CheckpointOwner != "" || judgeKeep(own.worker, own.acquisition, a.lease, a.found) == verdictLost) {
			return nil, *lostTo(a)
		}
		if a.failed {
			// It was an old picture of the lease, or an earlier try was done; perhaps one of an adoption that was given up, which
			// had the same acquisition. When that was sent nobody knows any more, so only an answered write begins the run.
			own.counter = a.lease.Counter
			continue
		}
		m.acquisitions.adopt(a.lease)
		return newHeld(m, a.lease, sent), ending{}
	}
}

var (
	// errRefused is returned when the owner of a lease keeps it although it was asked for, or does not answer in time.
	errRefused = errors.New("the owner keeps the lease")
	// errDropped is returned when an ask was dropped before it was answered.
	errDropped = errors.New("the ask was dropped")
)
