package lease_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kcltest"
)

var (
	modelSeed    = flag.Uint64("model.seed", 0, "run the model with this seed only, and print its story")
	modelStories = flag.Int("model.stories", 3000, "number of random stories of the model, if the time is enough")
	modelTime    = flag.Duration("model.time", 30*time.Second, "how long the model may begin new stories; 0 = as long as it takes")
	// Without, a mutation of the package must be caught by what it does.
	modelConditions = flag.Bool("model.conditions", true, "hold the text of conditions to the rules")
	modelPairs      = flag.Int("model.pairs", 200, "number of random pairs of accidents in a hand-over")
	modelAlways     = flag.Bool("model.trace", false, "print the story of a good run too")
)

const modelTable = "app"

// model is a lease table, a stream, and workers of ours and of KCL on it, in a bubble of simulated time.
type model struct {
	t        *testing.T
	seed     uint64
	start0   time.Time
	db       *dynamotest.DB
	stream   *kcltest.Stream
	ledger   *ledger
	random   *lockedRandom
	trouble  atomic.Int64                                          // per mille of requests
	calm     atomic.Bool                                           // the trouble is over
	slow     bool                                                  // every request takes its time
	numbered bool                                                  // most readers number what they send
	wild     bool                                                  // workers ask and grant at random
	wants    func(id, key string) bool                             // which leases a worker asks for; asks are granted then
	meddle   func(k *ours, r dynamotest.Request) *dynamotest.Fault // sees every request of ours before it is sent
	slept    atomic.Int64                                          // how long the host of all workers was suspended

	mu      sync.Mutex
	workers []*ours // all that ever were; the living are in the story's hands
	kcl     []*kclWorker
}

// all are all workers of ours that ever were.
func (w *model) all() []*ours {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.workers)
}

type lockedRandom struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (l *lockedRandom) intN(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.IntN(n)
}

func (l *lockedRandom) float64() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Float64()
}

func newModel(t *testing.T, seed uint64, shards int) *model {
	t.Helper()
	w := &model{
		t: t, seed: seed, start0: time.Now(), db: dynamotest.New(), stream: kcltest.NewStream(shards),
		random: &lockedRandom{r: rand.New(rand.NewPCG(seed, 0))},
	}
	t.Cleanup(w.db.Close)
	w.ledger = newLedger(t, w.stream, w.clock)
	if _, err := lease.NewTable(w.db.API(), modelTable).EnsureExists(t.Context(), lease.Creation{}); err != nil {
		t.Fatal(err)
	}
	w.db.OnChange(w.ledger.changed)
	for _, l := range shard.FirstLeases(w.listed(), shard.Start{Position: checkpoint.TrimHorizon}, "") {
		if _, _, err := lease.NewTable(w.db.Direct(nil), modelTable).Create(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *model) clock() time.Duration { return time.Since(w.start0) + time.Duration(w.slept.Load()) }

func (w *model) listed() (listed []shard.Shard) {
	for _, s := range w.stream.Shards() {
		listed = append(listed, shard.Shard{
			ID: s.ID, Parents: s.Parents, StartingHashKey: s.StartingHashKey, EndingHashKey: s.EndingHashKey,
			StartingSequence: s.StartingSequence, Closed: s.Closed,
		})
	}
	return listed
}

// began holds the beginning of a run to the promise that everything rests on: no other run of the shard is believed in.
func (w *model) began(k *ours, h *lease.Held) {
	w.ledger.tell("%s begins %s", h.Lease().Acquisition, h.Lease().Key)
	if !h.Fence().Open() {
		return
	}
	for _, other := range w.all() {
		other.mu.Lock()
		for o := range other.readers {
			if o.Lease().Key == h.Lease().Key && o != h && o.Fence().Open() && h.Fence().Open() && !w.mayBelieve(o) {
				w.ledger.mu.Lock()
				w.ledger.violated("I5: two runs of %s are believed in: %s and %s", h.Lease().Key, o.Lease().Acquisition, h.Lease().Acquisition)
				w.ledger.mu.Unlock()
			}
		}
		other.mu.Unlock()
	}
}

// mayBelieve tells whether a run may believe in its lease although another has begun: when KCL has stolen the lease between, or
// somebody has deleted it, which its owner notices at the next renewal; or when the run has given it away, and is drained, and does not
// know yet that this was done. (It may not send anything: the ledger sees to that.)
func (w *model) mayBelieve(o *lease.Held) bool {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	for _, r := range w.ledger.kclTakes {
		if r.acquisition == o.Lease().Acquisition {
			return true
		}
	}
	r := w.ledger.runs[o.Lease().Acquisition]
	return r != nil && r.unaware
}

var modelKinds = []dynamotest.Kind{
	dynamotest.Throttle, dynamotest.InternalError, dynamotest.AppliedInternalError, dynamotest.Delay, dynamotest.LateWrite,
	dynamotest.SlowAnswer, dynamotest.Hang, dynamotest.HangAnswer, dynamotest.LoseAnswer, dynamotest.LoseRequest,
}

// network is the trouble between one worker and DynamoDB. It depends on the seed, the worker and the number of its request, so that
// workers do not change each other's luck.
func (w *model) network(id string) func(dynamotest.Request) *dynamotest.Fault {
	var h uint64 = 14695981039346656037
	for _, b := range []byte(id) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	random := &lockedRandom{r: rand.New(rand.NewPCG(w.seed, h))}
	return func(dynamotest.Request) *dynamotest.Fault {
		luck, kind, delay := random.intN(1000), modelKinds[random.intN(len(modelKinds))], random.float64()
		switch {
		case luck < int(w.trouble.Load()):
		case w.slow && !w.calm.Load():
			return &dynamotest.Fault{Kind: dynamotest.Delay, Delay: time.Duration(delay * float64(400*time.Millisecond))}
		default:
			return nil
		}
		f := &dynamotest.Fault{Kind: kind}
		switch kind {
		case dynamotest.Delay, dynamotest.LateWrite, dynamotest.SlowAnswer:
			// Most are short, some outlive everybody's patience.
			f.Delay = time.Duration(delay * delay * delay * float64(15*time.Second))
		}
		return f
	}
}

// kclWorker is a simulated KCL 2.x worker.
type kclWorker struct {
	*kcltest.Worker
	id     string
	cancel context.CancelFunc
	done   chan struct{}
}

func (w *model) startKCL(id string, failover time.Duration, edit ...func(*kcltest.Config)) *kclWorker {
	api := w.db.Direct(w.network(id))
	cfg := kcltest.Config{
		API: api, Table: modelTable, WorkerID: id, Failover: failover, InitialPosition: kcltest.TrimHorizon, Shards: w.stream.Shards,
		ProcessPause: 300 * time.Millisecond, ParentPoll: time.Second, CleanupPause: 15 * time.Second, RequestTimeout: 5 * time.Second,
		Consumer: &kcltest.App{Stream: w.stream, Most: 3, Deliver: func(key string, p kcltest.Position) { w.ledger.kclDelivers(id, key, p) }},
		Clock:    w.clock, Random: rand.New(rand.NewPCG(w.seed, uint64(len(w.kcl)+100))),
		OnEvent: func(e kcltest.Event) {
			switch e.Kind {
			case kcltest.Took, kcltest.Stole:
				w.ledger.kclTook(e.Key, e.Counter, e.Kind == kcltest.Stole)
			case kcltest.Failed:
				w.t.Errorf("a scan of KCL was ended by an item")
			}
		},
	}
	for _, e := range edit {
		e(&cfg)
	}
	k, err := kcltest.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.ledger.mu.Lock()
	w.ledger.three = w.ledger.three || cfg.Generation == kcltest.KCL3
	w.ledger.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	r := &kclWorker{Worker: k, id: id, cancel: cancel, done: make(chan struct{})}
	w.ledger.tell("%s (KCL) starts", id)
	go func() {
		defer close(r.done)
		k.Run(ctx)
	}()
	w.kcl = append(w.kcl, r)
	return r
}

func (k *kclWorker) kill() {
	k.cancel()
	<-k.done
}

// end stops everything, and holds what is left to I11.
func (w *model) end() {
	for _, k := range w.all() {
		k.end()
	}
	for _, k := range w.kcl {
		k.kill()
	}
	tables, err := w.db.API().ListTables(context.Background(), &dynamodb.ListTablesInput{})
	if err != nil || strings.Join(tables.TableNames, " ") != modelTable {
		w.t.Errorf("I11: tables: %v, %v", tables.TableNames, err)
	}
	if w.t.Failed() || *modelAlways {
		most := 200
		if *modelSeed != 0 || w.ledger.told > 0 {
			most = 1 << 30
		}
		w.t.Logf("the story of seed %d (repeat with -model.seed=%d):\n%s", w.seed, w.seed, w.ledger.story(most))
	}
}

// settles waits until every record is delivered and every open shard has exactly one owner, who is alive.
func (w *model) settles(within time.Duration) {
	w.t.Helper()
	began := w.clock()
	for {
		why := w.unsettled()
		if why == "" {
			return
		}
		if w.clock()-began > within {
			w.t.Errorf("%s after the trouble: %s", within, why)
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func (w *model) unsettled() string {
	if missing := w.ledger.undelivered(); len(missing) > 0 {
		key, _, _ := strings.Cut(missing[0], "/")
		return fmt.Sprintf("%d records are not delivered, %s the first: %s", len(missing), missing[0], line(w.ledger.leases()[key]))
	}
	leases := w.ledger.leases()
	for _, s := range w.stream.Shards() {
		l, has := leases[s.ID]
		if s.Closed {
			if has && !l.Ended() {
				return fmt.Sprintf("the closed shard is not ended: %s", line(l))
			}
			continue
		}
		owners := 0
		for _, k := range w.all() {
			if k.ctx.Err() == nil && !k.dead.Load() && k.believes(s.ID) {
				owners++
			}
		}
		for _, k := range w.kcl {
			select {
			case <-k.done:
			default:
				if k.Holds(s.ID) {
					owners++
				}
			}
		}
		if owners != 1 {
			return fmt.Sprintf("%d workers believe in %s: %s", owners, s.ID, line(l))
		}
	}
	return ""
}

// shares waits until every living worker has its fair share of the open shards, within one.
func (w *model) shares(within time.Duration) {
	w.t.Helper()
	for began := w.clock(); ; time.Sleep(500 * time.Millisecond) {
		least, most := 1<<30, 0
		for _, k := range w.all() {
			if k.ctx.Err() == nil {
				n := k.holds()
				least, most = min(least, n), max(most, n)
			}
		}
		if most-least <= 1 && w.unsettled() == "" {
			return
		}
		if w.clock()-began > within {
			w.t.Errorf("after %s one worker has %d leases and another %d", within, least, most)
			return
		}
	}
}

// quiets waits until no lease changes hands any more. KCL steals one lease per round until it has its share; who would take it back
// would start a wave that never ends.
func (w *model) quiets(within, quiet time.Duration) {
	w.t.Helper()
	moves := func() int {
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		return w.ledger.moves
	}
	began, last, since := w.clock(), moves(), w.clock()
	for w.clock()-since < quiet {
		time.Sleep(time.Second)
		if n := moves(); n != last {
			last, since = n, w.clock()
		}
		if w.clock()-began > within {
			w.t.Errorf("leases still change hands %s after the trouble", within)
			return
		}
	}
}

// steal does to a lease what a KCL 2.x worker does that wants it, and never renews it.
func (w *model) steal(key, thief string) {
	m := w.db.Item(modelTable, itemKey(key))
	if m == nil {
		return
	}
	l, err := lease.Decode(m)
	if err != nil {
		w.t.Errorf("stealing %s: %v", key, err)
		return
	}
	_, err = w.db.Direct(nil).UpdateItem(context.Background(), &dynamodb.UpdateItemInput{
		TableName: aws.String(modelTable), Key: itemKey(key), UpdateExpression: aws.String("SET leaseOwner = :me, leaseCounter = :next"),
		ConditionExpression: aws.String("leaseCounter = :n"), ExpressionAttributeValues: item{":me": text(thief), ":n": number(l.Counter), ":next": number(l.Counter + 1)},
	})
	if err != nil {
		w.t.Errorf("stealing %s: %v", key, err)
	}
	w.ledger.kclTook(key, l.Counter+1, true)
}

// remove deletes a lease behind everybody's back, and recreate makes it anew, with a counter of 0, where it was.
func (w *model) remove(key string) {
	w.db.DeleteItem(modelTable, itemKey(key))
}

// removable are the leases that somebody may delete by hand without a reordering: none any more when shards have children, which would
// take a deleted parent's lease for one that was cleaned up.
func (w *model) removable() (keys []string) {
	for _, s := range w.listed() {
		if len(s.Parents) > 0 {
			return nil
		}
		keys = append(keys, s.ID)
	}
	return keys
}

func (w *model) recreate(key string) {
	w.ledger.mu.Lock()
	at := w.ledger.shardOf(key).storedTo
	w.ledger.mu.Unlock()
	for _, s := range w.listed() {
		if s.ID == key {
			if _, _, err := lease.NewTable(w.db.Direct(nil), modelTable).Create(context.Background(), lease.Lease{
				Key: key, Checkpoint: at, Parents: s.Parents, StartingHashKey: s.StartingHashKey, EndingHashKey: s.EndingHashKey,
			}); err != nil {
				w.t.Errorf("making %s anew: %v", key, err)
			}
		}
	}
}

// Random schedules of workers of ours and of KCL, with every kind of trouble, keep the invariants; and when the trouble is over, every
// record is delivered and every hash point has one owner.
func TestModel(t *testing.T) {
	if *modelSeed != 0 {
		synctest.Test(t, func(t *testing.T) { story(t, *modelSeed) })
		return
	}
	stories := *modelStories
	if testing.Short() {
		stories = min(stories, 100)
	}
	base, began := rand.Uint64(), time.Now()
	processors := runtime.GOMAXPROCS(0)
	var tally tally
	t.Run("stories", func(t *testing.T) {
		for p := range processors {
			t.Run(fmt.Sprint(p), func(t *testing.T) {
				t.Parallel()
				for i := p; i < stories && !t.Failed() && (*modelTime == 0 || time.Since(began) < *modelTime); i += processors {
					seed := base + uint64(i)
					synctest.Test(t, func(t *testing.T) { tally.add(story(t, seed)) })
				}
			})
		}
	})
	t.Logf("%+v", tally.total)
	// A model that tries nothing any more must not pass.
	if n := tally.total; !t.Failed() && (n.runs < 4*n.stories || n.stories >= 100 && (n.gives == 0 || n.steals == 0 || n.numbers == 0)) {
		t.Errorf("too little happens in the stories: %+v", n)
	}
}

// tally counts what happened in all stories, so that a model that no longer tries anything is noticed.
type tally struct {
	mu    sync.Mutex
	total struct {
		stories, runs, gives, steals, thefts, numbers, writes int
		simulated                                             time.Duration
	}
}

func (t *tally) add(w *model) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total.stories++
	t.total.runs += len(w.ledger.runs)
	t.total.gives += w.ledger.gives
	t.total.steals += w.ledger.steals
	t.total.thefts += w.ledger.thefts
	t.total.numbers += w.ledger.numbers
	t.total.writes += w.db.Counts()["UpdateItem"].Requests
	t.total.simulated += w.clock()
}

func story(t *testing.T, seed uint64) *model {
	r := rand.New(rand.NewPCG(seed, 1))
	w := newModel(t, seed, 1+r.IntN(4))
	defer w.end()
	w.wild, w.slow, w.numbered = r.IntN(2) == 0, r.IntN(3) == 0, r.IntN(2) == 0
	kclToo := r.IntN(3) == 0
	three := !kclToo && r.IntN(6) == 0 // KCL 3.x comes later
	failovers := []time.Duration{3 * time.Second, 4 * time.Second, 6 * time.Second}
	same := failovers[r.IntN(2)]
	n, limited := 0, false
	start := func() *ours {
		n++
		f := failovers[r.IntN(len(failovers))]
		if kclToo || three { // KCL does not know of other workers' failover times; the docs demand equal ones
			f = same
		}
		return w.start(fmt.Sprintf("w%d", n), f, func(c *lease.Config) {
			if r.IntN(3) == 0 {
				c.CheckpointInterval = time.Second
			}
			if r.IntN(5) == 0 {
				limited = true
				c.MaxLeases = 1 + r.IntN(3)
			}
		})
	}
	living := []*ours{start()}
	for range r.IntN(3) {
		living = append(living, start())
	}
	var kcl *kclWorker
	if kclToo && r.IntN(2) == 0 {
		kcl = w.startKCL("K0", same)
	}
	put := func() {
		for _, s := range w.stream.Shards() {
			w.stream.Put(s.ID, r.IntN(6))
		}
	}
	for range 4 + r.IntN(5) {
		w.trouble.Store([]int64{0, 0, 50, 200, 600, 950}[r.IntN(6)])
		put()
		i := r.IntN(len(living))
		switch r.IntN(15) {
		case 0:
			living[i].kill()
			living[i] = start()
		case 1:
			living[i].stop()
			living[i] = start()
		case 2:
			if len(living) < 4 {
				living = append(living, start())
			}
		case 3:
			if len(living) > 1 {
				living[i].kill()
				living = append(living[:i], living[i+1:]...)
			}
		case 4:
			w.ledger.tell("%s is suspended", living[i].id)
			living[i].machine.suspend()
		case 5:
			w.db.SetReadLag(time.Duration(r.IntN(8000)) * time.Millisecond)
		case 6:
			w.ledger.tell("DynamoDB is away")
			w.db.Stop()
		case 7:
			shards := w.stream.Shards()
			w.stream.Split(shards[r.IntN(len(shards))].ID)
		case 8:
			shards := w.stream.Shards()
			w.stream.Merge(shards[r.IntN(len(shards))].ID)
		case 9:
			// The host of all workers is suspended; DynamoDB goes on. (KCL's clock stands still in a suspended machine.)
			if !kclToo && !three {
				w.slept.Add(int64(r.IntN(10)) * int64(time.Second))
				w.ledger.tell("the host was suspended")
			}
		case 14:
			// By hand, and soon made anew where it was.
			if !kclToo && !three {
				if keys := w.removable(); len(keys) > 0 {
					key := keys[r.IntN(len(keys))]
					w.remove(key)
					time.Sleep(time.Duration(r.IntN(2500)) * time.Millisecond)
					w.recreate(key)
				}
			}
		case 12, 13:
			living[i].letGo(r.IntN(8), time.Duration(1+r.IntN(4000))*time.Millisecond)
		case 10, 11:
			switch {
			case three && kcl == nil:
				kcl = w.startKCL("K3", same, func(c *kcltest.Config) { c.Generation, c.Shards = kcltest.KCL3, nil })
			case !kclToo:
			case kcl == nil:
				n++
				kcl = w.startKCL(fmt.Sprintf("K%d", n), same)
			default:
				kcl.kill()
				kcl = nil
			}
		}
		if three && kcl != nil {
			for key, l := range w.ledger.leases() {
				if l.IsOurs() && !l.Ended() && r.IntN(3) == 0 {
					w.announce(key, l.Owner, "K3")
				}
			}
		}
		for range 1 + r.IntN(12) { // records come all the time: somebody has something to send whenever he should not
			time.Sleep(450 * time.Millisecond)
			w.putAll(1)
		}
		for _, k := range living {
			k.machine.wake()
		}
		w.db.Restart()
		if r.IntN(2) == 0 {
			w.db.SetReadLag(0)
		}
	}
	w.trouble.Store(0)
	w.calm.Store(true)
	w.db.SetReadLag(0)
	put()
	w.ledger.tell("the trouble is over")
	// Those that are left may all have a maximum.
	w.start("last", same)
	within := 2 * time.Minute
	if three { // its leader's lock alone outlives two minutes
		within = 6 * time.Minute
	}
	w.settles(within)
	switch r.IntN(6) {
	case 0:
		if !kclToo && !three && !limited {
			w.shares(time.Minute)
		}
	case 1:
		w.quiets(2*time.Minute, 30*time.Second)
	}
	return w
}

type item = map[string]types.AttributeValue

func itemKey(key string) item { return item{"leaseKey": text(key)} }

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}
