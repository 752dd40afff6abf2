package pulsartest

import (
	"net"
	"sync"
	"time"
)

// flushLimit bounds how long a connection that is being dropped may take for its last answers.
const flushLimit = time.Second

// outbox is the way out of one connection: answers are queued by whoever holds the broker's lock and written by one
// goroutine, so that a client which does not read stops nobody else.
type outbox struct {
	delay time.Duration // of receipts
	wake  chan struct{}
	mu    struct {
		sync.Mutex
		ready   []byte
		delayed []delayedFrame
		closing bool
	}
}

type delayedFrame struct {
	due   time.Time
	frame []byte
}

func newOutbox(delay time.Duration) *outbox {
	return &outbox{delay: delay, wake: make(chan struct{}, 1)}
}

// send queues an answer that overtakes delayed receipts.
func (o *outbox) send(frame []byte) {
	o.mu.Lock()
	o.mu.ready = append(o.mu.ready, frame...)
	o.mu.Unlock()
	o.signal()
}

// sendOrdered queues a receipt, or an answer that must not overtake one.
func (o *outbox) sendOrdered(frame []byte) {
	if o.delay == 0 {
		o.send(frame)
		return
	}
	o.mu.Lock()
	o.mu.delayed = append(o.mu.delayed, delayedFrame{time.Now().Add(o.delay), frame})
	o.mu.Unlock()
	o.signal()
}

// close makes the writer write what is ready, give up what is delayed, and end.
func (o *outbox) close() {
	o.mu.Lock()
	o.mu.closing = true
	o.mu.Unlock()
	o.signal()
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// due takes what may be written now. wait is how long until the next delayed answer, 0 if there is none.
func (o *outbox) due(now time.Time, buf []byte) (out []byte, wait time.Duration, closing bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	out, o.mu.ready = o.mu.ready, buf[:0]
	if o.mu.closing {
		return out, 0, true
	}
	n := 0
	for n < len(o.mu.delayed) && !o.mu.delayed[n].due.After(now) {
		out = append(out, o.mu.delayed[n].frame...)
		n++
	}
	o.mu.delayed = o.mu.delayed[n:]
	if len(o.mu.delayed) > 0 {
		wait = o.mu.delayed[0].due.Sub(now)
	}
	return out, wait, false
}

// run writes until the outbox is closed or the connection fails, then closes the connection, which ends its reader.
func (o *outbox) run(conn net.Conn) {
	defer conn.Close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var buf []byte
	for {
		out, wait, closing := o.due(time.Now(), buf)
		if len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				return
			}
		}
		if closing {
			return
		}
		buf = out
		if wait == 0 {
			wait = time.Hour
		}
		timer.Reset(wait)
		select {
		case <-o.wake:
		case <-timer.C:
		}
	}
}
