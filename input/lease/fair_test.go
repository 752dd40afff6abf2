package lease

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

var fleetSize = flag.Int("lease.fleet", 8, "most workers of a simulated fleet; ten times as many leases. 100 takes minutes")

func TestSharesAreEqualWithinOneAndStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		workers := make([]string, rapid.IntRange(1, 30).Draw(t, "workers"))
		holds, most := map[string]int{}, map[string]int{}
		total := rapid.IntRange(0, 50).Draw(t, "free")
		for i := range workers {
			workers[i] = fmt.Sprint("w", i)
			holds[workers[i]] = rapid.IntRange(0, 40).Draw(t, "holds")
			total += holds[workers[i]]
			if rapid.IntRange(0, 3).Draw(t, "limited") == 0 {
				most[workers[i]] = rapid.IntRange(0, 20).Draw(t, "most")
			}
		}
		share := shares(total, workers, holds, most)
		sum, low, high := 0, -1, -1
		for _, w := range workers {
			sum += share[w]
			if limit, ok := most[w]; ok && share[w] > limit {
				t.Fatalf("%s gets %d of at most %d", w, share[w], limit)
			} else if ok && share[w] == limit {
				continue
			}
			if low < 0 || share[w] < low {
				low = share[w]
			}
			high = max(high, share[w])
		}
		if high-low > 1 {
			t.Fatalf("unequal: %v", share)
		}
		for w, limit := range most {
			if share[w] == limit && low >= 0 && limit > low+1 {
				t.Fatalf("%s is limited to %d and has more than the others: %v", w, limit, share)
			}
		}
		if low >= 0 && sum != total || sum > total {
			t.Fatalf("%d of %d are shared out", sum, total)
		}
		if len(most) == 0 && !maps.Equal(shares(total, workers, share, most), share) {
			t.Fatal("who has its share must keep it")
		}
	})
}

// Workers take what falls to them at different moments. Whatever was taken already, the rest must fall to the same.
func TestTakingWhatFellToOneChangesNothingForTheOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var workers, free []string
		holds := map[string]int{}
		for i := range rapid.IntRange(1, 12).Draw(t, "workers") {
			w := fmt.Sprint("w", i)
			workers = append(workers, w)
			holds[w] = rapid.IntRange(0, 6).Draw(t, "holds")
		}
		total := 0
		for _, w := range workers {
			total += holds[w]
		}
		for i := range rapid.IntRange(1, 40).Draw(t, "free") {
			free = append(free, fmt.Sprintf("shardId-%012d", i))
		}
		share := shares(total+len(free), workers, holds, nil)
		first := deal(free, workers, share, holds)
		if len(first) != len(free) {
			t.Fatalf("%d of %d leases are dealt out", len(first), len(free))
		}
		rest := free
		for len(rest) > 0 {
			i := rapid.IntRange(0, len(rest)-1).Draw(t, "taken")
			holds[first[rest[i]]]++
			rest = slices.Delete(slices.Clone(rest), i, i+1)
			again := deal(rest, workers, share, holds)
			for _, key := range rest {
				if again[key] != first[key] {
					t.Fatalf("%s fell to %s and now falls to %s", key, first[key], again[key])
				}
			}
		}
	})
}

// settle runs rounds until the fleet is fair, and returns how many it took.
func (s *simulation) settle(most int) (rounds int, fair bool) {
	for rounds = range most + 1 {
		if s.unowned() == 0 && s.spread() <= 1 {
			return rounds, true
		}
		s.round()
	}
	return most, s.unowned() == 0 && s.spread() <= 1
}

// fataler is what tests and property tests have in common.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// mustRest runs rounds and fails if anything changes hands, or is only asked for.
func (s *simulation) mustRest(t fataler, rounds int) {
	t.Helper()
	moves, asks, failed := s.moves(), s.asks, s.failed
	for range rounds {
		s.round()
	}
	if s.moves() != moves || s.asks != asks || s.failed != failed {
		t.Fatalf("no rest: %d moves, %d asks, %d failed writes in %d rounds of a fair fleet", s.moves()-moves, s.asks-asks, s.failed-failed, rounds)
	}
}

func drawFleet(t *rapid.T) (s *simulation, workers int) {
	s = newSimulation(rapid.Uint64().Draw(t, "seed"), 9*sec)
	s.stale = rapid.SampledFrom([]float64{0, 0.2}).Draw(t, "stale")
	workers = rapid.IntRange(1, *fleetSize).Draw(t, "workers")
	s.addLeases(rapid.IntRange(1, 10**fleetSize).Draw(t, "leases"))
	return s, workers
}

// coldRounds is how many scan rounds a fleet has from cold to fair shares, and coldVain how many takes and asks each of
// its workers may send in vain meanwhile, besides those that two have under way when they first meet.
const (
	coldRounds = 3
	coldVain   = 12
)

// fromCold starts a fleet and returns in how many rounds it is fair. It fails when that is one more than coldRounds at least, or
// when too much was in vain.
func (s *simulation) fromCold(t fataler, workers, leases int) (rounds int) {
	t.Helper()
	s.addLeases(leases)
	s.addWorkers(workers)
	rounds, fair := s.settle(coldRounds + 1)
	if !fair {
		t.Fatalf("%d workers with %d leases: %v after %d rounds, %d without an owner", workers, leases, s.holdings(), rounds, s.unowned())
	}
	if s.failed > coldVain*workers+2*parallelTakes {
		t.Fatalf("%d workers with %d leases: %d takes and asks in vain", workers, leases, s.failed)
	}
	return rounds
}

// From cold: nobody knows of anybody, and all start at once.
func TestFromColdToFairSharesInThreeRounds(t *testing.T) {
	for seed := range uint64(300) {
		s := newSimulation(seed, 9*sec)
		leases := 1 + s.r.IntN(10**fleetSize)
		if rounds := s.fromCold(t, 1+s.r.IntN(*fleetSize), leases); rounds > coldRounds && *fleetSize <= 8 {
			t.Errorf("seed %d: %d rounds for %d workers with %d leases", seed, rounds, len(s.workers), leases)
		}
		if seed%20 == 0 {
			for range 3 { // asks that are still under way
				s.round()
			}
			s.mustRest(t, 9)
		}
	}
}

// The hardest shapes are those with about as many leases as workers, or twice as many: after the first takes a third of the workers
// has none, and nobody sees those. A fourth round is rare: everybody thinks that another one asks, until a refusal or a scan
// tells that it does not.
func TestFromColdToFairSharesInThreeRoundsWhereWorkersAreMany(t *testing.T) {
	shapes := []struct{ workers, leases, seeds int }{
		{16, 33, 5}, {30, 40, 5}, {40, 41, 3}, {40, 80, 3}, {40, 39, 2}, {100, 101, 1},
	}
	late, fleets := 0, 0
	if *fleetSize >= 100 {
		shapes = shapes[:0]
		for _, leases := range []int{30, 50, 99, 100, 101, 120, 150, 200, 250, 300, 500, 1000} {
			shapes = append(shapes, struct{ workers, leases, seeds int }{100, leases, 20})
		}
	}
	for _, c := range shapes {
		for seed := range uint64(c.seeds) {
			fleets++
			if newSimulation(seed, 9*sec).fromCold(t, c.workers, c.leases) > coldRounds {
				late++
				t.Logf("%d workers with %d leases, seed %d: a fourth round", c.workers, c.leases, seed)
			}
		}
	}
	if late > fleets/20 {
		t.Errorf("%d of %d fleets took a fourth round", late, fleets)
	}
}

// A newcomer, a crash and an orderly stop, in a fleet of any size and with scans that are a round old: fair again soon,
// at not many more moves than needed, and then at rest.
func TestEveryChangeOfTheFleetEndsInFairSharesAndRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, workers := drawFleet(t)
		s.addWorkers(workers)
		if _, fair := s.settle(12); !fair {
			t.Fatalf("cold: %v", s.holdings())
		}
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			moves := s.moves()
			needed := 0
			switch alive := s.alive(); rapid.SampledFrom([]string{"newcomers", "crash", "stop", "split"}).Draw(t, "change") {
			case "newcomers":
				n := rapid.IntRange(1, 3).Draw(t, "newcomers")
				s.addWorkers(n)
				needed = n * (len(s.table)/len(s.alive()) + 1)
			case "crash":
				if len(alive) > 1 {
					needed = s.holdings()[alive[0].name] + 1
					s.kill(alive[0])
				}
			case "stop":
				if len(alive) > 1 {
					needed = s.holdings()[alive[0].name] + 1
					s.release(alive[0])
				}
			case "split":
				needed = s.split(3)
			}
			if rounds, fair := s.settle(14); !fair {
				t.Fatalf("%v after %d rounds, %d without a live owner", s.holdings(), rounds, s.unowned())
			}
			if moved := s.moves() - moves; moved > 2*needed+len(s.alive()) {
				t.Fatalf("%d moves, where about %d were needed", moved, needed)
			}
		}
		for range 8 { // refused asks have their time, and who is content must have been seen to be
			s.round()
		}
		s.mustRest(t, 9)
	})
}

// split ends some shards and begins their children, as a reader at the end of a shard does. It returns how many leases
// may have to move.
func (s *simulation) split(n int) int {
	made := 0
	for _, key := range slices.Sorted(maps.Keys(s.table)) {
		l := s.table[key]
		if l.Ended() || l.Owner == "" || made == n {
			continue
		}
		made++
		s.addLeases(2, func(child *Lease) { child.Parents = []string{key}; child.Checkpoint = at(checkpoint.TrimHorizon) })
		owner := slices.IndexFunc(s.workers, func(w *simulated) bool { return w.name == l.Owner })
		delete(s.workers[owner].busy, key)
		l.Checkpoint, l.Owner, l.Ask = at(checkpoint.ShardEnd), "", ""
		l.Counter++
		s.table[key] = l
		s.workers[owner].known[key] = corrected(l, s.now)
	}
	return 4 * made
}

// All leases of a dead worker expire within one scan period, and go to the living in equal parts at once: nothing is
// tried twice, nothing has to be asked for afterwards.
func TestTheLeasesOfADeadWorkerAreSharedOutAtOnce(t *testing.T) {
	for seed := range uint64(20) {
		s := newSimulation(seed, 9*sec)
		s.addLeases(120)
		s.addWorkers(5)
		s.settle(6)
		for range 8 {
			s.round()
		}
		asks, failed := s.asks, s.failed
		s.kill(s.workers[2])
		rounds, fair := s.settle(5) // F after the last renewal, and one round for each of its ends
		if !fair || s.asks != asks || s.failed != failed {
			t.Errorf("seed %d: %v after %d rounds, %d asks, %d failed takes", seed, s.holdings(), rounds, s.asks-asks, s.failed-failed)
		}
	}
}

// What a worker that is full leaves of its part is shared equally by the others, and what none may take is told.
func TestUnequalMaximaAreHonouredAndWhatIsLeftIsTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSimulation(rapid.Uint64().Draw(t, "seed"), 9*sec)
		leases := rapid.IntRange(1, 60).Draw(t, "leases")
		s.addLeases(leases)
		room, limited, names := 0, true, []string{}
		most := map[string]int{}
		for range rapid.IntRange(1, 6).Draw(t, "workers") {
			n := rapid.IntRange(0, 12).Draw(t, "max") // 0 = any number
			s.addWorkers(1, func(w *simulated) { w.max = n })
			w := s.workers[len(s.workers)-1]
			names = append(names, w.name)
			if n == 0 {
				limited = false
			} else {
				most[w.name] = n
			}
			room += n
		}
		for range 30 {
			s.round()
		}
		left := 0
		if limited {
			left = max(0, leases-room)
		}
		h := s.holdings()
		want := shares(leases-left, names, h, most)
		for w, n := range h {
			if d := n - want[w]; d < -1 || d > 1 || most[w] > 0 && n > most[w] {
				t.Fatalf("%s has %d, want %d: %v of %d leases, limits %v", w, n, want[w], h, leases, most)
			}
		}
		if s.unowned() != left {
			t.Fatalf("%d leases have no owner, want %d: %v, limits %v", s.unowned(), left, h, most)
		}
		for _, w := range s.workers {
			if d := makePlan(w.known, w.view()); d.leftover != left {
				t.Fatalf("%s tells of %d leftover leases, want %d", w.name, d.leftover, left)
			}
		}
		s.mustRest(t, 5)
	})
}

// In a fleet of more than 48 workers there is less than one scan per failover time. Time alone then tells nothing of an
// owner: a scan must have shown that it does not renew.
func TestRareScansTakeNobodyForDead(t *testing.T) {
	const failover = 10 * sec
	v := view{worker: "A", stream: testStream, failover: failover, busy: map[string]bool{}, isOwn: func(Lease) bool { return false },
		mayTake: func(Lease) bool { return true }}
	l := Lease{Key: shard0, Owner: "B", Acquisition: "B#1", Counter: 5, Checkpoint: at("1"), Stream: testStream}
	known := observe(nil, []Lease{l}, failover, 100*sec)
	v.now = 119 * sec
	if d := makePlan(known, v); len(d.take) > 0 || d.workers != 2 {
		t.Errorf("before a second scan: %+v", d)
	}
	// A scan right after the first one can be too early for the renewal.
	known = observe(known, []Lease{l}, failover, 103*sec)
	if d := makePlan(known, v); len(d.take) > 0 || d.workers != 2 {
		t.Errorf("after a scan that was too early: %+v", d)
	}
	known = observe(known, []Lease{l}, failover, 120*sec)
	v.now = 120 * sec
	if d := makePlan(known, v); len(d.take) != 1 || d.workers != 1 {
		t.Errorf("after a scan that shows it unmoved: %+v", d)
	}
}
