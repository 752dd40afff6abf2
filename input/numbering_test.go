package input

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
)

// countingLease notes what it is told of the count.
type countingLease struct {
	held
	told  []string
	asked lease.Numbered
}

func (l *countingLease) Starts(first checkpoint.Position, trimmed bool) {
	l.told = append(l.told, fmt.Sprintf("starts %s %v", first, trimmed))
}
func (l *countingLease) Miscounted() { l.told = append(l.told, "miscounted") }
func (l *countingLease) Number(_ context.Context, asked lease.Numbered) (lease.Numbering, error) {
	l.asked = asked
	return lease.Numbering{Epoch: "epoch", First: 7}, nil
}

func TestTheLeaseIsToldWhereTheCountBegins(t *testing.T) {
	record := func(p string) []retrieval.Record {
		return []retrieval.Record{{Position: checkpoint.Position{Sequence: p}}}
	}
	l := &countingLease{}
	r := &run{lease: l}
	for _, step := range []struct {
		read retrieval.Read
		want string
	}{
		{retrieval.Read{}, ""},
		{retrieval.Read{Begins: true}, ""}, // only the record of the checkpoint itself
		{retrieval.Read{Records: record("5")}, "starts 5 false"},
		{retrieval.Read{Records: record("6")}, ""},
		// The queue was given back before anything of it was handed out, and the shard is read again.
		{retrieval.Read{Begins: true, Trimmed: true, Records: record("9")}, "starts 9 true"},
	} {
		l.told = nil
		r.countLocked(step.read)
		if got := fmt.Sprint(l.told); got != "["+step.want+"]" {
			t.Errorf("%+v: told %s", step.read, got)
		}
	}
	l.told, r.mu.last = nil, checkpoint.Position{Sequence: "9"}
	r.countLocked(retrieval.Read{Begins: true, Records: record("10")})
	r.countLocked(retrieval.Read{Begins: true, Trimmed: true, Records: record("20")})
	if !slices.Equal(l.told, []string{"miscounted"}) {
		t.Errorf("told %v", l.told)
	}
}

func TestNumbersAreAskedForFromTheFirstUnconfirmedRecord(t *testing.T) {
	l := &countingLease{}
	r := &run{shard: "shard", lease: l, prefix: producerPrefix("app", "stream", "shard")}
	r.mu.tracker = checkpoint.NewTracker(checkpoint.Position{Sequence: "100"})
	if _, err := r.Sequence(t.Context(), 4, ""); err == nil {
		t.Error("nothing is in flight, and it is numbered")
	}
	for i := range 5 {
		ticket, err := r.mu.tracker.Register(checkpoint.Position{Sequence: fmt.Sprint(101 + i)})
		if err != nil {
			t.Fatal(err)
		}
		if i < 3 {
			r.mu.tracker.Confirm(ticket)
		}
	}
	s, err := r.Sequence(t.Context(), 4, "app/stream/shard/old")
	if err != nil || s != (attempt.Sequence{Producer: "app/stream/shard/epoch", First: 7}) {
		t.Errorf("%+v, %v", s, err)
	}
	if want := (lease.Numbered{Partitions: 4, Records: 3, Next: checkpoint.Position{Sequence: "104"}, Not: "old"}); l.asked != want {
		t.Errorf("asked %+v, want %+v", l.asked, want)
	}
	if r.mayAdvanceLocked() {
		t.Error("a position of no record may be checkpointed")
	}
}
