package output

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// WriteBatch sends a batch and waits until Pulsar has confirmed it. The error, if it is a batch error, tells of each
// message whether it failed.
//
// It is sent in parts, one after the other, if it has more messages than one partition may hold in flight, and where a
// message must be settled before the next is sent: see writing.resolve.
func (o *output) WriteBatch(ctx context.Context, batch service.MessageBatch) error {
	err := o.writeBatch(ctx, batch)
	if s := o.session.Load(); s != nil && err != nil {
		o.renew(s, time.Now())
	}
	if err != nil && o.withhold(batch, err) {
		o.log.Debugf("%d messages are not sent: %v", len(batch), err)
		return nil
	}
	return err
}

// withhold lets a batch pass that has failed, so that nobody sends it again: because its records are all of attempts that
// are over, whatever the error is, or because it is only to wait. Batches that were merged with others on the way fail: the
// others' records must not be lost.
func (o *output) withhold(batch service.MessageBatch, err error) bool {
	var w writing
	for _, m := range batch {
		known := false
		if a := attempt.FromContext(m.Context()); a != nil {
			w.touch(a)
			known = true
		}
		if id := recordOf(m); id != nil {
			w.touch(id.Attempt())
			known = true
		}
		if !known {
			return false
		}
	}
	return attempt.Withhold(w.attempts...) || o.conf.deduplication && passing(err) && attempt.Postpone(err, w.attempts...)
}

func (o *output) writeBatch(ctx context.Context, batch service.MessageBatch) error {
	s := o.session.Load()
	if s == nil {
		return service.ErrNotConnected
	}
	if cause := s.down(time.Now()); cause != nil {
		o.holdBack(batch)
		return o.notConnected(cause)
	}
	if o.conf.deduplication {
		return o.writeExact(ctx, s, batch)
	}
	return o.writeParts(ctx, s, nil, batch)
}

// writeParts is the rest of WriteBatch. The lane is nil without de-duplication.
func (o *output) writeParts(ctx context.Context, s *session, l *lane, batch service.MessageBatch) error {
	var failures *service.BatchError
	fail := func(i int, err error) {
		if failures == nil {
			failures = service.NewBatchError(batch, err)
		}
		failures.Failed(i, err)
	}
	for begin := 0; begin < len(batch); {
		w := newWriting(o, s, l, batch, begin)
		sent, err := w.write(ctx)
		end := begin + w.kept
		if !sent {
			o.cargos.Put(w.flight.unload())
			o.holdBack(batch[begin:])
			if begin == 0 {
				return o.unsent(s, err)
			}
			// Records of the batch were sent: never ErrNotConnected from here on.
			for i := begin; i < len(batch); i++ {
				fail(i, err)
			}
			break
		}
		stop := w.halt != nil
		if w.flight.failed() {
			for i := range w.kept {
				if e := &w.flight.entries[i]; e.class == permanent || e.class == transient {
					fail(begin+i, e.err)
					stop = stop || e.class == transient || l != nil
				}
			}
			// Its cargo is not used again: the client may hold pointers into it after a failure.
		} else {
			o.cargos.Put(w.flight.unload())
		}
		if stop {
			o.holdBack(batch[end:])
			for i := end; i < len(batch); i++ {
				fail(i, errStopped)
			}
			if failures == nil {
				return w.halt
			}
			break
		}
		begin = end
	}
	if failures != nil {
		return failures
	}
	return nil
}

// newWriting begins the part of a batch from message begin on.
func newWriting(o *output, s *session, l *lane, batch service.MessageBatch, begin int) *writing {
	n := min(len(batch)-begin, o.conf.maxPending)
	if l != nil {
		n = min(n, exactPending)
	}
	return &writing{output: o, session: s, lane: l, batch: batch, begin: begin, kept: n, flight: newFlight(o.takeCargo(), n)}
}

func (o *output) takeCargo() *cargo {
	if c, ok := o.cargos.Get().(*cargo); ok {
		return c
	}
	return &cargo{}
}

// unsent is the error for a batch of which nothing was sent. If the output as a whole cannot work it is ErrNotConnected:
// the engine then shows the cause, which Connect finds, and sends the batch again. If only some partitions or topics
// can't be written to, the others must go on.
func (o *output) unsent(s *session, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errClosed) ||
		errors.Is(err, attempt.ErrStale) || errors.Is(err, attempt.ErrFenced) {
		return err
	}
	name, constant := o.conf.topic.static()
	if !constant {
		if s.down(time.Now()) != nil {
			return o.notConnected(err)
		}
		return err
	}
	t, useErr := s.topics.use(name, time.Now())
	if useErr != nil {
		return err
	}
	defer s.topics.done(t, time.Now())
	if !t.live() {
		return o.notConnected(err)
	}
	return err
}

// holdBack notes that records have reached the output but were not sent, so that a copy which was sent does not speak for
// them.
func (o *output) holdBack(batch service.MessageBatch) {
	o.holdBackBut(batch, func(*attempt.RecordID) bool { return false })
}

// holdBackBut is holdBack for a batch of which some records are known to be stored though they were not sent now.
func (o *output) holdBackBut(batch service.MessageBatch, stored func(*attempt.RecordID) bool) {
	w := &writing{output: o}
	var ids []*attempt.RecordID
	for _, m := range batch {
		if a := attempt.FromContext(m.Context()); a != nil {
			w.touch(a)
		}
		if id := recordOf(m); id != nil {
			w.touch(id.Attempt())
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return
	}
	end, err := attempt.Begin(o, w.attempts...)
	if err != nil {
		return // Nothing counts any more for an attempt that has ended, nor for a run that has.
	}
	if o.conf.deduplication {
		for _, a := range w.attempts {
			a.Exact()
		}
	}
	var there []*attempt.RecordID
	for _, id := range ids {
		id.Skipped()
		if stored(id) {
			there = append(there, id)
		}
	}
	end()
	attempt.ConfirmAll(there)
}

// write sends the part of the batch and waits for it. With sent = false nothing was given to the client, and err says why;
// otherwise the flight tells what became of each message.
func (w *writing) write(ctx context.Context) (sent bool, err error) {
	defer w.release()
	w.resolve()
	if err := w.route(func(t *topic) (*layout, error) { return t.known(ctx) }); err != nil {
		return false, err
	}
	if sent, err := w.dispatch(ctx); !sent {
		return false, err
	}
	if w.lane != nil {
		w.lane.settled(w.flight.entries[:w.kept])
		w.lane.inherit(ctx, w)
	}
	w.bury(ctx)
	w.mark()
	if w.lane != nil {
		w.lane.turns.note(w.flight.entries[:w.kept])
		w.halt = w.lane.prove(ctx, w)
	}
	return true, nil
}

// dispatch sends the messages that have a place and waits until all are settled. With sent = false nothing was given to the
// client, and err says why.
func (w *writing) dispatch(ctx context.Context) (sent bool, err error) {
	places := w.inUse()
	if err := w.admit(ctx, places); err != nil {
		return false, err
	}
	if w.lane != nil {
		if err := w.lane.judge(places); err != nil {
			w.flight.leave()
			return false, err
		}
	}
	// From here to the end of the loop nothing waits: the attempts are locked, so their acks do.
	end, err := attempt.Begin(w.output, w.attempts...)
	if err != nil {
		w.flight.leave()
		return false, err
	}
	early := slices.ContainsFunc(w.attempts, (*attempt.Attempt).AckedEarly)
	if w.lane != nil {
		for _, a := range w.attempts {
			a.Exact()
		}
	}
	w.send(places)
	end()
	if early {
		w.output.tellOfEarlyAcks()
	}
	for _, p := range places {
		p.generation.requestFlush()
	}
	select {
	case <-w.flight.done:
	case <-ctx.Done():
		w.flight.giveUp(context.Cause(ctx))
	}
	return true, nil
}

// tellOfEarlyAcks warns, once, of what lint finds in a config, where nobody asked lint or listened to it: a binary that has these
// packages alone has no rule over a whole config.
func (o *output) tellOfEarlyAcks() {
	o.early.Do(func() {
		o.log.Warnf("Records are acknowledged before Pulsar has them, so that a crash loses some, and they are out of order: there is a buffer between the input and this output; leave it out, the input holds up to maxBufferedBytes by itself [buffer-acks-early]")
	})
}

// admit waits until every partition has a living producer and room for all messages of the batch.
func (w *writing) admit(ctx context.Context, places []*place) error {
	for {
		for _, p := range places {
			g, err := p.partition.acquire(ctx)
			if err != nil {
				w.flight.leave()
				return err
			}
			p.generation = g
		}
		for _, p := range places[len(w.flight.held):] {
			if err := p.partition.limiter.acquire(ctx, p.messages, p.bytes); err != nil {
				w.flight.leave()
				return fmt.Errorf("waiting for room on %s: %w", p.partition.name, context.Cause(ctx))
			}
			w.flight.held = append(w.flight.held, p)
		}
		if !slices.ContainsFunc(places, func(p *place) bool { return p.generation.dead.Load() }) {
			return nil
		}
	}
}

// send gives the messages to the client, in order, and stops at the first failure that is not the record's own fault.
func (w *writing) send(places []*place) {
	f, now := w.flight, time.Now()
	entries := f.entries
	for i := range entries {
		if e := &entries[i]; e.place != nil {
			e.generation = e.place.generation
		}
	}
	for _, p := range places {
		p.generation.sending.RLock()
		defer p.generation.sending.RUnlock()
		_ = p.generation.board(f, now) // If it has died meanwhile, the loop sees that.
	}
	var stopped error
	for i := range entries {
		e := &entries[i]
		if w.kept == len(entries) && f.halted.Load() {
			w.kept = i
		}
		if i >= w.kept {
			f.settle(e, deferred, nil)
			continue
		}
		if e.place == nil { // refused before
			if e.id != nil {
				e.id.Skipped()
			}
			continue
		}
		if stopped == nil {
			if f.broken.Load() {
				stopped = errStopped
			} else if e.generation.dead.Load() {
				stopped = fmt.Errorf("not sent, the producer on %s has ended: %w", e.generation.name, e.generation.cause())
			}
		}
		if stopped != nil {
			if e.id != nil {
				e.id.Skipped()
			}
			f.settle(e, transient, stopped)
			continue
		}
		if e.id != nil {
			e.id.Entered(e.orderKey())
		}
		e.given = true
		e.generation.send(e)
	}
}

// mark tells the input what Pulsar confirmed and what it can never take.
func (w *writing) mark() {
	var confirmedIDs []*attempt.RecordID
	var sum [deferred + 1]int64
	entries := w.flight.entries[:w.kept]
	for i := range entries {
		e := &entries[i]
		sum[e.class]++
		if e.id == nil {
			continue
		}
		switch {
		case e.class == permanent:
			e.id.Refuse()
		case (e.class == confirmed || e.class == buried) && !e.unmarked:
			if confirmedIDs == nil {
				confirmedIDs = make([]*attempt.RecordID, 0, len(entries))
			}
			confirmedIDs = append(confirmedIDs, e.id)
		}
	}
	attempt.ConfirmAll(confirmedIDs)
	if sum[confirmed] > 0 {
		w.session.received(time.Now())
	}
	m := w.output.metrics
	m.confirmed.Incr(sum[confirmed])
	if sum[permanent] > 0 {
		m.refused.Incr(sum[permanent])
	}
	if sum[buried] > 0 {
		m.buried.Incr(sum[buried])
	}
	if sum[transient] > 0 {
		m.failed.Incr(sum[transient])
	}
}
