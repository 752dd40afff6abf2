package lease

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// of is a lease of a worker of ours.
func of(worker string, n int) Lease {
	return Lease{Key: fmt.Sprintf("shardId-%012d", n), Owner: worker, Acquisition: worker + "#1", Counter: 10, Checkpoint: at("1"), Stream: testStream}
}

func planOf(worker string, now time.Duration) view {
	return view{worker: worker, stream: testStream, failover: 9 * sec, now: now, busy: map[string]bool{}, stoleAt: now,
		isOwn: func(Lease) bool { return false }, mayTake: func(Lease) bool { return true }}
}

// A newcomer asks for its whole share, and only for leases that can be given and are work.
func TestWhatIsAskedFor(t *testing.T) {
	edits := []struct {
		story string
		edit  func(*Lease)
		may   bool
	}{
		{"a lease of ours", func(*Lease) {}, true},
		{"an ask that grew old", func(l *Lease) { l.Ask, l.AskAt = "C", 3 }, true},
		{"another asks already", func(l *Lease) { l.Ask, l.AskAt = "C", 9 }, false},
		{"its shard has ended", func(l *Lease) { l.Checkpoint = at(checkpoint.ShardEnd) }, false},
		{"its parent is still being read", func(l *Lease) { l.Parents = []string{"shardId-000000000000"} }, false},
		{"a KCL worker has taken it", func(l *Lease) { l.Owner = "K" }, false},
		{"KCL 3.x is handing it over", func(l *Lease) { l.CheckpointOwner = "K" }, false},
	}
	for _, c := range edits {
		known := map[string]observation{}
		for i := range 3 {
			l := of("A", i)
			if i > 0 {
				c.edit(&l)
			} else {
				l.Ask, l.AskAt = "D", 9 // not to be had in any story
			}
			known[l.Key] = observation{lease: l, seenAt: 99 * sec}
		}
		d := makePlan(known, planOf("B", 100*sec))
		if len(d.ask) > 0 != c.may {
			t.Errorf("%s: asks for %v", c.story, d.ask)
		}
		v := planOf("B", 100*sec)
		v.beside = Beside3
		if d := makePlan(known, v); len(d.ask)+len(d.take) > 0 {
			t.Errorf("%s: beside KCL 3.x, asks for %v and takes %v", c.story, d.ask, d.take)
		}
	}

	known := map[string]observation{}
	for i := range 12 {
		l := of([]string{"A", "C"}[i%2], i)
		known[l.Key] = observation{lease: l, seenAt: 99 * sec}
	}
	by := map[string]int{}
	for _, l := range makePlan(known, planOf("B", 100*sec)).ask {
		by[l.Owner]++
	}
	if by["A"] != 2 || by["C"] != 2 {
		t.Errorf("asks for %v, want the whole lack of four, two of each", by)
	}
	refused := known[of("A", 0).Key].refused(9*sec, 100*sec)
	for i := range 12 {
		if l := of("A", i); i%2 == 0 {
			known[l.Key] = observation{lease: l, seenAt: 99 * sec, askAfter: refused.askAfter}
		}
	}
	if d := makePlan(known, planOf("B", 100*sec)); slices.ContainsFunc(d.ask, func(l Lease) bool { return l.Owner == "A" }) {
		t.Errorf("asks again where it was refused just now: %v", d.ask)
	}
	if d := makePlan(known, planOf("B", 119*sec)); len(d.ask) != 4 {
		t.Errorf("asks for %d after two failover times", len(d.ask))
	}
}

// r4.2: the poorest asker first; nobody is given more than makes shares fairer; what has ended or is no work yet stays.
func TestHowAsksAreAnswered(t *testing.T) {
	known := map[string]observation{}
	v := planOf("A", 100*sec)
	var leases []Lease
	for i := range 9 {
		l := of("A", i)
		known[l.Key] = observation{lease: l, seenAt: 99 * sec}
		v.busy[l.Key] = true
		leases = append(leases, l)
	}
	ask := func(worker string, keys ...int) (asked []Lease) {
		for _, i := range keys {
			l := leases[i]
			l.Ask, l.AskAt = worker, 9
			asked = append(asked, l)
		}
		return asked
	}
	count := func(leases []Lease) map[string]int {
		by := map[string]int{}
		for _, l := range leases {
			by[l.Ask]++
		}
		return by
	}
	grant, refuse := judgeAsks(known, v, append(ask("B", 0, 1, 2, 3, 4), ask("C", 5, 6, 7)...))
	if by := count(grant); by["B"] != 3 || by["C"] != 3 || len(refuse) != 2 {
		t.Errorf("nine leases, two newcomers: grants %v, refuses %v", by, count(refuse))
	}
	// Those that are being given count.
	v.giving = map[string]string{leases[0].Key: "B", leases[1].Key: "B", leases[2].Key: "B", leases[3].Key: "B"}
	if grant, _ := judgeAsks(known, v, ask("B", 5)); len(grant) != 0 {
		t.Error("five against four are fair")
	}
	ended := ask("D", 6)
	ended[0].Checkpoint = at(checkpoint.ShardEnd)
	if grant, refuse := judgeAsks(known, v, ended); len(grant) != 0 || len(refuse) != 1 {
		t.Error("an ended lease is of no use to D")
	}
}

// fleet are leases of workers as all of them see them: so many for each, in the order of the names.
func fleet(holds map[string]int) (known map[string]observation) {
	known = map[string]observation{}
	for _, w := range slices.Sorted(maps.Keys(holds)) {
		for range holds[w] {
			l := of(w, len(known))
			known[l.Key] = observation{lease: l, seenAt: 99 * sec, movedAt: 99 * sec}
		}
	}
	return known
}

// judged lets each owner decide over the asks of one worker, one lease of each of the owners, and returns how many it gets.
// Everybody has seen all the asks in a scan.
func judged(known map[string]observation, asker string, owners ...string) (granted int) {
	asked := map[string]Lease{}
	for key, o := range known {
		if slices.Contains(owners, o.lease.Owner) {
			if l, ok := asked[o.lease.Owner]; !ok || key < l.Key {
				asked[o.lease.Owner] = o.lease
			}
		}
	}
	for owner, l := range asked {
		l.Ask, l.AskAt = asker, l.Counter
		asked[owner] = l
		o := known[l.Key]
		o.lease = l
		known[l.Key] = o
	}
	for owner, l := range asked {
		v := planOf(owner, 100*sec)
		for key, o := range known {
			v.busy[key] = o.lease.Owner == owner
		}
		maps.DeleteFunc(v.busy, func(_ string, mine bool) bool { return !mine })
		grant, _ := judgeAsks(known, v, []Lease{l})
		granted += len(grant)
	}
	return granted
}

// A worker asks several owners. When each took it for granted that the others grant theirs, all would refuse; when none
// thought of the others, all would grant what is too much.
func TestOwnersDoNotLeaveAnAskerToEachOther(t *testing.T) {
	if n := judged(fleet(map[string]int{"A": 5, "B": 2, "C": 5, "D": 5, "E": 4}), "B", "A", "C", "D"); n != 3 {
		t.Errorf("who has two, where everybody has four or five, gets %d of the three that it asked for", n)
	}
	if n := judged(fleet(map[string]int{"A": 6, "B": 4, "C": 6, "D": 4}), "B", "A", "C"); n != 1 {
		t.Errorf("who lacks one and asks for two gets %d", n)
	}
}

// What a worker has only asked for, it cannot give.
func TestHopesAreNotGiven(t *testing.T) {
	known := fleet(map[string]int{"A": 8, "B": 5, "C": 2})
	v := planOf("B", 100*sec)
	v.asked = map[string]time.Duration{}
	asked := Lease{}
	for _, key := range slices.Sorted(maps.Keys(known)) {
		switch o := known[key]; o.lease.Owner {
		case "A":
			if len(v.asked) < 2 {
				v.asked[key] = 100 * sec
			}
		case "B":
			v.busy[key] = true
			asked = o.lease
		}
	}
	asked.Ask, asked.AskAt = "C", asked.Counter
	if grant, _ := judgeAsks(known, v, []Lease{asked}); len(grant) != 0 {
		t.Error("the third worker is given one of five, which are a fair share")
	}
}

// Workers that do not see each other want the same of an owner that has one to give: the second one's write fails at once,
// where another lease would be refused after a renewal period.
func TestAskersThatDoNotSeeEachOtherMeetAtOneLease(t *testing.T) {
	known := fleet(map[string]int{"A": 2, "B": 1, "C": 1})
	first := ""
	for i := range 20 {
		ask := makePlan(known, planOf(fmt.Sprint("new", i), 100*sec)).ask
		if len(ask) != 1 || ask[0].Owner != "A" || first != "" && ask[0].Key != first {
			t.Fatalf("worker %d asks for %v, want one lease of A, as the others do (%s)", i, ask, first)
		}
		first = ask[0].Key
	}
	// Only a refusal makes it look at the other one, when a scan has shown that there is still one too many.
	o := known[first].refused(9*sec, 100*sec)
	known[first] = o
	if d := makePlan(known, planOf("new0", 100*sec)); len(d.ask) != 0 || !d.contested {
		t.Errorf("after a refusal, without a scan in between: asks for %v, contested %v", d.ask, d.contested)
	}
	o.tried = false
	known[first] = o
	if ask := makePlan(known, planOf("new0", 100*sec)).ask; len(ask) != 1 || ask[0].Owner != "A" || ask[0].Key == first {
		t.Errorf("after a refusal and a scan: asks for %v", ask)
	}
}

// Who has a lease and has had the time to see the others leaves odd leases where they are, and asks the richest.
func TestOnlyWhoIsNewOrHasNothingAsksForOddLeases(t *testing.T) {
	known := fleet(map[string]int{"A": 4, "B": 3, "C": 3, "D": 1})
	for i, c := range []struct {
		since time.Duration
		odd   bool
	}{{100 * sec, true}, {90 * sec, false}} {
		odd := false
		for n := range 20 { // other names, other tastes
			v := planOf(fmt.Sprint("D", n), 100*sec)
			v.since = c.since
			mine := maps.Clone(known)
			for key, o := range mine {
				if o.lease.Owner == "D" {
					o.lease.Owner, o.lease.Acquisition = v.worker, v.worker+"#1"
					mine[key] = o
					v.busy[key] = true
				}
			}
			for _, l := range makePlan(mine, v).ask {
				odd = odd || l.Owner != "A"
			}
		}
		if odd != c.odd {
			t.Errorf("case %d: asks for odd leases: %v", i, odd)
		}
	}
}
