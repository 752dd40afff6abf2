package input

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// arrival is a record that a worker was handed.
type arrival struct {
	worker string
	key    string
	number int
	at     time.Time
}

// account is what all workers were handed, in the order in which they were. Records of a key are numbered from 1.
type account struct {
	w *world

	mu       sync.Mutex
	arrivals []arrival      // guarded by mu
	put      map[string]int // the last number of each key; guarded by mu
}

func newAccount(w *world) *account { return &account{w: w, put: map[string]int{}} }

// produce puts a record of each key in turn, until it is told to stop.
func (a *account) produce(keys int, every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
			key := "key-" + strconv.Itoa(i%keys)
			a.mu.Lock()
			a.put[key]++
			n := a.put[key]
			a.mu.Unlock()
			if _, err := a.w.kinesis.Put("stream", key, []byte(strconv.Itoa(n))); err != nil {
				a.w.t.Error(err)
			}
		}
	})
	stop = func() { cancel(); wg.Wait() }
	a.w.t.Cleanup(stop)
	return stop
}

// consume has an input deliver what it gets, each batch after a while.
func (a *account) consume(worker string, in *input, delivery time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			batch, ack, err := in.ReadBatch(ctx)
			if err != nil {
				return
			}
			a.mu.Lock()
			for _, m := range batch {
				b, _ := m.AsBytes()
				n, _ := strconv.Atoi(string(b))
				key, _ := m.MetaGet("pulsar_key")
				if !strings.HasPrefix(key, "key-") {
					continue // not of the account
				}
				a.arrivals = append(a.arrivals, arrival{worker, key, n, time.Now()})
			}
			a.mu.Unlock()
			wg.Go(func() {
				time.Sleep(delivery)
				_ = ack(context.Background(), nil)
			})
		}
	})
	stop = func() { cancel(); wg.Wait() }
	a.w.t.Cleanup(stop)
	return stop
}

func (a *account) complete() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	wanted := 0
	for _, n := range a.put {
		wanted += n
	}
	return len(a.arrivals) >= wanted
}

// arrived tells whether a worker was handed anything.
func (a *account) arrived(worker string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.arrivals, func(r arrival) bool { return r.worker == worker })
}

// once fails the test unless every record has come once, those of each key in order, whichever worker got them. It returns
// the longest time that a key stood still while it changed workers.
func (a *account) once() (gap time.Duration, changes int) {
	a.w.t.Helper()
	a.w.eventually("all records", a.complete)
	time.Sleep(300 * time.Millisecond) // a copy would come now
	a.mu.Lock()
	defer a.mu.Unlock()
	last := map[string]arrival{}
	for _, r := range a.arrivals {
		before := last[r.key]
		if r.number != before.number+1 {
			a.w.t.Fatalf("%s got %d of %s behind %d, which %s got", r.worker, r.number, r.key, before.number, before.worker)
		}
		if before.worker != "" && before.worker != r.worker {
			changes++
			gap = max(gap, r.at.Sub(before.at))
		}
		last[r.key] = r
	}
	for key, n := range a.put {
		if last[key].number != n {
			a.w.t.Fatalf("%d of %d records of %s have come", last[key].number, n, key)
		}
	}
	return gap, changes
}

// owned are the workers' numbers of leases, in order.
func (w *world) owned() (numbers []int) {
	owners := map[string]int{}
	for _, l := range w.kinesis.Shards("stream") {
		if owner := w.lease(l.ID, "leaseOwner"); owner != "" {
			owners[owner]++
		}
	}
	for _, n := range owners {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers
}

// P8: a newcomer is given its share without a copy and almost without a gap.
func TestP8ANewcomerIsGivenItsShareWithoutACopy(t *testing.T) {
	t.Parallel()
	for name, fanOut := range map[string]bool{"polling": false, "fan-out": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// With Kinesis' own times: a subscription can be taken over after five seconds.
			w := newWorld(t, 4, kinesistest.WithSubscriptionTimes(kinesistest.SubscriptionTimes{Heartbeat: 200 * time.Millisecond}))
			w.fanOut = fanOut
			w.failover = 9 * time.Second // a lease that a busy machine loses brings copies
			a := newAccount(w)
			stop := a.produce(40, 2*time.Millisecond)
			first := w.connected()
			stopFirst := a.consume("first", first, 10*time.Millisecond)
			w.eventually("the first has all", func() bool { return fmt.Sprint(w.owned()) == "[4]" })
			second := w.connected()
			a.consume("second", second, 10*time.Millisecond)
			w.eventually("each has two", func() bool { return fmt.Sprint(w.owned()) == "[2 2]" })
			w.eventually("the second gets records", func() bool { return a.arrived("second") })
			time.Sleep(time.Second)
			stop()
			gap, changes := a.once()
			if changes == 0 {
				t.Error("no key has changed workers")
			}
			t.Logf("the longest gap of %d keys that changed workers was %s", changes, gap.Round(time.Millisecond))
			// And back, by a stop.
			stop = a.produce(40, 2*time.Millisecond)
			time.Sleep(500 * time.Millisecond)
			stopFirst() // as the engine does: what was handed out is delivered, then it closes
			if err := first.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			w.eventually("the second has all", func() bool { return fmt.Sprint(w.owned()) == "[4]" })
			time.Sleep(500 * time.Millisecond)
			stop()
			gap, _ = a.once()
			t.Logf("with the stop it was %s", gap.Round(time.Millisecond))
		})
	}
}

// r4.3: a drain that is not done within the failover time is taken back, and nothing is lost or comes twice by it.
func TestR43ADrainThatIsHeldUpIsTakenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	a := newAccount(w)
	first := w.connected()
	w.eventually("the first has both", func() bool { return fmt.Sprint(w.owned()) == "[2]" })
	// A batch of each shard is away, and does not come back.
	for i := range 20 {
		w.put(fmt.Sprint("other-", i), "away")
	}
	var acks []func()
	for range 2 {
		batch, ack, err := first.ReadBatch(w.ctx())
		if err != nil || len(batch) == 0 {
			t.Fatal(err)
		}
		acks = append(acks, func() { _ = ack(context.Background(), nil) })
	}
	second := w.connected()
	asked := func() (asked bool) {
		for _, l := range w.kinesis.Shards("stream") {
			asked = asked || w.lease(l.ID, "kp_ask") != ""
		}
		return asked
	}
	w.eventually("a lease is asked for", asked)
	w.eventually("the run drains", func() bool { return slices.Contains(slices.Collect(maps.Values(first.standing().blocked)), isDraining) })
	w.eventually("the ask is refused", func() bool {
		return !asked() && !slices.Contains(slices.Collect(maps.Values(first.standing().blocked)), isDraining)
	})
	if got := fmt.Sprint(w.owned()); got != "[2]" {
		t.Fatalf("owned by turns: %s", got)
	}
	for _, ack := range acks {
		ack()
	}
	stop := a.produce(20, 5*time.Millisecond)
	a.consume("first", first, 10*time.Millisecond)
	a.consume("second", second, 10*time.Millisecond)
	w.eventually("each has one", func() bool { return fmt.Sprint(w.owned()) == "[1 1]" })
	time.Sleep(500 * time.Millisecond)
	stop()
	a.once()
}
