package lease

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

var (
	chaosSeed = flag.Uint64("lease.seed", 0, "run the property test with this seed only")
	chaosRuns = flag.Int("lease.runs", 1, "number of runs of the property test")
)

// What TestModel shows for thousands of stories holds through the real SDK too, with its repeats and time-outs:
// two workers never both believe in a lease, whatever is delayed, lost, refused, done late or seen too late, and however
// workers die, sleep and have unequal patience; checkpoints and counters never fall (world.check); and when the trouble
// is over, every lease is kept by somebody.
func TestNeverTwoOwnersWhoBothBelieve(t *testing.T) {
	if *chaosSeed != 0 {
		synctest.Test(t, func(t *testing.T) { chaos(t, *chaosSeed) })
		return
	}
	for range *chaosRuns {
		seed := rand.Uint64()
		synctest.Test(t, func(t *testing.T) { chaos(t, seed) })
		if t.Failed() {
			return
		}
	}
}

func chaos(t *testing.T, seed uint64) {
	defer func() {
		if t.Failed() {
			t.Logf("repeat with -lease.seed=%d", seed)
		}
	}()
	random := &lockedRandom{r: rand.New(rand.NewPCG(seed, 0))}
	w := newWorld(t)
	const leases = 3
	keys := make([]string, leases)
	for i := range keys {
		keys[i] = fmt.Sprintf("shardId-%012d", i)
		w.lease(keys[i], at("1"))
	}

	kinds := []dynamotest.Kind{
		dynamotest.Throttle, dynamotest.InternalError, dynamotest.AppliedInternalError, dynamotest.Delay, dynamotest.LateWrite,
		dynamotest.SlowAnswer, dynamotest.Hang, dynamotest.HangAnswer, dynamotest.LoseAnswer, dynamotest.LoseRequest,
	}
	trouble := 0.0
	w.db.OnRequest(func(dynamotest.Request) *dynamotest.Fault {
		random.mu.Lock()
		defer random.mu.Unlock()
		if random.r.Float64() >= trouble {
			return nil
		}
		f := &dynamotest.Fault{Kind: kinds[random.r.IntN(len(kinds))]}
		switch f.Kind {
		case dynamotest.Delay, dynamotest.LateWrite, dynamotest.SlowAnswer:
			f.Delay = time.Duration(random.r.Int64N(int64(25 * sec)))
		}
		return f
	})
	setTrouble := func(p float64) {
		random.mu.Lock()
		defer random.mu.Unlock()
		trouble = p
	}

	failovers := []time.Duration{3 * sec, 5 * sec, 10 * sec}
	n := 0
	start := func() *worker {
		n++
		f := failovers[random.intN(len(failovers))]
		return w.worker(fmt.Sprintf("w%d", n), func(c *Config) {
			c.Failover, c.Random = f, random.float64
			if random.intN(2) == 0 {
				c.CheckpointInterval = sec
			}
		}).run()
	}
	workers := []*worker{start(), start(), start()}
	for step := range 25 {
		setTrouble([]float64{0, 0.1, 0.4, 0.9}[random.intN(4)])
		switch random.intN(6) {
		case 0: // a crash
			i := random.intN(len(workers))
			workers[i].kill()
			workers[i] = start()
		case 1: // The host of all of them is suspended. (One clock that jumps alone would be one that runs too fast.)
			w.slept.Add(int64(random.intN(20)) * int64(sec))
		case 2:
			w.db.Stop()
		case 3:
			w.db.SetReadLag(time.Duration(random.intN(15)) * sec)
		case 4: // an orderly release
			k := workers[random.intN(len(workers))]
			if h := k.held(keys[random.intN(leases)]); h != nil {
				go func() { _ = h.Release(t.Context()) }()
			}
		}
		for range 4 {
			for _, k := range workers {
				for _, key := range keys {
					if h := k.held(key); h != nil {
						h.Confirmed(at(fmt.Sprint(100+step)), 0)
					}
				}
			}
			time.Sleep(time.Duration(random.intN(4000)) * time.Millisecond)
		}
		w.db.Restart()
	}

	setTrouble(0)
	w.db.SetReadLag(0)
	time.Sleep(60 * sec) // late writes arrive, everybody's patience ends
	for _, key := range keys {
		owners := 0
		for _, k := range workers {
			if k.held(key) != nil {
				owners++
			}
		}
		if owners != 1 {
			t.Errorf("%d workers believe in %s after the trouble: %+v", owners, key, w.read(key))
		}
	}
	if runs := len(w.mu.runs); runs < 2*leases {
		t.Errorf("only %d runs: the trouble troubles nobody", runs)
	}
	for _, k := range workers {
		k.kill()
	}
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
