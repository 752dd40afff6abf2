package lease

import (
	"context"
	"fmt"
	"slices"
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

// holding is a world in which A has just taken the first lease, at the given position.
func holding(t *testing.T, position string) (w *world, a *worker, h *Held) {
	t.Helper()
	w = newWorld(t)
	w.lease(shard0, at(position))
	a, h = w.takesOver("A")
	return w, a, h
}

// takesOver starts a worker, which takes the first lease.
func (w *world) takesOver(id string) (*worker, *Held) {
	w.t.Helper()
	k := w.worker(id).run()
	time.Sleep(sec)
	return k, k.mustHold(shard0)
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
	if c.Old == nil {
		if now.CheckpointOwner != "" {
			w.t.Errorf("a write made a checkpointOwner: %+v", now)
		}
		if c.Operation != "PutItem" {
			w.t.Errorf("%s made an item: %+v", c.Operation, now)
		}
		return
	}
	before, err := Decode(c.Old)
	if err != nil {
		return
	}
	if now.CheckpointOwner != before.CheckpointOwner && now.CheckpointOwner != "" {
		w.t.Errorf("a write set checkpointOwner: %+v", now)
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

// remove deletes an item.
func (w *world) remove(key string) {
	w.db.DeleteItem(tableName, map[string]types.AttributeValue{attrKey: text(key)})
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
	ran    error // what Run returned; set before done is closed

	mu struct {
		sync.Mutex
		policy           policy
		onDrain          func(*Held) // stands for the user of the lease; nil = everything is confirmed at once
		runs             []*Held
		scans            int
		drains, resumes  int
		askAtResume      string        // who still asked for the lease of the run that resumed last
		drained, resumed time.Duration // when last
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
	m.plan, m.judge = k.plan, k.judge
	k.m = m
	return k
}

// run starts the worker; it is stopped, without a release, when the test ends.
func (k *worker) run() *worker {
	ctx, cancel := context.WithCancel(context.Background())
	k.cancel, k.done = cancel, make(chan struct{})
	go func() {
		defer close(k.done)
		k.ran = k.m.Run(ctx)
	}()
	k.w.t.Cleanup(k.kill)
	return k
}

// kill stops the worker as a crash would.
func (k *worker) kill() {
	k.cancel()
	<-k.done
}

// close stops the worker in good order.
func (k *worker) close() {
	k.w.t.Helper()
	if err := k.m.Close(k.w.t.Context()); err != nil {
		k.w.t.Fatal(err)
	}
}

// Acquired checks the promise that everything else depends on: when a run of a lease begins, no other is believed in.
func (k *worker) Acquired(h *Held) {
	k.w.mu.Lock()
	for _, other := range k.w.mu.runs {
		// A drained run hands out nothing, and its fence closes when it hears that its lease was given.
		if other.lease.Key == h.lease.Key && other.fence.Open() && !other.isDrained() && h.fence.Open() {
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

// scanned is how often the worker's user was told of the leases.
func (k *worker) scanned() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.scans
}

func (k *worker) Drain(h *Held) {
	k.mu.Lock()
	k.mu.drains++
	k.mu.drained = time.Since(k.w.start)
	onDrain := k.mu.onDrain
	k.mu.Unlock()
	if onDrain == nil {
		h.Drained()
		return
	}
	onDrain(h)
}

func (k *worker) onDrain(f func(*Held)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.onDrain = f
}

func (k *worker) Resume(h *Held) {
	ask := k.w.read(h.lease.Key).Ask
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.askAtResume = ask
	k.mu.resumes++
	k.mu.resumed = time.Since(k.w.start)
}

// drainsAndResumes is how often the worker's user was asked for either.
func (k *worker) drainsAndResumes() (drains, resumes int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.drains, k.mu.resumes
}

// policy takes the planner's place in the stories of how leases change hands; whether they should is its question.
type policy struct {
	wanted       []string // leases to ask for as long as another of ours has them; no others are taken then
	quiet        bool     // asks for nothing else
	grant, judge bool     // whether asks are granted, if that is to be decided here
	silent       bool     // asks are never answered
	kcl2         bool     // a KCL 2.x worker is said to live
}

func (k *worker) policy(change func(*policy)) *worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&k.mu.policy)
	return k
}

func (k *worker) wants(keys ...string) *worker {
	return k.policy(func(p *policy) { p.wanted, p.quiet = keys, true })
}

func (k *worker) grants() *worker {
	return k.policy(func(p *policy) { p.quiet, p.judge, p.grant, p.silent = true, true, true, false })
}

func (k *worker) refuses() *worker {
	return k.policy(func(p *policy) { p.quiet, p.judge, p.grant = true, true, false })
}

func (k *worker) plan(known map[string]observation, v view) decisions {
	k.mu.Lock()
	p := k.mu.policy
	k.mu.Unlock()
	d := makePlan(known, v)
	d.kcl2 = d.kcl2 || p.kcl2
	if p.quiet {
		d.ask = nil
	}
	if p.wanted != nil {
		d.take = slices.DeleteFunc(d.take, func(l Lease) bool { return !slices.Contains(p.wanted, l.Key) })
	}
	for _, key := range p.wanted {
		o := known[key]
		_, asked := v.asked[key]
		if l := o.lease; l.IsOurs() && l.Owner != v.worker && !v.busy[key] && !asked && !o.tried && v.now >= o.askAfter && !o.isExpired(v.failover, v.now) {
			d.ask = append(d.ask, l)
		}
	}
	return d
}

func (k *worker) judge(known map[string]observation, v view, asked []Lease) (grant, refuse []Lease) {
	k.mu.Lock()
	p := k.mu.policy
	k.mu.Unlock()
	switch {
	case p.silent:
		return nil, nil
	case !p.judge:
		return judgeAsks(known, v, asked)
	case p.grant:
		return asked, nil
	}
	return nil, asked
}

// await waits until the condition holds, but not for ever.
func (w *world) await(what string, condition func() bool) {
	w.t.Helper()
	for begin := time.Now(); !condition(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 2*time.Minute {
			w.t.Fatalf("%s: in vain", what)
		}
	}
}

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

// Which write a request is.
func isKeep(r dynamotest.Request) bool {
	return isOwners(r) && !isGive(r) && !isRelease(r) && !isAdopt(r)
}

func isTake(r dynamotest.Request) bool {
	return r.Operation == "UpdateItem" && strings.Contains(r.Condition, attrStream)
}

func isRelease(r dynamotest.Request) bool {
	_, removed, _ := strings.Cut(r.Update, "REMOVE")
	return isOwners(r) && (strings.Contains(removed, attrOwner) || strings.Contains(removed, attrCheckpointOwner))
}

func isGive(r dynamotest.Request) bool {
	return isOwners(r) && strings.Contains(r.Condition, "#"+attrAsk+" = ")
}

func isAdopt(r dynamotest.Request) bool {
	return isOwners(r) && strings.Contains(r.Update, attrFailover)
}

func isAsk(r dynamotest.Request) bool {
	return r.Operation == "UpdateItem" && strings.Contains(r.Update, "#"+attrAsk+" = ")
}

func isWithdrawal(r dynamotest.Request) bool {
	return r.Operation == "UpdateItem" && strings.Contains(r.Condition, "#"+attrAsk+" = ") && !isGive(r)
}

// isOwners tells a write of the lease's owner, who has to name his run.
func isOwners(r dynamotest.Request) bool {
	return r.Operation == "UpdateItem" && strings.Contains(r.Condition, "#"+attrAcquisition+" = ") && !isAsk(r) && !isTake(r)
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
