package retrieval

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// Budget bounds what all shards of an input hold: bytes from the read until Pulsar has confirmed the record, and
// records from the read until they are handed out.
//
// A part of both is kept for shards that hold nothing. What stuck or slow shards have read ahead would otherwise fill the
// whole of it, and the others, whose records go out as soon as they are read, would be left with reads of one record.
//
// Waiters are served in the order they came, so no shard starves; only those that wait for more than what is left beside
// the kept part let others pass.
type Budget struct {
	capacityBytes   int64
	capacityRecords int64

	mu struct {
		sync.Mutex
		bytes   int64 // free; negative while small reads or wrong estimates have overdrawn it
		records int64 // free, likewise
		waiters list.List
	}
}

// reserve is the share of a budget that is kept for shards that hold nothing: a 1/reserve-th.
const reserve = 4

// Request is what a reader asks for before it reads.
type Request struct {
	// Records is the most the reader would take; it gets less when less is free.
	Records int
	// MeanBytes is the expected charge of one record.
	MeanBytes int64
}

// Grant is what a reader may read. It is to be settled once the read is done.
type Grant struct {
	// Records is the limit for the read, at least 1.
	Records int

	bytes int64
}

type waiter struct {
	request      Request
	holdsNothing bool
	granted      chan Grant
}

// smallReadAfter is how long a shard that holds nothing waits for its turn before it makes a read of one record beside
// the budget. Without the exception, shards that are stuck with the whole budget would stop all the others; without
// the wait, every short squeeze would end in reads of one record.
const smallReadAfter = 200 * time.Millisecond

// NewBudget returns a budget of so many bytes, and of so many queued records.
func NewBudget(bytes int64, records int) *Budget {
	b := &Budget{capacityBytes: bytes, capacityRecords: int64(records)}
	b.mu.bytes, b.mu.records = bytes, int64(records)
	return b
}

// Acquire reserves room for one read and returns how many records it may bring. While the shard holds nothing it is never
// refused for long. That may become true while it waits: its batch is delivered, and others hold the budget.
func (b *Budget) Acquire(ctx context.Context, r Request, holdsNothing func() bool) (Grant, error) {
	w := &waiter{request: r, holdsNothing: holdsNothing(), granted: make(chan Grant, 1)}
	b.mu.Lock()
	element := b.mu.waiters.PushBack(w)
	b.serveLocked()
	b.mu.Unlock()
	select {
	case g := <-w.granted:
		return g, nil
	default:
	}
	ticker := time.NewTicker(smallReadAfter)
	defer ticker.Stop()
	for {
		select {
		case g := <-w.granted:
			return g, nil
		case <-ctx.Done():
		case <-ticker.C:
		}
		nothing := holdsNothing()
		b.mu.Lock()
		g, done, err := b.reconsiderLocked(ctx, w, element, nothing)
		b.mu.Unlock()
		if done {
			return g, err
		}
	}
}

// reconsiderLocked looks again at a waiter whose patience or context has ended. It must be called with mu held.
func (b *Budget) reconsiderLocked(ctx context.Context, w *waiter, element *list.Element, holdsNothing bool) (g Grant, done bool, err error) {
	select {
	case g := <-w.granted: // it came meanwhile
		if ctx.Err() != nil {
			b.releaseLocked(g.bytes, int64(g.Records))
			return Grant{}, true, ctx.Err()
		}
		return g, true, nil
	default:
	}
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case holdsNothing && w.holdsNothing:
		g = Grant{Records: 1, bytes: w.request.MeanBytes}
		b.mu.bytes -= g.bytes
		b.mu.records--
	default:
		w.holdsNothing = holdsNothing
		b.serveLocked()
		return Grant{}, false, nil
	}
	b.mu.waiters.Remove(element)
	b.serveLocked() // who stood behind it may ask for less
	return g, true, err
}

// grantLocked must be called with mu held. A read is granted when a good part of what is asked for is free: handing
// out every single free slot would turn a squeeze into reads of one record, of which Kinesis allows five a second.
func (b *Budget) grantLocked(r Request, holdsNothing bool) (Grant, bool) {
	want := min(int64(r.Records), b.capacityRecords, max(1, b.capacityBytes/r.MeanBytes))
	records, bytes, enough := b.mu.records, b.mu.bytes, max(1, want/(4*reserve))
	if !holdsNothing {
		records, bytes, enough = records-b.capacityRecords/reserve, bytes-b.capacityBytes/reserve, max(1, want/4)
	}
	n := min(want, records, bytes/r.MeanBytes)
	if n < enough {
		return Grant{}, false
	}
	g := Grant{Records: int(n), bytes: n * r.MeanBytes}
	b.mu.bytes -= g.bytes
	b.mu.records -= n
	return g, true
}

// Settle replaces the estimate by what the read really brought.
func (b *Budget) Settle(g Grant, records int, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.releaseLocked(g.bytes-bytes, int64(g.Records-records))
}

// HandedOut gives the slots of records back that left the queue, whether to the pipeline or because their run ended.
func (b *Budget) HandedOut(records int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.releaseLocked(0, int64(records))
}

// Release gives back the bytes of records that Pulsar has confirmed, or that were dropped.
func (b *Budget) Release(bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.releaseLocked(bytes, 0)
}

// releaseLocked must be called with mu held.
func (b *Budget) releaseLocked(bytes, records int64) {
	b.mu.bytes += bytes
	b.mu.records += records
	b.serveLocked()
}

// serveLocked must be called with mu held.
func (b *Budget) serveLocked() {
	squeezed := false // somebody who holds something waits: others like it must not pass
	var next *list.Element
	for e := b.mu.waiters.Front(); e != nil; e = next {
		next = e.Next()
		w := e.Value.(*waiter)
		if squeezed && !w.holdsNothing {
			continue
		}
		g, ok := b.grantLocked(w.request, w.holdsNothing)
		if !ok {
			if w.holdsNothing {
				return
			}
			squeezed = true
			continue
		}
		b.mu.waiters.Remove(e)
		w.granted <- g
	}
}

// Held is what the shards hold now, reserved room of running reads included.
func (b *Budget) Held() (bytes int64, records int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.capacityBytes - b.mu.bytes, int(b.capacityRecords - b.mu.records)
}
