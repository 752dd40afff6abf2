package checkpoint

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func at(n int64) Position { return Position{Sequence: fmt.Sprint(n)} }

func sub(n, s int64) Position { return Position{Sequence: fmt.Sprint(n), Sub: s} }

func TestPositionsAreOrderedAsKCLDoes(t *testing.T) {
	ascending := []Position{
		{}, {Sequence: AtTimestamp}, {Sequence: TrimHorizon}, {Sequence: Latest},
		at(0), at(9), sub(9, 1), at(10), at(99), at(100),
		{Sequence: "49680475887822127335194626052477026806228276333919600658"}, {Sequence: ShardEnd},
	}
	for i, p := range ascending {
		for j, q := range ascending {
			if got, want := p.Compare(q), compareInts(i, j); got != want {
				t.Errorf("%s against %s: %d, want %d", p, q, got, want)
			}
		}
	}
}

func compareInts(a, b int) int { return min(1, max(-1, a-b)) }

func TestSequenceNumbersCompareAsIntegers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.StringMatching(`[0-9]{1,60}`)
		a, b := digits.Draw(t, "a"), digits.Draw(t, "b")
		p, err := Parse(a, 0)
		q, err2 := Parse(b, 0)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		x, _ := new(big.Int).SetString(a, 10)
		y, _ := new(big.Int).SetString(b, 10)
		if p.Compare(q) != x.Cmp(y) {
			t.Fatalf("%s against %s: %d", a, b, p.Compare(q))
		}
	})
}

func TestParseRefusesWhatKCLWouldChokeOn(t *testing.T) {
	for _, bad := range []string{"", "latest", "12x", "-1", "1.5", "SHARD_END ", "0x10", "１２"} {
		if _, err := Parse(bad, 0); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := Parse("5", -1); err == nil {
		t.Error("a negative sub-sequence number was taken")
	}
	if p, err := Parse("007", 3); err != nil || p != sub(7, 3) || p.String() != "7/3" {
		t.Errorf("got %v, %v", p, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "0", "LATEST", "0001", "x"} {
		f.Add(s, int64(0))
	}
	f.Fuzz(func(t *testing.T, s string, n int64) {
		p, err := Parse(s, n)
		if err != nil {
			return
		}
		again, err := Parse(p.Sequence, p.Sub)
		if err != nil || again != p {
			t.Fatalf("%v became %v, %v", p, again, err)
		}
	})
}

// The stories of the Java connector's tests of its record processor, where they are about which position may be written.
func TestOutOfOrderAcksNeverPassAGap(t *testing.T) {
	t.Run("sub-sequence numbers 2, 0, 1", func(t *testing.T) {
		tr := NewTracker(Position{Sequence: TrimHorizon})
		tickets := register(t, tr, sub(100, 0), sub(100, 1), sub(100, 2))
		expect(t, tr, tickets[2], Position{Sequence: TrimHorizon})
		expect(t, tr, tickets[0], sub(100, 0))
		expect(t, tr, tickets[1], sub(100, 2))
	})
	t.Run("sequence numbers 102, 100, 101", func(t *testing.T) {
		tr := NewTracker(at(99))
		tickets := register(t, tr, at(100), at(101), at(102))
		expect(t, tr, tickets[2], at(99))
		expect(t, tr, tickets[0], at(100))
		expect(t, tr, tickets[1], at(102))
	})
}

func register(t *testing.T, tr *Tracker, positions ...Position) (tickets []Ticket) {
	t.Helper()
	for _, p := range positions {
		ticket, err := tr.Register(p)
		if err != nil {
			t.Fatal(err)
		}
		tickets = append(tickets, ticket)
	}
	return tickets
}

func expect(t *testing.T, tr *Tracker, confirm Ticket, want Position) {
	t.Helper()
	if tr.Confirm(confirm); tr.Confirmed() != want {
		t.Fatalf("after ticket %d: %s, want %s", confirm, tr.Confirmed(), want)
	}
}

func TestAFailedRecordPinsThePosition(t *testing.T) {
	tr := NewTracker(at(1))
	tickets := register(t, tr, at(2), at(3), at(4))
	tr.Confirm(tickets[0])
	tr.Confirm(tickets[2])
	if tr.Confirmed() != at(2) || tr.Pending() != 2 {
		t.Fatalf("%s with %d pending", tr.Confirmed(), tr.Pending())
	}
}

func TestPositionsThatDoNotGrowAreRefused(t *testing.T) {
	tr := NewTracker(at(5))
	for _, p := range []Position{at(5), at(4), {}, {Sequence: TrimHorizon}, {Sequence: ShardEnd}} {
		if _, err := tr.Register(p); err == nil {
			t.Errorf("%s was taken after 5", p)
		}
	}
	register(t, tr, at(6))
	if _, err := tr.Register(at(6)); err == nil {
		t.Error("the same position was taken twice")
	}
}

// TestI1AgainstAModel: whatever the order and number of confirmations, the tracker tells the longest confirmed prefix.
func TestI1AgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := NewTracker(at(0))
		var tickets []Ticket
		var confirmed []bool
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(tickets) == 0 || rapid.Bool().Draw(t, "register") {
				ticket, err := tr.Register(at(int64(len(tickets) + 1)))
				if err != nil {
					t.Fatal(err)
				}
				tickets, confirmed = append(tickets, ticket), append(confirmed, false)
			} else {
				i := rapid.IntRange(0, len(tickets)-1).Draw(t, "confirm")
				tr.Confirm(tickets[i])
				confirmed[i] = true
			}
			prefix := slices.Index(confirmed, false)
			if prefix < 0 {
				prefix = len(confirmed)
			}
			if tr.Confirmed() != at(int64(prefix)) || tr.Pending() != len(tickets)-prefix {
				t.Fatalf("%s with %d pending; %v", tr.Confirmed(), tr.Pending(), confirmed)
			}
		}
		tr.Confirm(Ticket(1 << 40)) // unknown tickets change nothing
	})
}

func TestI1AdvanceNeverPassesAnUnconfirmedRecordNorGoesBack(t *testing.T) {
	tr := NewTracker(Position{Sequence: Latest})
	if !tr.Advance(at(10)) || tr.Confirmed() != at(10) {
		t.Fatalf("at %s", tr.Confirmed())
	}
	for _, p := range []Position{at(10), at(9), {}, {Sequence: TrimHorizon}, {Sequence: ShardEnd}} {
		if tr.Advance(p) || tr.Confirmed() != at(10) {
			t.Fatalf("%s moved it to %s", p, tr.Confirmed())
		}
	}
	if _, err := tr.Register(at(10)); err == nil {
		t.Fatal("a record at a place that is passed was taken")
	}
	first, _ := tr.Register(at(11))
	second, _ := tr.Register(sub(11, 1))
	tr.Confirm(first)
	if tr.Advance(at(20)) || tr.Confirmed() != at(11) {
		t.Fatalf("at %s with a record unconfirmed", tr.Confirmed())
	}
	tr.Confirm(second)
	if tr.Advance(at(11)) || tr.Confirmed() != sub(11, 1) {
		t.Fatalf("at %s: back inside an aggregated record", tr.Confirmed())
	}
	if !tr.Advance(at(20)) || tr.Confirmed() != at(20) {
		t.Fatalf("at %s", tr.Confirmed())
	}
}

func TestTheTrackerCountsThePrefix(t *testing.T) {
	tracker := NewTracker(Position{Sequence: "10"})
	if tracker.Records() != 0 || !tracker.Next().IsZero() {
		t.Errorf("%d records, next %s", tracker.Records(), tracker.Next())
	}
	for i := range 4 {
		ticket, err := tracker.Register(Position{Sequence: "11", Sub: int64(i)})
		if err != nil || ticket != Ticket(i) {
			t.Fatalf("ticket %d: %v", ticket, err)
		}
	}
	tracker.Confirm(1)
	if tracker.Records() != 0 {
		t.Errorf("%d records", tracker.Records())
	}
	tracker.Confirm(0)
	if next := tracker.Next(); tracker.Records() != 2 || next != (Position{Sequence: "11", Sub: 2}) {
		t.Errorf("%d records, next %s", tracker.Records(), next)
	}
	tracker.Confirm(2)
	tracker.Confirm(3)
	if tracker.Advance(Position{Sequence: "12"}); tracker.Records() != 4 || !tracker.Next().IsZero() {
		t.Errorf("%d records, next %s", tracker.Records(), tracker.Next())
	}
}
