package lease

import (
	"context"
	"fmt"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// release writes until the table has confirmed that the lease is not this run's any more. A worker that asks for the
// lease gets it at once (r4.7), else it is left to whoever wants it. rest gives what is still unwritten, adopted is
// told of what earlier tries turn out to have stored; both belong to the run.
func (m *Manager) release(ctx context.Context, own ownership, asker string, rest func() bracket, adopted func(Lease)) (l Lease, found bool, err error) {
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
		giving := asker != "" && own.next == "" && last.position.Sequence != checkpoint.ShardEnd
		u := releaseUpdate(own, last)
		if giving {
			if given == "" {
				given = acquisitionFor(asker)
			}
			u = giveUpdate(own, last, asker, given)
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
			v = judgeGive(own.worker, own.acquisition, asker, given, a.lease, a.found)
		}
		switch {
		case v == verdictWithdrawn:
			asker = ""
		case v != verdictAgain || own.of(a.lease) == own:
			// Released or given, or somebody else's, or gone: nothing is left to give up.
			return a.lease, a.found, nil
		}
		// A late renewal was done first, with the position it carried; or the owners have changed.
		own = own.of(a.lease)
		adopted(a.lease)
	}
}
