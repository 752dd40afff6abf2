package lease

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

const tableName = "app"

// world is a lease table and the workers on it, inside a synctest bubble: all times are exact and cost nothing.
type world struct {
	t     *testing.T
	db    *dynamotest.DB
	table *Table
	start time.Time
	slept atomic.Int64 // how long the host of all workers was suspended

	mu struct {
		sync.Mutex
		runs []*Held
	}
}

func newWorld(t *testing.T, opts ...dynamotest.Option) *world {
	t.Helper()
	db := dynamotest.New(opts...)
	t.Cleanup(db.Close)
	w := &world{t: t, db: db, table: NewTable(db.API(), tableName), start: time.Now()}
	if created, err := w.table.EnsureExists(t.Context(), Creation{}); err != nil || !created.Table {
		t.Fatalf("EnsureExists: %v, %v", created, err)
	}
	db.OnChange(w.check)
	return w
}

// check holds every write of a test to the invariants of the table.
func (w *world) check(c dynamotest.Change) {
	if c.New == nil || c.Operation == "" {
		return
	}
	now, err := Decode(c.New)
	if err != nil {
		w.t.Errorf("a write left a broken item: %v", err)
	}
	if now.CheckpointOwner != "" {
		w.t.Errorf("a write left a checkpointOwner: %+v", now)
	}
	if c.Old == nil {
		if c.Operation != "PutItem" {
			w.t.Errorf("%s made an item: %+v", c.Operation, now)
		}
		return
	}
	before, err := Decode(c.Old)
	if err != nil {
		return
	}
	if now.Counter < before.Counter {
		w.t.Errorf("counter of %s fell from %d to %d", now.Key, before.Counter, now.Counter)
	}
	if now.Checkpoint.Compare(before.Checkpoint) < 0 {
		w.t.Errorf("checkpoint of %s fell from %s to %s", now.Key, before.Checkpoint, now.Checkpoint)
	}
}

// lease creates an unowned lease.
func (w *world) lease(key string, position checkpoint.Position) {
	w.t.Helper()
	if _, created, err := w.table.Create(w.t.Context(), Lease{Key: key, Checkpoint: position, StartingHashKey: "0", EndingHashKey: "9"}); err != nil || !created {
		w.t.Fatalf("creating %s: %v, %v", key, created, err)
	}
}

// put stores an item as somebody else would have written it.
func (w *world) put(l Lease, more map[string]types.AttributeValue) {
	item := l.newItem()
	item[attrCounter] = number(l.Counter)
	for name, v := range map[string]string{attrOwner: l.Owner, attrAcquisition: l.Acquisition} {
		if v != "" {
			item[name] = text(v)
		}
	}
	for name, v := range more {
		item[name] = v
	}
	w.db.Put(tableName, item)
}

func (w *world) item(key string) map[string]types.AttributeValue {
	return w.db.Item(tableName, map[string]types.AttributeValue{attrKey: text(key)})
}

func (w *world) read(key string) Lease {
	w.t.Helper()
	l, err := Decode(w.item(key))
	if err != nil {
		w.t.Fatalf("lease %s: %v", key, err)
	}
	return l
}

// edit changes an item behind everybody's back.
func (w *world) edit(key string, change func(map[string]types.AttributeValue)) {
	item := w.item(key)
	change(item)
	w.db.Put(tableName, item)
}

// kclSteals does what a KCL 2.x worker does to a lease it wants.
func (w *world) kclSteals(key, worker string) {
	n := w.read(key).Counter
	w.edit(key, func(item map[string]types.AttributeValue) {
		item[attrOwner], item[attrCounter] = text(worker), number(n+1)
	})
}

// worker is a manager with what it was told.
type worker struct {
	w      *world
	m      *Manager
	jumped atomic.Int64 // how long its own machine was suspended
	log    testLog
	cancel context.CancelFunc
	done   chan struct{}

	mu struct {
		sync.Mutex
		runs  []*Held
		scans int
	}
}

func (w *world) worker(id string, edit ...func(*Config)) *worker {
	w.t.Helper()
	k := &worker{w: w}
	cfg := Config{
		Table: w.table, WorkerID: id, Stream: testStream, Failover: 9 * sec, Backoff: 3 * sec, NumRetries: 3, Log: &k.log,
		Clock: func() time.Duration { return time.Since(w.start) + time.Duration(w.slept.Load()+k.jumped.Load()) },
	}
	for _, e := range edit {
		e(&cfg)
	}
	m, err := NewManager(cfg, k)
	if err != nil {
		w.t.Fatal(err)
	}
	k.m = m
	return k
}

// run starts the worker; it is stopped, without a release, when the test ends.
func (k *worker) run() *worker {
	ctx, cancel := context.WithCancel(context.Background())
	k.cancel, k.done = cancel, make(chan struct{})
	go func() {
		defer close(k.done)
		_ = k.m.Run(ctx)
	}()
	k.w.t.Cleanup(k.kill)
	return k
}

// kill stops the worker as a crash would.
func (k *worker) kill() {
	k.cancel()
	<-k.done
}

// Acquired checks the promise that everything else depends on: when a run of a lease begins, no other is believed in.
func (k *worker) Acquired(h *Held) {
	k.w.mu.Lock()
	for _, other := range k.w.mu.runs {
		if other.lease.Key == h.lease.Key && other.fence.Open() && h.fence.Open() {
			k.w.t.Errorf("%s: two runs of %s are believed in: %s and %s", time.Since(k.w.start), h.lease.Key, other.lease.Acquisition, h.lease.Acquisition)
		}
	}
	k.w.mu.runs = append(k.w.mu.runs, h)
	k.w.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.runs = append(k.mu.runs, h)
}

func (k *worker) Scanned([]Lease) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.scans++
}

func (k *worker) Drain(*Held)  {}
func (k *worker) Resume(*Held) {}

func (k *worker) runs(key string) (runs []*Held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.mu.runs {
		if h.lease.Key == key {
			runs = append(runs, h)
		}
	}
	return runs
}

// held returns the run of the lease that the worker believes in, nil if there is none.
func (k *worker) held(key string) *Held {
	for _, h := range k.runs(key) {
		if h.fence.Open() {
			return h
		}
	}
	return nil
}

func (k *worker) mustHold(key string) *Held {
	k.w.t.Helper()
	h := k.held(key)
	if h == nil {
		k.w.t.Fatalf("%s does not hold %s: %+v", k.m.cfg.WorkerID, key, k.w.read(key))
	}
	return h
}

func isOver(h *Held) bool {
	select {
	case <-h.Lost():
		return true
	default:
		return false
	}
}

// Which of the owner's writes a request is.
func isKeep(r dynamotest.Request) bool {
	return r.Operation == "UpdateItem" && strings.Contains(r.Condition, attrAcquisition) && !strings.Contains(r.Update, attrAsk)
}

func isTake(r dynamotest.Request) bool {
	return r.Operation == "UpdateItem" && strings.Contains(r.Condition, attrStream)
}

func isRelease(r dynamotest.Request) bool {
	return r.Operation == "UpdateItem" && strings.Contains(r.Condition, attrAcquisition) && strings.Contains(r.Update, attrAsk)
}

// times notes when requests are sent, without touching them.
func (w *world) times(which func(dynamotest.Request) bool) func() []time.Duration {
	var mu sync.Mutex
	var at []time.Duration
	w.db.OnRequest(func(r dynamotest.Request) *dynamotest.Fault {
		if which(r) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(w.start))
		}
		return nil
	})
	return func() []time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return append([]time.Duration(nil), at...)
	}
}

type testLog struct {
	mu struct {
		sync.Mutex
		warnings, infos []string
	}
}

func (l *testLog) Debugf(string, ...any) {}

func (l *testLog) Infof(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.infos = append(l.mu.infos, fmt.Sprintf(format, args...))
}

func (l *testLog) Warnf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.warnings = append(l.mu.warnings, fmt.Sprintf(format, args...))
}

func (l *testLog) warnings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.mu.warnings...)
}

func (l *testLog) infos() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.mu.infos...)
}
