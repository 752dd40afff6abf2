package lease_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kcltest"
)

const modelStream = "arn:aws:kinesis:eu-west-1:123456789012:stream/model@1700000000"

// machine is what a worker runs on. While it is suspended nothing of the worker is sent, received or handed on, and its clock goes on
// (CLOCK_BOOTTIME).
type machine struct {
	mu    sync.Mutex
	awake chan struct{} // nil while it is awake
}

func (c *machine) suspend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.awake == nil {
		c.awake = make(chan struct{})
	}
}

func (c *machine) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.awake != nil {
		close(c.awake)
		c.awake = nil
	}
}

// wait returns when the machine is awake.
func (c *machine) wait() {
	for {
		c.mu.Lock()
		awake := c.awake
		c.mu.Unlock()
		if awake == nil {
			return
		}
		<-awake
	}
}

// link is the way from a worker's machine to DynamoDB.
type link struct {
	*dynamotest.Direct
	machine *machine
}

const requestTimeout = 5 * time.Second

func through[In, Out any](l *link, ctx context.Context, in *In, send func(context.Context, *In, ...func(*dynamodb.Options)) (*Out, error)) (*Out, error) {
	l.machine.wait()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout) // as the input's HTTP client has one
	defer cancel()
	out, err := send(ctx, in)
	l.machine.wait()
	return out, err
}

func (l *link) Scan(ctx context.Context, in *dynamodb.ScanInput, _ ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error) {
	return through(l, ctx, in, l.Direct.Scan)
}

func (l *link) GetItem(ctx context.Context, in *dynamodb.GetItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	return through(l, ctx, in, l.Direct.GetItem)
}

func (l *link) PutItem(ctx context.Context, in *dynamodb.PutItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	return through(l, ctx, in, l.Direct.PutItem)
}

func (l *link) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	return through(l, ctx, in, l.Direct.UpdateItem)
}

func (l *link) DeleteItem(ctx context.Context, in *dynamodb.DeleteItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error) {
	return through(l, ctx, in, l.Direct.DeleteItem)
}

// ours is a worker of this project: a manager, and as much of the input as matters to leases. It reads shards of the model's stream
// by the rules of input/shard, one batch at a time, and looks after the lineage.
type ours struct {
	w       *model
	id      string
	machine machine
	dead    atomic.Bool // the machine will not wake up
	table   *lease.Table
	manager *lease.Manager
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu      sync.Mutex
	leases  map[string]lease.Lease
	readers map[*lease.Held]*reader
}

// start makes a worker that works.
func (w *model) start(id string, failover time.Duration, edit ...func(*lease.Config)) *ours {
	k := &ours{w: w, id: id, leases: map[string]lease.Lease{}, readers: map[*lease.Held]*reader{}}
	network := w.network(id)
	k.table = lease.NewTable(&link{machine: &k.machine, Direct: w.db.Direct(func(r dynamotest.Request) *dynamotest.Fault {
		w.ledger.requested(id, r)
		if w.meddle != nil {
			if f := w.meddle(k, r); f != nil {
				return f
			}
		}
		return network(r)
	}).Named(id)}, modelTable)
	random := &lockedRandom{r: rand.New(rand.NewPCG(w.seed, uint64(len(w.all())+1)))}
	cfg := lease.Config{
		Table: k.table, WorkerID: id, Stream: modelStream, Failover: failover, NumRetries: 3, Clock: w.clock, Random: random.float64,
		MayTake: func(l lease.Lease) bool { return !l.Ended() },
	}
	for _, e := range edit {
		e(&cfg)
	}
	var err error
	if k.manager, err = lease.NewManager(cfg, k); err != nil {
		w.t.Fatal(err)
	}
	switch {
	case w.wants != nil:
		k.manager.Ask(func(key string) bool { return w.wants(id, key) }, func(string) bool { return true })
	case w.wild:
		k.manager.Ask(func(string) bool { return !w.calm.Load() && random.intN(6) == 0 }, func(string) bool { return random.intN(4) > 0 })
	}
	w.ledger.mu.Lock()
	w.ledger.ours[id] = cfg.Failover
	w.ledger.note("%s starts, failover %s", id, cfg.Failover)
	w.ledger.mu.Unlock()
	k.ctx, k.cancel = context.WithCancel(context.Background())
	w.mu.Lock()
	w.workers = append(w.workers, k)
	w.mu.Unlock()
	k.wg.Go(func() { _ = k.manager.Run(k.ctx) })
	k.wg.Go(func() { k.audit(random) })
	return k
}

// kill ends the worker as a crash does.
func (k *ours) kill() {
	k.w.ledger.tell("%s is killed", k.id)
	k.end()
}

func (k *ours) end() {
	k.cancel()
	k.machine.wake()
	k.wg.Wait()
}

// stop ends the worker in good order.
func (k *ours) stop() {
	k.w.ledger.mu.Lock()
	k.w.ledger.note("%s stops", k.id)
	k.w.ledger.stopping[k.id] = true
	k.w.ledger.mu.Unlock()
	k.machine.wake()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_ = k.manager.Close(ctx)
	k.end()
}

// letGo releases one of the leases that the worker holds, as the input does with a shard that it cannot read. The worker may
// take it again at once.
func (k *ours) letGo(which int, patience time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var held []*lease.Held
	for h := range k.readers {
		if h.Fence().Open() {
			held = append(held, h)
		}
	}
	if len(held) == 0 {
		return
	}
	slices.SortFunc(held, func(a, b *lease.Held) int { return strings.Compare(a.Lease().Acquisition, b.Lease().Acquisition) })
	h := held[which%len(held)]
	k.w.ledger.mu.Lock()
	k.w.ledger.note("%s lets %s go, within %s", k.id, h.Lease().Key, patience)
	k.w.ledger.stopping[h.Lease().Acquisition] = true
	k.w.ledger.mu.Unlock()
	k.wg.Go(func() {
		ctx, cancel := context.WithTimeout(k.ctx, patience)
		defer cancel()
		_ = h.Release(ctx)
	})
}

// Acquired implements lease.Handler.
func (k *ours) Acquired(h *lease.Held) {
	k.w.began(k, h)
	r := &reader{k: k, held: h, key: h.Lease().Key, turn: make(chan struct{}, 1)}
	k.mu.Lock()
	k.leases[r.key] = h.Lease()
	k.readers[h] = r
	k.mu.Unlock()
	k.wg.Go(func() { r.run(k.ctx) })
}

// Scanned implements lease.Handler.
func (k *ours) Scanned(leases []lease.Lease) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leases = map[string]lease.Lease{}
	for _, l := range leases {
		k.leases[l.Key] = l
	}
}

// Drain implements lease.Handler.
func (k *ours) Drain(h *lease.Held) { k.reader(h).drain(true) }

// Resume implements lease.Handler.
func (k *ours) Resume(h *lease.Held) { k.reader(h).drain(false) }

func (k *ours) reader(h *lease.Held) *reader {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.readers[h]
}

// believes tells whether the worker believes to hold the lease.
func (k *ours) believes(key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for h := range k.readers {
		if h.Lease().Key == key && h.Fence().Open() {
			return true
		}
	}
	return false
}

// holds counts the leases of open shards that the worker believes to hold.
func (k *ours) holds() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for h := range k.readers {
		if h.Fence().Open() {
			n++
		}
	}
	return n
}

// reader is a run of a shard.
type reader struct {
	k    *ours
	held *lease.Held
	key  string
	turn chan struct{} // holds one token: draining has turned

	mu       sync.Mutex
	draining bool
}

func (r *reader) drain(wanted bool) {
	r.mu.Lock()
	r.draining = wanted
	r.mu.Unlock()
	select {
	case r.turn <- struct{}{}:
	default:
	}
}

// pause waits; it is false when the run is over. When everything is confirmed (idle) it takes part in drains.
func (r *reader) pause(ctx context.Context, d time.Duration, idle bool) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		r.mu.Lock()
		drained := r.draining && idle
		r.mu.Unlock()
		if drained {
			r.held.Drained()
		}
		turn, after := r.turn, timer.C
		if !idle {
			turn = nil
		}
		if drained {
			after = nil
		}
		select {
		case <-turn:
			continue
		case <-after:
			r.k.machine.wait()
			return ctx.Err() == nil
		case <-r.held.Lost():
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (r *reader) run(ctx context.Context) {
	for !r.isReady(ctx) {
		if !r.pause(ctx, 200*time.Millisecond, true) {
			return
		}
	}
	from, err := shard.ReadFrom(r.held.Lease(), nil, shard.Start{Position: checkpoint.TrimHorizon})
	if err != nil {
		r.k.w.t.Errorf("%s: %v", r.key, err)
		return
	}
	at := from.After
	if at.IsZero() {
		at.Sequence = checkpoint.TrimHorizon
	}
	numbered := r.k.w.numbered && r.k.w.random.intN(4) > 0 // what counts goes on whether the output asks for numbers or not
	for records := int64(0); r.pause(ctx, time.Millisecond, true); {
		batch, ended, children := r.k.w.stream.Read(r.key, kcltest.Position(at), 1+r.k.w.random.intN(4))
		if len(batch) == 0 {
			if ended && !r.finish(ctx, children) {
				continue
			}
			if ended || !r.pause(ctx, 300*time.Millisecond, true) {
				return
			}
			continue
		}
		var sent []checkpoint.Position
		for _, p := range batch {
			sent = append(sent, position(p))
		}
		if records == 0 {
			r.held.Starts(sent[0], false)
		}
		var n lease.Numbering
		if numbered {
			if n, err = r.held.Number(ctx, lease.Numbered{Partitions: 1, Records: records, Next: sent[0]}); err != nil {
				return // the run is over
			}
			r.k.machine.wait()
		}
		if !r.held.Fence().Open() {
			return
		}
		r.k.w.ledger.sending(r.held.Lease().Acquisition, sent)
		if numbered {
			r.k.w.ledger.numbered(r.key, n.Epoch, n.First+records, sent)
		}
		// What Pulsar has got is confirmed some time later, whatever becomes of the run; a confirmation may be late or never come.
		latency := time.Duration(r.k.w.random.intN(400)) * time.Millisecond
		if r.k.w.random.intN(30) == 0 {
			latency = time.Duration(r.k.w.random.intN(8000)) * time.Millisecond
		}
		if !r.pause(ctx, latency, false) {
			return
		}
		r.k.w.ledger.confirmed(r.key, sent...)
		records += int64(len(sent))
		at = sent[len(sent)-1]
		r.held.Confirmed(at, records)
	}
}

// isReady tells whether all parents have ended (I3). A parent that the scan does not show is looked for consistently.
func (r *reader) isReady(ctx context.Context) bool {
	l := r.held.Lease()
	for _, p := range l.Parents {
		r.k.mu.Lock()
		parent, has := r.k.leases[p]
		r.k.mu.Unlock()
		if !has {
			var err error
			if parent, has, err = r.k.table.Get(ctx, p); err != nil {
				return false
			}
		}
		if has && len(shard.WaitsFor(l, map[string]lease.Lease{p: parent})) > 0 {
			return false
		}
	}
	return true
}

// finish writes the end of a shard of which everything is confirmed, in the input's order.
func (r *reader) finish(ctx context.Context, children []kcltest.Shard) bool {
	listed := r.k.w.listed()
	parent := r.held.Lease()
	last := retrieval.Read{Ended: true}
	for _, c := range children {
		last.Children = append(last.Children, retrieval.Child{ID: c.ID, Parents: c.Parents, StartingHashKey: c.StartingHashKey, EndingHashKey: c.EndingHashKey})
	}
	leases, err := shard.EndOf(parent, last, listed, modelStream)
	if err != nil {
		r.k.w.t.Errorf("%s: %v", r.key, err)
		return false
	}
	if snapshot, err := r.k.table.Scan(ctx, true); err != nil {
		r.k.w.ledger.tell("%s cannot end %s: %v", r.k.id, r.key, err)
		return false
	} else {
		leases = append(shard.MissingAncestors(leases, listed, byKey(snapshot.Leases), modelStream), leases...)
	}
	if !r.k.create(ctx, leases) {
		return false
	}
	var ids []string
	for _, c := range children {
		ids = append(ids, c.ID)
	}
	if _, err := r.k.table.SetChildren(ctx, r.key, ids); err != nil {
		r.k.w.ledger.tell("%s cannot end %s: %v", r.k.id, r.key, err)
		return false
	}
	r.held.Confirmed(checkpoint.Position{Sequence: checkpoint.ShardEnd}, 0)
	releasing, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := r.held.Release(releasing); err != nil { // the run is over all the same
		r.k.w.ledger.tell("%s cannot end %s: %v", r.k.id, r.key, err)
	}
	r.k.manager.Rescan()
	return true
}

func (k *ours) create(ctx context.Context, leases []lease.Lease) bool {
	for _, l := range leases {
		if _, _, err := k.table.Create(ctx, l); err != nil && !errors.Is(err, lease.ErrNoLease) {
			k.w.ledger.tell("%s cannot create %s: %v", k.id, l.Key, err)
			return false
		}
	}
	return true
}

// audit fills holes and cleans up, oftener than the input does.
func (k *ours) audit(random *lockedRandom) {
	missed := map[string]int{}
	ended := map[string]time.Duration{}
	for {
		timer := time.NewTimer(time.Duration(3000+random.intN(4000)) * time.Millisecond)
		select {
		case <-timer.C:
		case <-k.ctx.Done():
			timer.Stop()
			return
		}
		snapshot, err := k.table.Scan(k.ctx, true)
		if err != nil {
			continue
		}
		leases, listed := byKey(snapshot.Leases), k.w.listed()
		next := map[string]int{}
		var due []lease.Lease
		for _, l := range shard.MissingChildren(listed, leases, modelStream) {
			if next[l.Key] = missed[l.Key] + 1; next[l.Key] >= 2 {
				due = append(due, l)
			}
		}
		missed = next
		k.create(k.ctx, append(shard.MissingAncestors(due, listed, leases, modelStream), due...))
		for _, l := range shard.Cleanable(listed, leases) {
			since, known := ended[l.Key]
			if !known {
				ended[l.Key] = k.w.clock()
			} else if k.w.clock()-since > 10*time.Second {
				_, _ = k.table.DeleteEnded(k.ctx, l)
			}
		}
	}
}

func byKey(leases []lease.Lease) map[string]lease.Lease {
	keyed := make(map[string]lease.Lease, len(leases))
	for _, l := range leases {
		keyed[l.Key] = l
	}
	return keyed
}
