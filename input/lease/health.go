package lease

import (
	"sync"
	"time"
)

// health remembers since when something has been failing. Failures older than forget say nothing of the present, since
// there may be nothing left to try.
type health struct {
	forget time.Duration
	// calm is for how long nothing must have failed until it is told that all is well, and the next failure is news. One
	// success ends no trouble: a table that is throttled does some of what it is asked for, and would be told of each time.
	calm time.Duration

	mu struct {
		sync.Mutex
		err         error // nil = healthy
		since, last time.Duration
		warned      bool
	}
}

func newHealth(failover time.Duration) health {
	return health{forget: 2 * failover, calm: 6 * failover}
}

// ok notes a success. It returns true once per time of failing that was warned of, when that is over.
func (h *health) ok(now time.Duration) (recovered bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.err = nil
	recovered = h.mu.warned && now-h.mu.last >= h.calm
	if recovered {
		h.mu.warned = false
	}
	return recovered
}

func (h *health) fail(now time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.err == nil || now-h.mu.last > h.forget {
		h.mu.since = now
	}
	if now-h.mu.last > h.calm {
		h.mu.warned = false // of a time of failing after which nothing was tried
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
