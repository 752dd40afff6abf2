package output

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// randomFaults plays a shard under a storm. Faults that make the broker leave a message out and store later ones cost the
// order of what is affected, and together with a crash, when the lease has the new name and what the topic had is not behind
// the count yet, copies; nothing else does. crashAnywhere lets that happen.
//
// A crash may come, in any case, before the lease has the new name.
//
// With parts, something between input and output makes two batches of one, which come in any order, and sends a batch again
// that has failed; not of what an earlier run has sent, though, since names that change then cost copies.
func randomFaults(t *testing.T, seed uint64, leaveOut, crashAnywhere, parts bool) {
	if raceDetector {
		t.Skip("the Pulsar client races with itself here: unbatched, when a connection breaks")
	}
	r := rand.New(rand.NewPCG(seed, 7))
	b := exactBroker(t, 3)
	c := &counter{}
	const total = 3000
	start := func() *output {
		o := connected(t, b.URL(), exactly)
		o.session.Load().batchLimit = 120 // of batches that are as small as here
		return o
	}
	o := start()
	s := c.newRun()
	deadline := time.Now().Add(busy)
	pending := []int64(nil) // handed out and not confirmed
	next := int64(0)        // of the shard's records, the first that was not handed out in this run
	faults, crashes := 0, 0
	before := int64(-1) // the most that an earlier run may have sent
	recovering, floor := false, int64(0)
	for {
		if time.Now().After(deadline) {
			t.Fatalf("only %d of %d records in time", c.confirmed, total)
		}
		if len(pending) == 0 {
			n := min(int64(1+r.IntN(120)), total-next)
			if n == 0 {
				break
			}
			pending = from(next, n)
			next += n
		}
		switch k := r.IntN(12); k {
		case 0:
			b.DropConnections()
		case 1:
			b.PassSends("t", r.IntN(40))
			b.DropBeforeStore("t", 1)
		case 2:
			b.PassSends("t", r.IntN(40))
			b.DropAfterStore("t", 1+r.IntN(2))
		case 3:
			b.PassSends("t", r.IntN(40))
			b.FailSends("t", 1, pulsartest.PersistenceError, "the bookies are away")
		case 4:
			if leaveOut {
				b.PassSends("t", r.IntN(40))
				b.SwallowReceipts("t", 1)
			}
		case 5:
			if leaveOut {
				b.PassSends("t", r.IntN(40))
				b.CorruptSends("t", 1)
			}
		case 6:
			b.CloseProducers("t")
		case 7:
			if !leaveOut {
				break
			}
			// Quota: what is on the wire fails, what is queued in the client goes out when it reconnects.
			b.RefuseProducers("t", 1+r.IntN(3), pulsartest.ProducerBlockedQuotaExceededException, "Cannot create producer on topic with backlog quota exceeded")
			b.DropConnections()
			if r.IntN(2) == 0 {
				// The connection breaks while the topic is read back, too.
				b.PassDeliveries("t", r.IntN(100))
				b.DropDelivery("t", 1)
			}
		default:
			faults--
		}
		faults++
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(50+r.IntN(3000))*time.Millisecond)
		batch, a := s.batch(pending...)
		epoch := c.epoch
		inParts := parts && len(batch) > 1 && next > before && r.IntN(6) == 0
		last := r.IntN(8) == 0 && (crashAnywhere || !recovering) // the process is killed before it can write a new name
		c.mu.Lock()
		c.gone = last
		c.mu.Unlock()
		var err error
		if inParts {
			half := 1 + r.IntN(len(batch)-1)
			both := []service.MessageBatch{batch[:half], batch[half:]}
			r.Shuffle(2, func(i, j int) { both[i], both[j] = both[j], both[i] })
			err = errors.Join(writeOf(ctx, o, both[0], a), writeOf(ctx, o, both[1], a))
		} else {
			err = writeOf(ctx, o, batch, a)
		}
		if parts && err != nil && !errors.Is(err, service.ErrNotConnected) && r.IntN(2) == 0 {
			err = errors.Join(writeOf(ctx, o, batch, a), a.Withheld())
		}
		cancel()
		a.Done(err != nil)
		if err == nil {
			s.confirm(pending[len(pending)-1] + 1)
			pending = nil
		} else {
			if errors.Is(err, service.ErrNotConnected) {
				_ = o.Connect(t.Context())
			}
			replay, _ := a.Undelivered(func(int) string { return "" })
			var again []int64
			for _, i := range replay {
				again = append(again, pending[i])
			}
			if len(again) == 0 {
				s.confirm(pending[len(pending)-1] + 1)
			} else {
				s.confirm(again[0])
			}
			pending = again
		}
		if inDoubt(o, s) || c.epoch > epoch {
			recovering = true
		} else if recovering && pending == nil {
			// What was found in the topic is behind the count now.
			recovering, floor = false, next
		}
		if last || r.IntN(10) == 0 && (crashAnywhere || !recovering) {
			// The process is killed, or the lease lost, and the count is the last that was written.
			crashes++
			b.ClearFaults()
			if r.IntN(2) == 0 {
				s.run.End()
			} else {
				_ = o.Close(context.Background())
				o = start()
			}
			before = max(before, next)
			c.mu.Lock()
			c.gone = false
			c.confirmed = max(c.began, floor, c.confirmed-int64(r.IntN(200)))
			next = c.confirmed
			c.mu.Unlock()
			s, pending = c.newRun(), nil
		}
	}
	b.ClearFaults()
	t.Logf("%d faults, %d crashes, %d epochs, %+v", faults, crashes, c.epoch+1, b.Problems())
	checkExactly(t, b, "t", total, c.epoch > 0, crashAnywhere)
	if !leaveOut && !parts && c.epoch > 0 {
		t.Error("a doubt without a reason")
	}
}

func inDoubt(o *output, s *exactShard) bool {
	lanes := o.session.Load().lanes
	lanes.mu.Lock()
	l := lanes.mu.byRun[s.run]
	lanes.mu.Unlock()
	return l != nil && (len(l.doubts) > 0 || l.not != "")
}
