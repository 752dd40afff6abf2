package lease

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// drawMixed is a fleet of KCL 2.x workers and of ours. Some leases are at LATEST, some ended.
func drawMixed(t *rapid.T) (s *simulation, ours, kcl int) {
	s = newSimulation(rapid.Uint64().Draw(t, "seed"), 10*sec)
	kcl = rapid.IntRange(1, 4).Draw(t, "KCL's workers")
	ours = rapid.IntRange(1, 4).Draw(t, "our workers")
	s.addLeases(rapid.IntRange(1, 24).Draw(t, "leases"))
	return s, ours, kcl
}

func (s *simulation) rounds(d time.Duration) {
	for end := s.now + d; s.now < end; {
		s.round()
	}
}

// r8.5: beside KCL 2.x we come to the share that its own workers would give us, by thefts no more frequent than theirs, and
// then neither we nor they find anything to do.
func TestBesideKCL2ByItsFormula(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, ours, kcl := drawMixed(t)
		first := rapid.Bool().Draw(t, "KCL comes first")
		if first {
			s.addKCL(kcl)
			s.rounds(2 * time.Minute)
			s.addWorkers(ours)
		} else {
			s.addWorkers(ours)
			s.rounds(2 * time.Minute)
			s.addKCL(kcl)
		}
		ceiling := max(1, (len(s.table)+ours+kcl-1)/(ours+kcl))
		steals := s.steals
		before := s.thefts()
		for range 30 * 7 { // thirty runs of KCL's takers
			held := map[string]int{}
			for _, l := range s.table {
				held[l.Owner]++
			}
			s.round()
			for _, w := range s.workers {
				n := 0
				for _, l := range s.table {
					if l.Owner == w.name {
						n++
					}
				}
				// Who has no lease yet is seen by nobody, e.g. since others were quicker with the leases that it wanted to steal.
				seen := len(held)
				if held[w.name] == 0 {
					seen++
				}
				if share := (len(s.table) + seen - 1) / seen; n > share && n > held[w.name] && first {
					t.Fatalf("%s took more than its share of %d: %v, before %v", w.name, share, s.holdings(), held)
				}
			}
		}
		thefts := s.thefts() - before
		for _, w := range s.workers {
			if n := len(w.thefts); n > 0 {
				for i := 1; i < n; i++ {
					if w.thefts[i]-w.thefts[i-1] < theftPeriod(s.failover) {
						t.Fatalf("%s stole after %s", w.name, w.thefts[i]-w.thefts[i-1])
					}
				}
			}
		}
		for w, n := range s.holdings() {
			// We steal up to the floor only, so KCL's workers may keep some that are above the ceiling.
			if isOurs := slices.ContainsFunc(s.workers, func(x *simulated) bool { return x.name == w }); isOurs && n > ceiling || n < len(s.table)/(ours+kcl) {
				t.Fatalf("%s has %d of %d leases, ceiling %d: %v", w, n, len(s.table), ceiling, s.holdings())
			}
		}
		if moved := s.steals - steals; moved > len(s.table) {
			t.Fatalf("%d thefts, %d by us, for %d leases", moved, thefts, len(s.table))
		}
		moves := s.moves()
		s.rounds(3 * time.Minute)
		if s.moves() != moves {
			t.Fatalf("no rest: %d moves; %v", s.moves()-moves, s.holdings())
		}
	})
}

// r5.5: a lease of KCL's that is still at LATEST is never stolen; and an ended one counts in KCL's formula, and is taken by
// nobody of ours.
func TestLeasesAtLatestAreNotStolenAndEndedOnesCount(t *testing.T) {
	s := newSimulation(1, 10*sec)
	s.addLeases(8, func(l *Lease) { l.Checkpoint = at(checkpoint.Latest) })
	s.addLeases(4, func(l *Lease) { l.Checkpoint = at(checkpoint.ShardEnd) })
	s.addLeases(2)
	s.addKCL(1)
	s.rounds(time.Minute)
	s.addWorkers(1)
	s.rounds(10 * time.Minute)
	if got := s.holdings()[s.workers[0].name]; got != 2 || s.steals != 2 {
		t.Errorf("%d leases, %d thefts; want the two that have digits", got, s.steals)
	}
}

// A KCL worker that dies leaves its leases to all: we take up to KCL's share at once, and what nobody has come for after
// three failover times whatever the share, as KCL does.
func TestADeadKCLWorkerIsReplaced(t *testing.T) {
	for seed := range uint64(10) {
		s := newSimulation(seed, 10*sec)
		s.addLeases(30)
		s.addKCL(3)
		s.rounds(2 * time.Minute)
		s.addWorkers(2)
		s.rounds(8 * time.Minute)
		for _, k := range s.kcl {
			k.dead = true
			s.rounds(2 * time.Minute)
			if s.unowned() != 0 {
				t.Errorf("seed %d: %d leases without an owner: %v", seed, s.unowned(), s.holdings())
			}
		}
		if s.spread() > 1 {
			t.Errorf("seed %d: all of KCL is dead: %v", seed, s.holdings())
		}
	}
}
