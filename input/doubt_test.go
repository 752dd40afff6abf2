package input

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
)

// troubled waits until ReadBatch reports that the input is not connected, and returns what Connect says then.
func (w *world) troubled(in *input) error {
	w.t.Helper()
	if batch, _, err := in.ReadBatch(w.ctx()); !errors.Is(err, service.ErrNotConnected) {
		w.t.Fatalf("got %v, %v", texts(w.t, batch), err)
	}
	err := in.Connect(w.ctx())
	if err == nil {
		w.t.Fatal("Connect finds nothing wrong")
	}
	return err
}

func TestR73AStreamCreatedAgainBetweenTwoReadsIsNotReadUnderTheOldLeases(t *testing.T) {
	// The shard is at TRIM_HORIZON, so that no sequence number of the old stream gives the new one away.
	t.Parallel()
	w := newWorld(t, 1)
	in := w.connected()
	w.eventually("the shard is being read", func() bool { return w.kinesis.Count("GetRecords") > 0 })
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // creation times have seconds
	if err := w.kinesis.DeleteStream("stream"); err != nil {
		t.Fatal(err)
	}
	if err := w.kinesis.CreateStream("stream", 1); err != nil {
		t.Fatal(err)
	}
	w.put("k", "of the new stream")
	if err := w.troubled(in); !strings.Contains(err.Error(), lease.ErrRecreatedStream.Error()) {
		t.Fatalf("got %v", err)
	}
}

func TestR71StartingOverReadsTheNewStreamFromItsBeginning(t *testing.T) {
	recreate := func(w *world, shards int) {
		w.t.Helper()
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // creation times have seconds
		if err := w.kinesis.DeleteStream("stream"); err != nil {
			w.t.Fatal(err)
		}
		if err := w.kinesis.CreateStream("stream", shards); err != nil {
			w.t.Fatal(err)
		}
		for i := range 20 {
			w.put(fmt.Sprint(i), fmt.Sprint("new ", i))
		}
	}
	// LATEST, so that a wrong start would lose what arrived before it.
	over := []string{"recreatedStream: START_OVER", "initialPositionInStream: LATEST"}
	check := func(w *world, in *input) {
		w.t.Helper()
		got := texts(w.t, w.read(in, 20, nil))
		slices.Sort(got)
		if got = slices.Compact(got); len(got) != 20 || !strings.HasPrefix(got[0], "new ") {
			w.t.Fatalf("got %v", got)
		}
		for _, item := range w.dynamodb.Items("application") {
			if brand, ok := item["kp_stream"].(*types.AttributeValueMemberS); !ok || !strings.Contains(brand.Value, "@") {
				w.t.Fatalf("got %v", item)
			}
		}
	}
	for _, tc := range []struct {
		name          string
		before, after int
	}{{"more shards than before", 2, 3}, {"fewer shards than before", 3, 1}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tc.before)
			first := w.connected(over...)
			w.put("k", "old")
			w.read(first, 1, nil)
			if err := first.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			recreate(w, tc.after)
			refusing := w.input("initialPositionInStream: LATEST")
			if err := refusing.Connect(w.ctx()); err == nil || !strings.Contains(err.Error(), "START_OVER") {
				t.Fatalf("without being told to: %v", err)
			}
			check(w, w.connected(over...))
			if got := len(w.dynamodb.Items("application")); got != tc.after {
				t.Fatalf("%d leases for %d shards", got, tc.after)
			}
		})
	}
	t.Run("while running", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 2)
		in := w.connected(over...)
		w.put("k", "old")
		w.read(in, 1, nil)
		recreate(w, 2)
		ctx := w.ctx()
		for {
			// What the engine does: read until it is told that the connection is lost, then connect.
			batch, ack, err := in.ReadBatch(ctx)
			if err == nil {
				t.Fatalf("got %v", texts(t, batch))
			}
			_ = ack
			if !errors.Is(err, service.ErrNotConnected) {
				t.Fatal(err)
			}
			if err := in.Connect(ctx); err == nil {
				break
			}
		}
		check(w, in)
	})
}

func TestR72ALeaseThatThisStreamDidNotIssueIsGivenBackAndNotTakenAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	first := w.connected()
	w.put("k", "1")
	w.read(first, 1, nil)
	if err := first.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	// Somebody has copied a position here that looks possible and is of another shard.
	if err := w.kinesis.CreateStream("other", 3); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		if _, err := w.kinesis.Put("other", fmt.Sprint(i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	foreign := w.kinesis.Records("other")["shardId-000000000001"][0].SequenceNumber
	own := w.lease(shard0, "checkpoint")
	set := func(sequence string) {
		t.Helper()
		for _, item := range w.dynamodb.Items("application") {
			item["checkpoint"] = &types.AttributeValueMemberS{Value: sequence}
			w.dynamodb.Put("application", item)
		}
	}
	set(foreign)
	in := w.connected()
	err := w.troubled(in)
	if err == nil || !strings.Contains(err.Error(), "was not issued by this stream") {
		t.Fatalf("got %v", err)
	}
	w.eventually("the lease is given back", func() bool { return w.lease(shard0, "leaseOwner") == "" })
	counter := w.lease(shard0, "leaseCounter")
	time.Sleep(w.failover) // some scans
	if got := w.lease(shard0, "leaseCounter"); got != counter {
		t.Fatalf("the lease was taken again: its counter went from %s to %s", counter, got)
	}
	// Put right, it is taken by itself.
	set(own)
	w.put("k", "2")
	w.eventually("the input is connected again", func() bool { return in.Connect(w.ctx()) == nil })
	if got := texts(t, w.read(in, 1, nil)); got[0] != "2" {
		t.Fatalf("got %v", got)
	}
}
