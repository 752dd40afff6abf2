package lease

import (
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

func TestARepairIsLostWhenTheLeaseHasMoved(t *testing.T) {
	table := NewTable(dynamotest.New().API(), "repaired")
	if _, err := table.EnsureExists(t.Context(), Creation{}); err != nil {
		t.Fatal(err)
	}
	made, _, err := table.Create(t.Context(), Lease{Key: "shardId-000000000000", Checkpoint: checkpoint.Position{Sequence: "7", Sub: 3}, Start: time.UnixMilli(5)})
	if err != nil {
		t.Fatal(err)
	}
	owned := newUpdate(made.Key)
	owned.ifExists(attrCounter)
	owned.set(attrOwner, text("dead"))
	owned.set(attrDedupEpoch, text("epoch"))
	owned.set("of_somebody_else", text("kept"))
	a, err := table.send(t.Context(), owned)
	if err != nil || a.failed {
		t.Fatal(a, err)
	}
	at := time.UnixMilli(1_700_000_000_123).UTC()
	to := checkpoint.Position{Sequence: checkpoint.AtTimestamp}
	for _, stale := range []Lease{
		{Key: made.Key, Owner: "dead", Counter: made.Counter + 1}, // it was renewed meanwhile
		{Key: made.Key, Owner: "", Counter: made.Counter},         // it was taken
		{Key: made.Key, Owner: "dead", CheckpointOwner: "x", Counter: made.Counter},
		{Key: "shardId-000000000009", Counter: 0}, // it is gone: nothing may be made by a repair
	} {
		if done, err := table.Reset(t.Context(), stale, to, at); done || err != nil {
			t.Errorf("reset of %+v: %t, %v", stale, done, err)
		}
		if done, err := table.Disown(t.Context(), stale); done || err != nil {
			t.Errorf("release of %+v: %t, %v", stale, done, err)
		}
	}
	if done, err := table.Reset(t.Context(), a.lease, to, at); !done || err != nil {
		t.Fatalf("reset: %t, %v", done, err)
	}
	got, found, err := table.Get(t.Context(), made.Key)
	if err != nil || !found || got.Owner != "" || got.Checkpoint != to || !got.Start.Equal(at) || got.DedupEpoch != "" || got.Counter != a.lease.Counter+1 {
		t.Errorf("after a reset: %+v, %v", got, err)
	}
	if done, err := table.Reset(t.Context(), got, checkpoint.Position{Sequence: checkpoint.TrimHorizon}, time.Time{}); !done || err != nil {
		t.Fatalf("reset: %t, %v", done, err)
	}
	if got, _, _ := table.Get(t.Context(), made.Key); !got.Start.IsZero() {
		t.Errorf("the moment stayed: %+v", got)
	}
	s, err := table.Scan(t.Context(), true)
	if err != nil || len(s.Leases) != 1 || len(s.Foreign)+len(s.Broken) != 0 {
		t.Errorf("the table: %+v, %v", s, err)
	}
}
