package attempt

import (
	"sync"
	"time"
)

// Clock tells the time since some fixed moment in the past. It must go on while the machine is suspended.
type Clock func() time.Duration

// Fence is the last moment up to which one run of a shard may hand records to Pulsar. The keeper of the lease pushes
// it ahead with every successful renewal; when it is not pushed in time it closes, for ever: a renewal that succeeds
// later belongs to a new run with a new fence. Otherwise a batch held back since before the gap could be let out
// behind records that another owner has sent in it.
type Fence struct {
	clock Clock

	mu struct {
		sync.Mutex
		deadline time.Duration
		closed   bool
	}
}

// NewFence returns a fence that is open until the deadline (a time of the clock).
func NewFence(clock Clock, deadline time.Duration) *Fence {
	f := &Fence{clock: clock}
	f.mu.deadline = deadline
	return f
}

// Open tells whether records may still be sent at this moment.
func (f *Fence) Open() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.openLocked()
}

// openLocked must be called with mu held. It reads the clock each time: the caller may have waited long for the lock.
func (f *Fence) openLocked() bool {
	if !f.mu.closed && f.clock() >= f.mu.deadline {
		f.mu.closed = true
	}
	return !f.mu.closed
}

// Extend pushes the deadline ahead, never back. It returns false when the fence has closed: the run is over.
func (f *Fence) Extend(deadline time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.openLocked() {
		return false
	}
	f.mu.deadline = max(f.mu.deadline, deadline)
	return true
}

// Deadline is the moment at which the fence closes if it is not extended before.
func (f *Fence) Deadline() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.deadline
}

// Close closes the fence for ever.
func (f *Fence) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.closed = true
}
