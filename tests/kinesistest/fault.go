package kinesistest

import (
	"slices"
	"sync"
	"time"
)

// Kind is what a fault does to a call.
type Kind int

const (
	// Fail answers with the exception Code (ProvisionedThroughputExceeded when empty) instead of doing what was asked.
	Fail Kind = iota
	// Slow waits for Delay, of real time, before doing what was asked.
	Slow
	// Hang reads the request and never answers. It ends with the client's connection, the fault's Remove, or the server.
	Hang
	// Cut does what was asked and closes the connection after Bytes bytes of the answer's body, at 0 before its header:
	// an answer that was lost. Inside a subscription it happens when Events and then Bytes are sent.
	Cut
	// Trickle sends the answer's body in pieces of Bytes bytes (1 when 0), each Delay (real time) after the one before;
	// a subscription's from when Events are sent.
	Trickle
	// Expire makes all iterators handed out so far expired ones, that of this call included.
	Expire
	// FailLater sends the exception Code inside a subscription when Events are sent, and ends it.
	FailLater
	// Stall sends no more of a subscription when Events and then Bytes are sent, and leaves the connection open. It ends
	// as Hang does; when by Remove, the connection is closed.
	Stall
	// End ends a subscription's answer when Events and then Bytes are sent, as if it were whole.
	End
)

// Fault is something that goes wrong with calls, on purpose.
type Fault struct {
	Operation string // such as "GetRecords"; "" for every one
	Stream    string // its name; "" for every one
	Shard     string // its ID; "" for every one, and for calls that concern no shard
	// When is any further test; it must not call the server.
	When  func(Call) bool
	Skip  int // how many matching calls are let through first
	Count int // how many calls it then hits; 0 means one, a negative number means all

	Kind    Kind
	Code    string // for Fail: one of the exceptions' names
	Message string // for Fail
	Status  int    // for Fail: the HTTP status; 0 means the exception's own
	Delay   time.Duration
	Bytes   int

	// Events are how many events a subscription sends before Cut, Trickle, FailLater, Stall or End, empty ones included; −1 to
	// count Bytes from the first one of the body, which starts with the initial response.
	Events int
	// Connection lets Cut close, and Stall mute, the whole connection: over HTTP/2 all its calls end or stall, and pings are
	// not answered any more.
	Connection bool
}

// Injected is a fault at work.
type Injected struct {
	s     *Server
	fault Fault
	skip  int           // guarded by s.mu
	left  int           // calls still to be hit; negative for all. Guarded by s.mu
	hits  int           // guarded by s.mu
	hit   chan struct{} // closed at the first hit
	gone  chan struct{} // closed by Remove
	once  sync.Once
}

// Inject lets a fault happen from the next call on. A call meets the first fault that matches it, oldest first, and no other.
func (s *Server) Inject(f Fault) *Injected {
	in := &Injected{s: s, fault: f, skip: f.Skip, left: f.Count, hit: make(chan struct{}), gone: make(chan struct{})}
	if in.left == 0 {
		in.left = 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, in)
	return in
}

// Hit is closed when the fault has hit its first call.
func (in *Injected) Hit() <-chan struct{} { return in.hit }

// Hits is how many calls the fault has hit.
func (in *Injected) Hits() int {
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	return in.hits
}

// Remove ends the fault. Calls that hang in it are then answered as if nothing had been.
func (in *Injected) Remove() {
	in.s.mu.Lock()
	in.s.faults = slices.DeleteFunc(in.s.faults, func(other *Injected) bool { return other == in })
	in.s.mu.Unlock()
	in.once.Do(func() { close(in.gone) })
}

// ClearFaults removes all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	faults := slices.Clone(s.faults)
	s.mu.Unlock()
	for _, in := range faults {
		in.Remove()
	}
}

// Call names calls that Counts counts together. Stream and Shard are "" where a call concerns none, or one the server can't tell.
type Call struct{ Operation, Stream, Shard string }

// Counts is how often each call has come, those that failed included.
func (s *Server) Counts() map[Call]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := make(map[Call]int, len(s.counts))
	for c, n := range s.counts {
		counts[c] = n
	}
	return counts
}

// Count is how often an operation was called, over all streams and shards.
func (s *Server) Count(operation string) int {
	total := 0
	for c, n := range s.Counts() {
		if c.Operation == operation {
			total += n
		}
	}
	return total
}

// meet counts a call and finds the fault that hits it, or nil.
func (s *Server) meet(c Call) *Injected {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[c]++
	for i, in := range s.faults {
		f := &in.fault
		if c.Operation != "SubscribeToShard" && (f.Kind == FailLater || f.Kind == Stall || f.Kind == End) {
			continue
		}
		if f.Operation != "" && f.Operation != c.Operation || f.Stream != "" && f.Stream != c.Stream || f.Shard != "" && f.Shard != c.Shard || f.When != nil && !f.When(c) {
			continue
		}
		if in.skip > 0 {
			in.skip--
			continue
		}
		in.hits++
		if in.hits == 1 {
			close(in.hit)
		}
		if in.left--; in.left == 0 {
			// A new slice: Remove and ClearFaults may be looking at the old one.
			s.faults = slices.Concat(s.faults[:i], s.faults[i+1:])
		}
		if f.Kind == Expire {
			s.epoch++
		}
		return in
	}
	return nil
}
