package kcltest

import (
	"context"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// adopt takes up what stands under the worker's name when it starts, expired or not.
func (w *Worker) adopt(ctx context.Context) {
	var leases []Lease
	for { // KCL: 20 tries at the initialisation, then it exits
		var err error
		if leases, err = w.table.list(ctx); err == nil {
			break
		}
		if !sleep(ctx, time.Second) {
			return
		}
	}
	for _, l := range leases {
		if l.Owner != w.cfg.WorkerID || l.CheckpointOwner != "" {
			continue
		}
		if done, err := w.table.update(ctx, l.Key, wants{"leaseCounter": num(l.Counter)}, updates{"leaseCounter": put(num(l.Counter + 1))}); err == nil && done {
			l.Counter++
			w.keep(l)
		}
	}
}

// renewAll is one round of renewals. It ends with the slowest of them, and the next waits for it.
func (w *Worker) renewAll(ctx context.Context) {
	var wg sync.WaitGroup
	for _, h := range w.all() {
		wg.Go(func() { w.renew(ctx, h) })
	}
	wg.Wait()
}

// begin waits for the right to write the lease, and gives its present state.
func (w *Worker) begin(ctx context.Context, h *held) (l Lease, ok bool) {
	select {
	case h.writing <- struct{}{}:
	case <-ctx.Done():
		return Lease{}, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.owned[h.key] != h {
		<-h.writing
		return Lease{}, false
	}
	return h.lease, true
}

// renewed notes a success. The stamp is taken when the answer has come: KCL believes a little longer than it may.
func (w *Worker) renewed(h *held, change func(*Lease)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h.stamp = w.cfg.Clock()
	change(&h.lease)
}

func (w *Worker) renew(ctx context.Context, h *held) {
	l, ok := w.begin(ctx, h)
	if !ok {
		return
	}
	defer func() { <-h.writing }()
	if !w.isHeld(h) {
		w.drop(h, Lost)
		return
	}
	condition := wants{"leaseCounter": num(l.Counter)}
	u := updates{"leaseCounter": put(num(l.Counter + 1))}
	if w.cfg.Generation == KCL3 {
		if l.CheckpointOwner == "" {
			condition["checkpointOwner"] = nil
		}
		if w.hasDelivered(h) {
			u["throughputKBps"] = put(&types.AttributeValueMemberN{Value: "0"})
		}
	}
	var done bool
	var err error
	for range renewTries {
		if done, err = w.table.update(ctx, l.Key, condition, u); !isThrottle(err) {
			break
		}
	}
	if err != nil {
		return // the lease stays until its stamp is too old
	}
	if !done {
		// Perhaps a repeat of ours has met its own first try.
		now, found, err := w.table.get(ctx, l.Key, false)
		switch {
		case err != nil:
			return
		case found && w.cfg.Generation == KCL3 && now.CheckpointOwner == w.cfg.WorkerID && now.Owner != w.cfg.WorkerID && now.Counter == l.Counter:
			w.renewed(h, func(l *Lease) { l.CheckpointOwner, l.Owner = now.CheckpointOwner, now.Owner })
			w.startGiving(h, now.Owner)
			return // and renews again in the next round
		case !found || now.actualOwner() != w.cfg.WorkerID || now.Counter != l.Counter+1:
			w.drop(h, Lost)
			return
		}
	}
	w.renewed(h, func(l *Lease) { l.Counter++ })
}

// checkpoint stores a position. It is true when that is done; a failed condition costs the lease, even if it was the
// worker's own repeat that failed.
func (w *Worker) checkpoint(ctx context.Context, h *held, p Position, children []string) bool {
	l, ok := w.begin(ctx, h)
	if !ok {
		return false
	}
	defer func() { <-h.writing }()
	if !w.isHeld(h) {
		w.drop(h, Lost)
		return false
	}
	if children != nil {
		l.Children = children
	}
	done, err := w.table.checkpoint(ctx, l, p)
	switch {
	case err != nil:
		return false
	case !done:
		w.drop(h, Lost)
		return false
	}
	w.renewed(h, func(l *Lease) { l.Counter, l.Checkpoint, l.Children, l.Switches = l.Counter+1, p, children, 0 })
	return true
}
