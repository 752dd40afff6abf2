package kinesistest

import (
	"context"
	"errors"
	"net/http"
	"time"
)

const (
	maxEventBytes = 1 << 20 // of data and partition keys in one event, unless it has a single record
	// lastWrite is how long a subscription that ends may still take for its last frame: a client that does not read must
	// not keep it alive.
	lastWrite = time.Second
	// recheck is how soon a subscription looks again when it waits for the server's clock, which may be any function.
	recheck = 5 * time.Millisecond
)

// subscription is one call of SubscribeToShard that is being answered, by one goroutine: that of its HTTP request.
type subscription struct {
	stream   *stream
	shard    *shard
	consumer *consumer
	seat     *seat
	since    time.Time

	ctx    context.Context // done when the subscription has to end; its cause is the exception to send, or errClean
	cancel context.CancelCauseFunc

	// Guarded by Server.mu.
	position        uint64 // index of the first record to send
	events, records int    // sent
	bytes           bucket // what may be sent, when limits hold
}

var errClean = errors.New("the subscription's time is over")

// end lets the subscription end: with an exception, or cleanly for nil. The first call counts.
func (sub *subscription) end(why *apiError) {
	if why == nil {
		sub.cancel(errClean)
	} else {
		sub.cancel(why)
	}
}

// leave gives the seat up when nobody else has it yet.
func (s *Server) leave(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, sub)
	if sub.seat.current == sub {
		sub.seat.current = nil
	}
	sub.cancel(errClean)
}

// event is what a subscription sends at one moment.
type event struct {
	reading
	continuation string // "" at the shard's end
	children     []childShard
}

// next is the next event, or nil and what to wait for: a change of the shard, or for the server's clock if later.
func (s *Server) next(sub *subscription) (ev *event, changed <-chan struct{}, later bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, sh := s.now(), sub.shard
	sh.trim(sub.stream, now)
	sub.bytes.refill(now, readBytesPerSecond)
	throttled := s.readLimits && sub.bytes.level <= 0
	rd := reading{next: sub.position}
	if !throttled {
		rd = sh.readFrom(sub.position, maxReadRecords, maxEventBytes, now, s.visibility)
	}
	if rd.len() == 0 && !rd.ended {
		return nil, sh.changing(), throttled || sh.replay == nil && sub.position <= sh.last.index
	}
	sub.bytes.level -= float64(rd.size)
	sub.position = rd.next
	return s.event(sub, rd, now), nil, false
}

// heartbeat is an empty event.
func (s *Server) heartbeat(sub *subscription) *event {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	rd := sub.shard.readFrom(sub.position, maxReadRecords, maxEventBytes, now, s.visibility)
	return s.event(sub, reading{next: sub.position, behind: rd.behind}, now)
}

// event fills in what readers go on from. Called with mu held.
func (s *Server) event(sub *subscription, rd reading, now time.Time) *event {
	ev := &event{reading: rd}
	if s.lag != nil {
		ev.behind = s.lag(sub.stream.name, sub.shard.id, rd.behind)
	}
	switch {
	case rd.ended:
		ev.children = sub.shard.childShards()
	case len(rd.records) > 0:
		ev.continuation = rd.records[len(rd.records)-1].SequenceNumber
	case rd.count > 0:
		ev.continuation = sub.shard.sequence(rd.next-1, sub.shard.created).String()
	default:
		// Progress without records: a number after the last record before the position and before the one that comes next,
		// and no record's own.
		at := now
		if at.Before(sub.shard.last.Arrival) {
			at = sub.shard.last.Arrival
		}
		ev.continuation = sub.shard.sequence(max(sub.position, 1)-1, at).String()
	}
	sub.events++
	sub.records += rd.len()
	return ev
}

// push sends a subscription's events until it ends.
func (s *Server) push(w http.ResponseWriter, r *http.Request, in *Injected, sub *subscription) {
	defer s.leave(sub)
	out := &eventWriter{w: w, r: r, control: http.NewResponseController(w), in: in, events: -1}
	header := w.Header()
	header.Set("Content-Type", eventStreamType)
	header.Set("Date", s.now().UTC().Format(http.TimeFormat))
	header.Set("X-Amzn-Requestid", requestID())

	if life := s.subscriptionTimes.Life; life > 0 {
		timer := time.AfterFunc(life, func() { sub.end(nil) })
		defer timer.Stop()
	}
	unblocked := make(chan struct{})
	stop := context.AfterFunc(sub.ctx, func() {
		defer close(unblocked)
		out.control.SetWriteDeadline(time.Now().Add(lastWrite))
	})
	defer func() {
		if !stop() {
			<-unblocked
			out.control.SetWriteDeadline(time.Time{}) // the connection may serve other calls
		}
	}()

	if out.start() != nil || out.write(initialResponse) != nil {
		return
	}
	beat := s.subscriptionTimes.Heartbeat
	heartbeat := time.NewTimer(max(beat, 0))
	defer heartbeat.Stop()
	for {
		if r.Context().Err() != nil {
			panic(http.ErrAbortHandler)
		}
		if sub.ctx.Err() != nil {
			out.finish(sub)
			return
		}
		ev, changed, later := s.next(sub)
		if ev == nil {
			var beats, again <-chan time.Time
			if beat > 0 {
				beats = heartbeat.C
			}
			if later {
				again = time.After(recheck)
			}
			select {
			case <-changed:
				continue
			case <-again:
				continue
			case <-sub.ctx.Done():
				continue
			case <-r.Context().Done():
				continue
			case <-beats:
				ev = s.heartbeat(sub)
			}
		}
		body := encodeEvent(ev)
		err := out.write(*body)
		buffers.Put(body)
		if err != nil || ev.ended {
			return
		}
		heartbeat.Reset(max(beat, 0))
	}
}
