package input

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
)

// troubled is what /ready would say: the engine connects when ReadBatch says that there is no connection.
func (in *input) troubled(w *world) string {
	in.mu.Lock()
	current := in.mu.worker
	in.mu.Unlock()
	if current != nil {
		if _, trouble := current.state(); trouble == nil {
			return ""
		}
	}
	if err := in.Connect(w.ctx()); err != nil {
		return err.Error()
	}
	return ""
}

// readOn is read for an input in trouble: it connects again, as the engine does.
func (w *world) readOn(in *input, n int) (got []string) {
	w.t.Helper()
	for len(got) < n {
		batch, ack, err := in.ReadBatch(w.ctx())
		switch {
		case errors.Is(err, service.ErrNotConnected):
			_ = in.Connect(w.ctx()) // waits
		case err != nil:
			w.t.Fatalf("after %d of %d records: %v", len(got), n, err)
		default:
			_ = ack(context.Background(), nil)
			got = append(got, texts(w.t, batch)...)
		}
	}
	return got
}

// A lease table that is deleted while it is in use comes back with the positions that the worker knows; also when somebody
// makes it anew at once, and empty.
func TestADeletedLeaseTableIsRestored(t *testing.T) {
	for name, isMadeAnew := range map[string]bool{"deleted": false, "made anew": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2)
			for i := range 20 {
				w.put(fmt.Sprint(i), "before "+fmt.Sprint(i))
			}
			in := w.connected("checkpointInterval: 100")
			got := texts(t, w.read(in, 20, nil))
			w.dynamodb.DropTable("application")
			if isMadeAnew {
				w.dynamodb.AddTable("application", "leaseKey")
			}
			for i := range 20 {
				w.put(fmt.Sprint(i), "after "+fmt.Sprint(i))
			}
			w.eventually("it is told", func() bool { return strings.Contains(in.troubled(w), "application") })
			for len(got) < 40 {
				got = append(got, w.readOn(in, 1)...)
			}
			slices.Sort(got)
			if got = slices.Compact(got); len(got) != 40 {
				t.Errorf("%d records, not 40", len(got))
			}
			if err := in.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			for shard, records := range w.kinesis.Records("stream") {
				if at := w.lease(shard, "checkpoint"); at != records[len(records)-1].SequenceNumber {
					t.Errorf("%s is at %s", shard, at)
				}
			}
		})
	}
}

// A worker that starts while the table is away takes the new one for that of a first start. What it would skip is read all
// the same, since the workers that were there know where they had been.
func TestAFirstStartInADeletedTableSkipsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	latest := "initialPositionInStream: LATEST"
	in := w.connected(latest, "checkpointInterval: 100")
	w.put("0", "before")
	w.put("1", "before")
	w.put("2", "before")
	w.read(in, 3, nil)
	w.dynamodb.DropTable("application")
	w.eventually("it is told", func() bool { return strings.Contains(in.troubled(w), "application") })
	want := map[string]bool{}
	put := func(what string) {
		for i := range 10 {
			text := fmt.Sprintf("%s %d", what, i)
			want[text] = true
			w.put(fmt.Sprint(i), text)
		}
	}
	put("missed")
	time.Sleep(2200 * time.Millisecond) // the start of a first start lies a second back, and the clock has whole seconds
	newcomer := w.connected(latest, "checkpointInterval: 100")
	put("seen")
	var mu sync.Mutex
	ctx, cancel := context.WithCancel(w.ctx())
	defer cancel()
	var reading sync.WaitGroup
	for _, in := range []*input{in, newcomer} {
		reading.Go(func() {
			for ctx.Err() == nil {
				batch, ack, err := in.ReadBatch(ctx)
				if err != nil {
					_ = in.Connect(ctx) // waits
					continue
				}
				_ = ack(context.Background(), nil)
				mu.Lock()
				for _, text := range texts(t, batch) {
					delete(want, text)
				}
				mu.Unlock()
			}
		})
	}
	w.eventually("everything is read", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(want) == 0
	})
	cancel()
	reading.Wait()
}

// The row of another worker of ours, of a backup, or of whoever is not beyond what is known stays as it is.
func TestWhatALeaseOfAFirstStartSkips(t *testing.T) {
	at := func(sequence string, start int64) lease.Lease {
		l := lease.Lease{Checkpoint: checkpoint.Position{Sequence: sequence}}
		if start != 0 {
			l.Start = time.Unix(start, 0)
		}
		return l
	}
	for _, c := range []struct {
		story        string
		found, known lease.Lease
		skips        bool
	}{
		{"made at LATEST", at(checkpoint.Latest, 200), at("500", 100), true},
		{"made at LATEST, and read on", at("700", 200), at("500", 100), true},
		{"made at LATEST, where a lease of KCL was", at(checkpoint.Latest, 200), at("500", 0), true},
		{"made at LATEST, where nothing had been read yet", at(checkpoint.Latest, 200), at(checkpoint.Latest, 100), true},
		{"the same, and read on", at("700", 200), at(checkpoint.Latest, 100), true},
		{"made at LATEST, where nothing had been read from the beginning", at(checkpoint.Latest, 200), at(checkpoint.TrimHorizon, 0), true},
		{"made at LATEST, where all had been read", at(checkpoint.Latest, 200), at(checkpoint.ShardEnd, 100), true},
		{"made again by another worker that knew it", at("700", 100), at("500", 100), false},
		{"the same, not read on", at("400", 100), at("500", 100), false},
		{"a backup from before the first record", at(checkpoint.Latest, 100), at("500", 100), false},
		{"a backup of a lease of KCL", at("400", 0), at("500", 0), false},
		{"a first start from the beginning", at(checkpoint.TrimHorizon, 0), at("500", 100), false},
		{"the child of a shard of a first start", at(checkpoint.TrimHorizon, 200), at("500", 100), false},
		{"a first start at a configured time", at(checkpoint.AtTimestamp, 50), at("500", 50), false},
		{"the other was to be at LATEST, and nobody knows when that was", at(checkpoint.Latest, 200), at(checkpoint.Latest, 0), false},
	} {
		if got := skips(c.found, c.known); got != c.skips {
			t.Errorf("%s: skips %t", c.story, got)
		}
	}
}

// When the table is others' to make, what is missing is told until they have made it.
func TestAMissingLeaseTableThatIsOthersToMakeIsToldUntilItIsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.dynamodb.AddTable("application", "leaseKey")
	in := w.connected("createTable: false")
	w.put("k", "1", "2")
	w.read(in, 2, nil)
	w.dynamodb.DropTable("application")
	w.eventually("it is told", func() bool {
		return strings.Contains(in.troubled(w), "createTable: false") && strings.Contains(in.troubled(w), "leaseKey of type S")
	})
	w.put("k", "3")
	if w.dynamodb.Items("application") != nil {
		t.Fatal("the table was made")
	}
	w.dynamodb.AddTable("application", "leaseKey")
	if got := w.readOn(in, 1); fmt.Sprint(got) != "[3]" {
		t.Errorf("got %v", got)
	}
}

// A backup that was put back is newer or older than what the worker knows: it is the operator's word, and stands.
func TestALeaseTableThatComesBackWithLeasesIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.put("k", "1", "2", "3")
	w.dynamodb.AddTable("application", "leaseKey")
	in := w.connected("createTable: false", "checkpointInterval: 100")
	w.read(in, 3, nil)
	records := w.kinesis.Records("stream")[shard0]
	w.eventually("the checkpoint is written", func() bool { return w.lease(shard0, "checkpoint") == records[2].SequenceNumber })
	backup := w.dynamodb.Items("application")
	w.dynamodb.DropTable("application")
	w.eventually("it is told", func() bool { return strings.Contains(in.troubled(w), "createTable: false") })
	backup[0]["checkpoint"] = &types.AttributeValueMemberS{Value: records[0].SequenceNumber}
	backup[0]["other"] = &types.AttributeValueMemberS{Value: "kept"}
	w.dynamodb.AddTable("application", "leaseKey", backup...)
	if got := w.readOn(in, 2); fmt.Sprint(got) != "[2 3]" {
		t.Errorf("got %v", got)
	}
	if w.lease(shard0, "other") != "kept" {
		t.Error("the lease was made again")
	}
}
