package lease

import (
	"fmt"
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
