package retrieval

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// Five seconds after a subscription was made, and no sooner, Kinesis gives the shard to another reader. A call whose answer
// is lost may have made one; one that was refused has not.
func TestAShardIsFreeForAnotherReaderFiveSecondsAfterTheLastSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newScript(t, failing(&types.ResourceInUseException{}), failing(errors.New("connection reset")), lasting(records(1), records(2)))
		if at := f.config.Calls.FreeAt(shard0); !at.IsZero() {
			t.Fatalf("taken until %s before the first call", at)
		}
		if _, err := f.Next(t.Context(), always(true)); err == nil {
			t.Fatal("not refused")
		}
		if at := f.config.Calls.FreeAt(shard0); !at.IsZero() {
			t.Fatalf("a refused call takes the shard until %s", at)
		}
		if _, err := f.Next(t.Context(), always(true)); err == nil {
			t.Fatal("no error")
		}
		if left := time.Until(f.config.Calls.FreeAt(shard0)); left != takeOver {
			t.Fatalf("a lost answer takes the shard for %s", left)
		}
		if _, err := f.Next(t.Context(), always(true)); err != nil {
			t.Fatal(err)
		}
		until := f.config.Calls.FreeAt(shard0)
		if time.Until(until) != takeOver || len(s.calls) != 3 {
			t.Fatalf("taken for %s after %d calls", time.Until(until), len(s.calls))
		}
		time.Sleep(time.Minute)
		if _, err := f.Next(t.Context(), always(true)); err != nil {
			t.Fatal(err)
		}
		if at := f.config.Calls.FreeAt(shard0); at.After(until) {
			t.Fatal("reading is no new subscription")
		}
		// What is past is not kept for ever.
		f.config.Calls.subscribed("another")
		if at := f.config.Calls.FreeAt(shard0); !at.IsZero() {
			t.Fatalf("%s is remembered", at)
		}
	})
}
