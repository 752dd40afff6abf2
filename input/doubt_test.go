package input

import (
	"context"
	"errors"
	"fmt"
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
	time.Sleep(2500 * time.Millisecond) // some scans
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
