package input

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/redpanda-data/benthos/v4/public/service"
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
