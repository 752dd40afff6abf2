package input

import (
	"context"
	"sync"
)

// dispatcher is the queue of the shard runs that have something to hand out, in the order they became ready: the round
// robin of ReadBatch.
type dispatcher struct {
	mu struct {
		sync.Mutex
		ready  []*run
		queued map[*run]bool
	}
	// wake has room for one token: somebody is ready.
	wake chan struct{}
}

func newDispatcher() *dispatcher {
	d := &dispatcher{wake: make(chan struct{}, 1)}
	d.mu.queued = map[*run]bool{}
	return d
}

// offer puts a run into the queue, once. It never blocks.
func (d *dispatcher) offer(r *run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.queued[r] {
		return
	}
	d.mu.queued[r] = true
	d.mu.ready = append(d.mu.ready, r)
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// next takes the run that has been ready the longest. It waits for one until ctx ends or trouble is closed, and returns
// nil then.
func (d *dispatcher) next(ctx context.Context, trouble <-chan struct{}) *run {
	for {
		if r := d.pop(); r != nil {
			return r
		}
		select {
		case <-d.wake:
		case <-ctx.Done():
			return nil
		case <-trouble:
			return nil
		}
	}
}

func (d *dispatcher) pop() *run {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.mu.ready) == 0 {
		return nil
	}
	r := d.mu.ready[0]
	d.mu.ready[0] = nil
	d.mu.ready = d.mu.ready[1:]
	if len(d.mu.ready) == 0 {
		d.mu.ready = nil
	}
	delete(d.mu.queued, r)
	return r
}
