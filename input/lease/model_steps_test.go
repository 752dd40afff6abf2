package lease_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

const shard0 = "shardId-000000000000"

// An accident is what happens to one request of a story: to itself, to the lease, or to the worker that sends it.
type accident struct {
	name   string
	happen func(w *model, k *ours) *dynamotest.Fault
}

func faulty(name string, f dynamotest.Fault) accident {
	return accident{name, func(*model, *ours) *dynamotest.Fault { return &f }}
}

var accidents = []accident{
	faulty("throttled", dynamotest.Fault{Kind: dynamotest.Throttle}),
	faulty("refused by a fault of the service", dynamotest.Fault{Kind: dynamotest.InternalError}),
	faulty("done, answered as a fault of the service", dynamotest.Fault{Kind: dynamotest.AppliedInternalError}),
	faulty("done, answer lost", dynamotest.Fault{Kind: dynamotest.LoseAnswer}),
	faulty("done, no answer", dynamotest.Fault{Kind: dynamotest.HangAnswer}),
	faulty("lost", dynamotest.Fault{Kind: dynamotest.LoseRequest}),
	faulty("not done, no answer", dynamotest.Fault{Kind: dynamotest.Hang}),
	faulty("done, answered late", dynamotest.Fault{Kind: dynamotest.SlowAnswer, Delay: 400 * time.Millisecond}),
	faulty("done late, while its author tries again", dynamotest.Fault{Kind: dynamotest.LateWrite, Delay: 700 * time.Millisecond}),
	faulty("done very late", dynamotest.Fault{Kind: dynamotest.LateWrite, Delay: 5 * time.Second}),
	{"stolen by KCL just before", func(w *model, _ *ours) *dynamotest.Fault {
		w.steal(shard0, "K")
		return nil
	}},
	{"stolen by KCL, and done late", func(w *model, _ *ours) *dynamotest.Fault {
		time.AfterFunc(100*time.Millisecond, func() { w.steal(shard0, "K") })
		return &dynamotest.Fault{Kind: dynamotest.LateWrite, Delay: 700 * time.Millisecond}
	}},
	{"the lease is deleted, the write comes late, and a new lease begins at 0", func(w *model, _ *ours) *dynamotest.Fault {
		time.AfterFunc(500*time.Millisecond, func() { w.remove(shard0) })
		time.AfterFunc(3*time.Second, func() { w.recreate(shard0) })
		return &dynamotest.Fault{Kind: dynamotest.LateWrite, Delay: 2 * time.Second}
	}},
	{"the lease is deleted and made anew, and the write comes when the counter is there again", func(w *model, _ *ours) *dynamotest.Fault {
		time.AfterFunc(100*time.Millisecond, func() { w.remove(shard0) })
		time.AfterFunc(200*time.Millisecond, func() { w.recreate(shard0) })
		return &dynamotest.Fault{Kind: dynamotest.LateWrite, Delay: 3100 * time.Millisecond}
	}},
	{"the lease is deleted and made anew just before", func(w *model, _ *ours) *dynamotest.Fault {
		w.remove(shard0)
		w.recreate(shard0)
		return nil
	}},
	{"the machine is suspended", func(w *model, k *ours) *dynamotest.Fault {
		k.machine.suspend()
		time.AfterFunc(5*time.Second, k.machine.wake)
		return &dynamotest.Fault{Kind: dynamotest.Delay, Delay: time.Millisecond} // the request is on its way
	}},
	{"the machine dies, the request is on its way", func(w *model, k *ours) *dynamotest.Fault {
		k.machine.suspend()
		k.dead.Store(true)
		return &dynamotest.Fault{Kind: dynamotest.LateWrite, Delay: time.Millisecond}
	}},
}

// handOver is the story of a lease that A takes, B asks for, and A gives; records come all the time. Some of its requests meet accidents.
func handOver(t *testing.T, meets map[int]accident, failoverOfB time.Duration) (requests int) {
	w := newModel(t, 1, 1)
	defer w.end()
	w.wants = func(id, key string) bool { return id == "B" }
	var n atomic.Int64
	w.meddle = func(k *ours, r dynamotest.Request) *dynamotest.Fault {
		if r.Operation != "UpdateItem" && r.Operation != "GetItem" || w.clock() > 6*time.Second {
			return nil
		}
		a, meets := meets[int(n.Add(1))-1]
		if !meets {
			return nil
		}
		w.ledger.tell("ACCIDENT to a request of %s: %s: %s", k.id, r.Update, a.name)
		return a.happen(w, k)
	}
	w.start("A", 3*time.Second)
	for i := range 12 {
		if i == 2 {
			w.start("B", failoverOfB)
		}
		w.stream.Put(shard0, 2)
		time.Sleep(500 * time.Millisecond)
	}
	if !slices.ContainsFunc(w.all(), func(k *ours) bool { return !k.dead.Load() }) {
		w.start("C", 3*time.Second)
	}
	w.settles(time.Minute)
	if len(meets) == 0 {
		if w.ledger.gives != 1 {
			t.Errorf("%d hand-overs", w.ledger.gives)
		}
		w.ledger.mu.Lock()
		for sequence, copies := range w.ledger.shardOf(shard0).confirmed {
			if copies != 1 {
				t.Errorf("record %s was delivered %d times", sequence, copies)
			}
		}
		w.ledger.mu.Unlock()
	}
	return int(n.Load())
}

// Every accident at every step of TAKE, KEEP, ASK, GIVE and adoption: nothing is handed on twice at a time or in wrong order, nothing
// is lost, no item appears that nobody made, and in the end somebody reads on.
func TestEveryAccidentAtEveryStepOfAHandOver(t *testing.T) {
	for _, failover := range []time.Duration{3 * time.Second, 6 * time.Second} {
		var requests int
		synctest.Test(t, func(t *testing.T) { requests = handOver(t, nil, failover) })
		if requests < 10 || t.Failed() {
			t.Fatalf("%d requests", requests)
		}
		t.Run(fmt.Sprint("failover of the asker ", failover), func(t *testing.T) {
			processors := runtime.GOMAXPROCS(0)
			for p := range processors {
				t.Run(fmt.Sprint(p), func(t *testing.T) {
					t.Parallel()
					for i := p; i < requests*len(accidents) && !t.Failed(); i += processors {
						at, a := i/len(accidents), accidents[i%len(accidents)]
						if testing.Short() && (at+i)%5 != 0 {
							continue
						}
						synctest.Test(t, func(t *testing.T) {
							handOver(t, map[int]accident{at: a}, failover)
							if t.Failed() {
								t.Logf("request %d of %d: %s", at, requests, a.name)
							}
						})
					}
				})
			}
		})
	}
}

// Two accidents in one story, at random: the second often hits what mends the first.
func TestTwoAccidentsInAHandOver(t *testing.T) {
	seed := rand.Uint64()
	pairs := *modelPairs
	if testing.Short() {
		pairs = min(pairs, 50)
	}
	processors := runtime.GOMAXPROCS(0)
	for p := range processors {
		t.Run(fmt.Sprint(p), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, uint64(p)))
			for i := p; i < pairs && !t.Failed(); i += processors {
				a, b := accidents[r.IntN(len(accidents))], accidents[r.IntN(len(accidents))]
				at, then := r.IntN(20), r.IntN(12)
				failover := time.Duration(3+r.IntN(3)) * time.Second
				synctest.Test(t, func(t *testing.T) {
					handOver(t, map[int]accident{at: a, at + 1 + then: b}, failover)
					if t.Failed() {
						t.Logf("failover of the asker %s; request %d: %s; request %d: %s", failover, at, a.name, at+1+then, b.name)
					}
				})
			}
		})
	}
}
