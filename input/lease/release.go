package lease

import (
	"context"
	"fmt"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// parting is what the last write of a run does with the lease.
type parting struct {
	// asker gets it (r4.7), unless the shard has ended; "" = it is left to whoever wants it.
	asker string
	// keep leaves it with this worker, though nothing is read any more.
	keep bool
}

// release writes what is left of a run, until the table has confirmed it or the lease is not the run's any more. rest
// gives what is still unwritten, adopted is told of what earlier tries turn out to have stored; both belong to the run.
func (m *Manager) release(ctx context.Context, own ownership, p parting, rest func() bracket, adopted func(Lease)) (l Lease, found bool, err error) {
	giveUp := m.cfg.Clock() + m.cfg.Failover // by then it is free without us
	var given string
	for failures := 0; ; {
		remaining := giveUp - m.cfg.Clock()
		if err := ctx.Err(); err != nil {
			return Lease{}, false, fmt.Errorf("releasing lease %s: %w", own.key, context.Cause(ctx))
		}
		if remaining <= 0 {
			return Lease{}, false, fmt.Errorf("releasing lease %s: %w", own.key, err)
		}
		last := rest()
		// Nobody needs a shard that has ended, and KCL 3.x has decided already who is next.
		giving := p.asker != "" && own.next == "" && last.position.Sequence != checkpoint.ShardEnd
		u := releaseUpdate(own, last)
		switch {
		case giving:
			if given == "" {
				given = acquisitionFor(p.asker)
			}
			u = giveUpdate(own, last, p.asker, given)
		case p.keep && own.next == "":
			u = keepUpdate(own, last, true)
		}
		var a answer
		a, err = m.try(ctx, min(m.cfg.tryTimeout(), remaining), u)
		switch {
		case isNoTable(err):
			return Lease{}, false, nil // nothing is left to give up
		case err != nil:
			failures++
			if serr := sleep(ctx, m.cfg.pause(err, failures, remaining)); serr != nil {
				return Lease{}, false, fmt.Errorf("releasing lease %s: %w; last try: %w", own.key, serr, err)
			}
			continue
		case !a.failed:
			return a.lease, a.found, nil
		}
		v := judgeRelease(own.worker, own.acquisition, a.lease, a.found)
		if giving {
			v = judgeGive(own.worker, own.acquisition, p.asker, given, a.lease, a.found)
		}
		switch {
		case v == verdictWithdrawn:
			p.asker = ""
		case v != verdictAgain || own.of(a.lease) == own:
			// Released or given, or somebody else's, or gone: nothing is left to give up.
			return a.lease, a.found, nil
		}
		// A late renewal was done first, with the position it carried; or the owners have changed.
		own = own.of(a.lease)
		adopted(a.lease)
	}
}

// retain keeps a lease alive whose shard was read to its end, as long as a KCL 2.x worker lives beside us (r6.5). Such a
// worker takes every lease that nobody keeps and counts it as a part of its share, so ours to read would become more than
// ours to hold. It ends when the lease is deleted, or lost, or nobody is there any more to mind its release.
func (h *Held) retain(ctx context.Context) ending {
	m := h.m
	for failures := 0; ; {
		pause := m.cfg.jitter(m.cfg.Failover / 3)
		if failures > 0 {
			pause = m.cfg.pause(nil, failures, m.cfg.Failover)
		}
		m.wait(ctx, pause)
		switch {
		case m.isClosing():
			return m.part(ctx, m.closeCtx, h, parting{}, ending{cause: ErrReleased})
		case !m.kcl2.Load() || h.own.next != "":
			return m.part(ctx, ctx, h, parting{}, ending{cause: ErrReleased})
		case ctx.Err() != nil:
			m.leave(h)
			return ending{cause: ErrStopped}
		}
		a, err := m.try(ctx, m.cfg.tryTimeout(), keepUpdate(h.own, bracket{}, true))
		switch {
		case err != nil:
			failures++
		case a.failed && judgeKeep(h.own.worker, h.own.acquisition, a.lease, a.found) == verdictLost:
			// Deleted, or a KCL worker wants it. That costs nothing: the shard is read.
			return ending{cause: ErrReleased, known: true, found: a.found, lease: a.lease}
		default:
			failures = 0
			h.adopt(a.lease)
		}
	}
}
