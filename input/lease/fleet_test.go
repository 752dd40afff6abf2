package lease

import (
	"flag"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var fleetCost = flag.Bool("lease.cost", false, "count what fleets of up to 100 workers with 1,000 leases cost; takes minutes")

// holders counts the leases of each live owner, and those that nobody has.
func (w *world) holders(workers []*worker) (held map[string]int, unowned int) {
	held = map[string]int{}
	for _, k := range workers {
		held[k.m.cfg.WorkerID] = 0
	}
	for _, item := range w.db.Items(tableName) {
		l, err := Decode(item)
		if err != nil {
			w.t.Fatal(err)
		}
		if _, ok := held[l.Owner]; ok {
			held[l.Owner]++
		} else {
			unowned++
		}
	}
	return held, unowned
}

// untilFair waits until every lease has a live owner and shares are within one of each other, and returns how long it took.
func (w *world) untilFair(workers []*worker, most time.Duration) time.Duration {
	w.t.Helper()
	start := time.Now()
	for {
		held, unowned := w.holders(workers)
		low, high := math.MaxInt, 0
		for _, n := range held {
			low, high = min(low, n), max(high, n)
		}
		if unowned == 0 && high-low <= 1 {
			return time.Since(start)
		}
		if time.Since(start) > most {
			w.t.Fatalf("not fair after %s: %v, %d without a live owner", most, held, unowned)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (w *world) leases(n int) {
	for i := range n {
		w.lease(fmt.Sprintf("shardId-%012d", i), at("1"))
	}
}

// drainsSlowly lets a drain take as long as a batch at Pulsar does.
func (k *worker) drainsSlowly() *worker {
	k.onDrain(func(h *Held) { time.AfterFunc(200*time.Millisecond, h.Drained) })
	return k
}

// A whole life of a fleet, by real managers: cold start, newcomers, a crash, an orderly stop. A scan round is a third of
// the failover time and 10 %. Who is refused asks again after two failover times, which happens now and then among workers
// that come at the same moment; so a step may take that much longer in one life, and not in most of them: where it does in two of
// three, more lives tell whether that was bad luck.
func TestALifeOfAFleet(t *testing.T) {
	const (
		few      = 3
		many     = 9
		failover = 9 * sec
		round    = failover/3 + failover/30
	)
	type step struct {
		story string
		most  time.Duration
	}
	steps := []step{
		{"cold start", 3 * round},
		{"three newcomers", 3*round + sec},
		{"a dead worker's leases taken and shared out", failover*4/3 + failover/6 + failover/30 + sec/2},
		{"the leases of a worker that stopped shared out", 2*round + sec},
	}
	took := make([][]time.Duration, len(steps))
	median := func(i int) time.Duration { return slices.Sorted(slices.Values(took[i]))[len(took[i])/2] }
	unlucky := func() bool {
		return slices.ContainsFunc(steps, func(s step) bool { return median(slices.Index(steps, s)) > s.most })
	}
	for life, lives := 0, few; life < lives && !t.Failed(); life++ {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.leases(40)
			var workers []*worker
			add := func(n int) {
				for range n {
					workers = append(workers, w.worker(fmt.Sprintf("w%d", len(workers))).drainsSlowly().run())
				}
			}
			take := func(i int) { took[i] = append(took[i], w.untilFair(workers, steps[i].most+2*failover)) }
			add(4)
			take(0)

			time.Sleep(10 * round)
			add(3)
			take(1)

			time.Sleep(10 * round)
			before := w.writes()
			time.Sleep(10 * round)
			if n := w.writes() - before; n > 40*10*11/10+40 {
				t.Errorf("%d writes in ten periods of renewal at rest, with 40 leases", n)
			}
			workers[1].kill()
			workers = append(workers[:1:1], workers[2:]...)
			take(2)

			time.Sleep(10 * round)
			workers[2].close()
			workers = append(workers[:2:2], workers[3:]...)
			take(3)
		})
		if life == few-1 && !t.Failed() && unlucky() {
			lives = many
		}
	}
	for i, s := range steps {
		t.Logf("%s: %s", s.story, took[i])
		if took := median(i); took > s.most {
			t.Errorf("%s: %s in most lives, want %s", s.story, took, s.most)
		}
	}
}

func (w *world) writes() int {
	n := 0
	for operation, c := range w.db.Counts() {
		if operation == "UpdateItem" {
			n += c.Requests
		}
	}
	return n
}

// Up to sixteen workers everybody scans each third of the failover time, so that a dead one is replaced in time (r3.4).
func TestSixteenWorkersReplaceADeadOneInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const failover = 9 * sec
		w := newWorld(t)
		w.leases(48)
		var workers []*worker
		for i := range 16 {
			workers = append(workers, w.worker(fmt.Sprintf("w%d", i)).drainsSlowly().run())
		}
		w.untilFair(workers, time.Minute)
		for i := range 3 {
			time.Sleep(20*sec + time.Duration(i)*700*time.Millisecond)
			died := time.Now()
			workers[0].kill()
			workers = workers[1:]
			w.untilFair(workers, time.Minute)
			if d := time.Since(died); d > failover*4/3+failover/6+failover/30+sec/2 {
				t.Errorf("replaced after %s", d)
			}
		}
	})
}

// What a lease costs per second, in capacity units of DynamoDB, with everything counted: failed conditions and scans too
// (r8.7). A read unit counts as a fifth of a write unit, which is its price. KCL 2.x renews each 3,308 ms by a write; its
// scans and checkpoints come on top of that.
func TestWhatAFleetCosts(t *testing.T) {
	sizes := []int{1, 10}
	if *fleetCost {
		sizes = append(sizes, 100)
	}
	for _, n := range sizes {
		for _, load := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d workers, under load %v", n, load), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const failover, span = 10 * sec, 2 * time.Minute
					w := newWorld(t)
					w.table = NewTable(w.db.Direct(nil), tableName)
					leases := 10 * n
					w.leases(leases)
					var workers []*worker
					for i := range n {
						workers = append(workers, w.worker(fmt.Sprintf("w%d", i), func(c *Config) { c.Failover = failover }).run())
					}
					w.untilFair(workers, 3*time.Minute)
					time.Sleep(time.Minute)
					w.db.ResetCounts()
					for second := range int(span / sec) {
						if load {
							for _, k := range workers {
								k.confirmAll(fmt.Sprint(1000 + second))
							}
						}
						time.Sleep(sec)
					}
					var write, read float64
					for operation, c := range w.db.Counts() {
						switch operation {
						case "Scan", "GetItem":
							read += c.CapacityUnits
						default:
							write += c.CapacityUnits
						}
					}
					per := float64(leases) * span.Seconds()
					renewals := 1 / 3.308
					t.Logf("%d workers, %d leases, load %v: %.4f write and %.4f read units per lease and second; KCL 2.x's renewals %.4f",
						n, leases, load, write/per, read/per, renewals)
					if total := (write + read/5) / per; total > 1.25*renewals {
						t.Errorf("%.4f write units' worth per lease and second, more than 1.25 of KCL 2.x's renewals", total)
					}
					if write/per > 1.02*renewals {
						t.Errorf("more writes than KCL 2.x's renewals")
					}
				})
			})
		}
	}
}

// confirmAll tells all runs that everything up to the sequence number is in Pulsar.
func (k *worker) confirmAll(sequence string) {
	k.mu.Lock()
	runs := append([]*Held(nil), k.mu.runs...)
	k.mu.Unlock()
	for _, h := range runs {
		if h.fence.Open() {
			h.Confirmed(at(sequence), 1)
		}
	}
}
