package lease

import (
	"sync"
	"time"
)

// health remembers since when something has been failing. Failures older than forget say nothing of the present, since
// there may be nothing left to try.
type health struct {
	forget time.Duration

	mu struct {
		sync.Mutex
		err         error // nil = healthy
		since, last time.Duration
		warned      bool
	}
}

func (h *health) ok() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.err, h.mu.warned = nil, false
}

func (h *health) fail(now time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.err == nil || now-h.mu.last > h.forget {
		h.mu.since = now
	}
	h.mu.err, h.mu.last = err, now
}

// warn returns true once per time of failing, so that hundreds of leases do not all tell the same.
func (h *health) warn() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := !h.mu.warned
	h.mu.warned = true
	return first
}

// failing returns the last error if nothing has succeeded for at least the given time.
func (h *health) failing(now, atLeast time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.err == nil || now-h.mu.since < atLeast || now-h.mu.last > h.forget {
		return nil
	}
	return h.mu.err
}
