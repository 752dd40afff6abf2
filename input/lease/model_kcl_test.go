package lease_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kcltest"
)

// copies counts deliveries: of records that nobody delivered, and of second ones.
func (w *model) copies() (missing, more int) {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	for _, s := range w.stream.Shards() {
		for _, p := range w.stream.Records(s.ID) {
			switch n := w.ledger.shardOf(s.ID).confirmed[p.Sequence]; n {
			case 0:
				missing++
			default:
				more += n - 1
			}
		}
	}
	return missing, more
}

func (w *model) exactlyOnce() {
	w.t.Helper()
	if missing, more := w.copies(); missing > 0 || more > 0 {
		w.t.Errorf("%d records are missing, %d were delivered again", missing, more)
	}
}

func (w *model) putAll(n int) {
	for _, s := range w.stream.Shards() {
		w.stream.Put(s.ID, n)
	}
}

// live lets records come for a while.
func (w *model) live(d time.Duration) {
	for end := w.clock() + d; w.clock() < end; time.Sleep(time.Second) {
		w.putAll(2)
	}
}

// KCL 2.x is started on a table that two of our workers have used, reshards and hand-overs included, and left in good order: it goes on
// exactly where they stopped. So do we, when it is our turn again.
func TestKCLGoesOnWhereWeStoppedAndWeAfterIt(t *testing.T) {
	for _, generation := range []kcltest.Generation{kcltest.KCL2, kcltest.KCL3} {
		t.Run(fmt.Sprint("generation ", generation+2), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newModel(t, 1, 3)
				defer w.end()
				w.wild = true
				a, b := w.start("A", 3*time.Second), w.start("B", 3*time.Second)
				w.live(10 * time.Second)
				w.stream.Split(shard0)
				w.live(5 * time.Second)
				w.stream.Merge("shardId-000000000001")
				w.live(10 * time.Second)
				a.stop()
				w.live(5 * time.Second)
				b.stop()
				w.exactlyOnceSoFar()
				if w.ledger.gives == 0 {
					t.Error("no lease changed hands")
				}

				w.putAll(3)
				kcl := func(c *kcltest.Config) { c.Generation = generation }
				fleet := []*kclWorker{w.startKCL("K", 10*time.Second, kcl)}
				if generation == kcltest.KCL3 { // a theft among KCL 2.x workers repeats records
					fleet = append(fleet, w.startKCL("L", 10*time.Second, kcl))
				}
				w.live(3 * time.Minute)
				w.stream.Split("shardId-000000000002")
				w.live(time.Minute)
				w.settles(time.Minute)
				w.exactlyOnce()
				for _, k := range fleet {
					k.kill()
				}

				w.putAll(3)
				w.start("C", 10*time.Second)
				w.live(20 * time.Second)
				w.settles(time.Minute)
				w.exactlyOnce()
				for key, lease := range w.ledger.leases() {
					if lease.CheckpointOwner != "" {
						t.Errorf("%s has a leftover checkpointOwner: %s", key, line(lease))
					}
				}
			})
		})
	}
}

// exactlyOnceSoFar is exactlyOnce while records may still be on their way.
func (w *model) exactlyOnceSoFar() {
	w.t.Helper()
	if _, more := w.copies(); more > 0 {
		w.t.Errorf("%d records were delivered again", more)
	}
}

// Our workers crash. KCL takes over when the leases expire, and repeats nothing that lies before a stored checkpoint.
func TestKCLTakesOverFromTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newModel(t, 1, 3)
		defer w.end()
		a := w.start("A", 10*time.Second)
		w.live(20 * time.Second)
		a.kill()
		died, stored := w.clock(), w.ledger.leases()
		w.ledger.mu.Lock()
		before := map[string]int{}
		for key, s := range w.ledger.shards {
			for sequence := range s.confirmed {
				before[key+sequence]++
			}
		}
		w.ledger.mu.Unlock()
		w.startKCL("K", 10*time.Second)
		w.settles(2 * time.Minute)
		if took := w.clock() - died; took > 75*time.Second {
			t.Errorf("after %s", took)
		}
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		for key, s := range w.ledger.shards {
			for sequence, n := range s.confirmed {
				if p := position(kcltest.Position{Sequence: sequence}); n > 1 && p.Compare(stored[key].Checkpoint) <= 0 {
					t.Errorf("%s of %s lies before the checkpoint %s and was delivered %d times", sequence, key, stored[key].Checkpoint, n)
				}
			}
		}
	})
}

// announce does what the leader of KCL 3.x does to have a lease handed over.
func (w *model) announce(key, from, to string) {
	_, err := w.db.Direct(nil).UpdateItem(context.Background(), &dynamodb.UpdateItemInput{
		TableName: aws.String(modelTable), Key: itemKey(key), UpdateExpression: aws.String("SET leaseOwner = :to, checkpointOwner = :from"),
		ConditionExpression:       aws.String("leaseOwner = :from AND attribute_not_exists(checkpointOwner)"),
		ExpressionAttributeValues: item{":from": text(from), ":to": text(to)},
	})
	if err != nil {
		w.ledger.tell("announcing failed: %v", err)
	}
}

// r8.4: a KCL 3.x that came later wants a lease of ours. We drain and complete the hand-over, whatever happens to one request of it, and
// its worker goes on where we stopped.
func TestEveryAccidentAtEveryStepOfAHandOverToKCL3(t *testing.T) {
	story := func(t *testing.T, at int, a *accident) (requests int) {
		w := newModel(t, 1, 1)
		defer w.end()
		w.meddle = func(k *ours, r dynamotest.Request) *dynamotest.Fault {
			if r.Operation != "UpdateItem" || w.clock() < 2*time.Second || w.clock() > 6*time.Second {
				return nil
			}
			if requests++; requests-1 != at || a == nil {
				return nil
			}
			w.ledger.tell("ACCIDENT to a request of %s: %s: %s", k.id, r.Update, a.name)
			return a.happen(w, k)
		}
		w.start("A", 3*time.Second)
		w.live(2 * time.Second)
		w.startKCL("K", 3*time.Second, func(c *kcltest.Config) { c.Generation, c.Shards = kcltest.KCL3, nil })
		w.live(time.Second)
		w.announce(shard0, "A", "K")
		w.live(5 * time.Second)
		w.settles(2 * time.Minute)
		if l := w.ledger.leases()[shard0]; l.CheckpointOwner != "" {
			t.Errorf("not completed: %s", line(l))
		}
		if a == nil {
			w.exactlyOnce()
			if l := w.ledger.leases()[shard0]; l.Owner != "K" {
				t.Errorf("not handed over: %s", line(l))
			}
		}
		return requests
	}
	var requests int
	synctest.Test(t, func(t *testing.T) { requests = story(t, -1, nil) })
	for at := range requests {
		for _, a := range accidents {
			if t.Failed() {
				return
			}
			synctest.Test(t, func(t *testing.T) {
				story(t, at, &a)
				if t.Failed() {
					t.Logf("request %d of %d: %s", at, requests, a.name)
				}
			})
		}
	}
}
