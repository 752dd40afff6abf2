package input

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// putNumbered puts n records, each with the next number of its key, so that order can be checked by key.
func (w *world) putNumbered(next map[string]int, n int) {
	w.t.Helper()
	for i := range n {
		key := fmt.Sprint("key ", i%16)
		next[key]++
		w.put(key, strconv.Itoa(next[key]))
	}
}

// checkOrder checks that every key's numbers are 1, 2, 3 … up to the last one put, each once.
func (w *world) checkOrder(in *input, next map[string]int, total int) {
	w.t.Helper()
	got := map[string][]int{}
	for _, m := range w.read(in, total, nil) {
		key, _ := m.MetaGet(keyMetadata)
		n, err := strconv.Atoi(texts(w.t, service.MessageBatch{m})[0])
		if err != nil {
			w.t.Fatal(err)
		}
		got[key] = append(got[key], n)
	}
	for key, last := range next {
		var want []int
		for n := range last {
			want = append(want, n+1)
		}
		if !slices.Equal(got[key], want) {
			w.t.Errorf("%s came as %v, want 1 to %d in order", key, got[key], last)
		}
	}
}

func (w *world) split(shard string) []string {
	w.t.Helper()
	children, err := w.kinesis.SplitShard("stream", shard)
	if err != nil {
		w.t.Fatal(err)
	}
	return children[:]
}

func (w *world) merge(a, b string) string {
	w.t.Helper()
	child, err := w.kinesis.MergeShards("stream", a, b)
	if err != nil {
		w.t.Fatal(err)
	}
	return child
}

func TestReshardsWhileNobodyRan(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	next := map[string]int{}
	w.putNumbered(next, 40)
	children := w.split(shard0)
	w.putNumbered(next, 40)
	merged := w.merge(children[0], children[1])
	w.putNumbered(next, 40)
	w.split(merged)
	w.putNumbered(next, 40)
	in := w.connected()
	w.checkOrder(in, next, 160)
	w.eventually("every ended shard is at its end, and nobody's", func() bool {
		for _, ended := range append(children, shard0, merged) {
			if w.lease(ended, "checkpoint") != "SHARD_END" || w.lease(ended, "leaseOwner") != "" {
				return false
			}
		}
		return true
	})
}

func TestReshardsWhileRunning(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	next := map[string]int{}
	in := w.connected()
	w.putNumbered(next, 40)
	first := w.read(in, 20, nil)
	a := w.split(shard0)
	w.putNumbered(next, 40)
	b := w.split(a[0]) // a child at once
	w.putNumbered(next, 40)
	w.merge(b[0], b[1])
	w.putNumbered(next, 40)
	rest := w.read(in, 160-len(first), nil)
	got := map[string][]int{}
	for _, m := range append(first, rest...) {
		key, _ := m.MetaGet(keyMetadata)
		n, _ := strconv.Atoi(texts(t, service.MessageBatch{m})[0])
		got[key] = append(got[key], n)
	}
	for key, last := range next {
		if !slices.IsSorted(got[key]) || len(got[key]) != last {
			t.Errorf("%s came as %v, want 1 to %d in order", key, got[key], last)
		}
	}
}

func TestAParentWithAnUnackedBatchHoldsItsChildrenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.put("k", "parent")
	in := w.connected()
	_, ack, err := in.ReadBatch(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	w.split(shard0)
	w.put("k", "child")
	short, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if batch, _, err := in.ReadBatch(short); err == nil {
		t.Fatalf("%v came before its parent was confirmed", texts(t, batch))
	}
	_ = ack(context.Background(), nil)
	if got := texts(t, w.read(in, 1, nil)); got[0] != "child" {
		t.Fatalf("got %v", got)
	}
}

func TestACrashBetweenTheStepsOfAnEndIsHarmless(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	next := map[string]int{}
	w.putNumbered(next, 16)
	w.split(shard0)
	w.putNumbered(next, 16)
	first := w.connected()
	for seen := 0; seen < 16; {
		batch, ack, err := first.ReadBatch(w.ctx())
		if err != nil {
			t.Fatal(err)
		}
		if seen += len(batch); seen == 16 {
			w.dynamodb.Stop() // before the end can be written
		}
		_ = ack(context.Background(), nil)
	}
	_ = first.Close(context.Background())
	w.dynamodb.Restart()
	if got := w.lease(shard0, "checkpoint"); got == "SHARD_END" {
		t.Fatal("the end was written without a table")
	}
	second := w.connected()
	got := map[string][]int{}
	for children := 0; children < 16; {
		for _, m := range w.read(second, 1, nil) {
			key, _ := m.MetaGet(keyMetadata)
			n, _ := strconv.Atoi(texts(t, service.MessageBatch{m})[0])
			got[key] = append(got[key], n)
			if n == 2 {
				children++
			}
		}
	}
	for key := range next {
		// The parent's record may come again, but never behind the child's.
		if !slices.Equal(got[key], []int{1, 2}) && !slices.Equal(got[key], []int{2}) {
			t.Errorf("%s came as %v", key, got[key])
		}
	}
}

func TestAVanishedStreamEndsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.put("k", "1")
	in := w.connected()
	w.read(in, 1, nil)
	if err := w.kinesis.DeleteStream("stream"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the vanished stream is noticed", func() bool {
		r := in.onlyRun()
		return r != nil && r.readTrouble(time.Now(), 0) != nil
	})
	if err := w.kinesis.CreateStream("stream", 2); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // room for the wrong thing to happen
	if got := w.lease(shard0, "checkpoint"); got == "SHARD_END" {
		t.Fatal("a stream created anew was taken for the end of the old one's shard")
	}
}

func TestI2AClosedShardThatIsNotFoundForAMomentIsReadOn(t *testing.T) {
	w := newWorld(t, 1)
	var parents []string
	for i := range 20 {
		parents = append(parents, fmt.Sprint("parent ", i))
	}
	w.put("k", parents...)
	w.split(shard0)
	w.put("k", "child")
	w.kinesis.Inject(kinesistest.Fault{Operation: "GetRecords", Shard: shard0, Skip: 1, Kind: kinesistest.Fail, Code: "ResourceNotFoundException"})
	in := w.connected()
	got := texts(t, w.read(in, 21, nil))
	if want := append(parents, "child"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %v", got)
	}
}

// keyFor returns a partition key whose records go to the given shard.
func (w *world) keyFor(shard string) string {
	w.t.Helper()
	for i := range 1000 {
		key := fmt.Sprint("key ", i)
		records, err := w.kinesis.Put("stream", key, []byte("root"))
		if err != nil {
			w.t.Fatal(err)
		}
		if all := w.kinesis.Records("stream")[shard]; len(all) > 0 && all[len(all)-1].SequenceNumber == records[0].SequenceNumber {
			return key
		}
	}
	w.t.Fatalf("no key found for %s", shard)
	return ""
}

// readUntil acks what comes, except batches of one shard, until enough has come.
func (w *world) readUntil(in *input, held, what string, enough func(came []string, ack service.AckFunc) bool) (came []string, ack service.AckFunc) {
	w.t.Helper()
	w.eventually(what, func() bool {
		more, done := w.readBut(in, held, 50*time.Millisecond)
		if came = append(came, more...); done != nil {
			ack = done
		}
		return enough(came, ack)
	})
	return came, ack
}

// readHeld acks what comes until a batch of one shard has come, which it does not ack.
func (w *world) readHeld(in *input, held string) (ack service.AckFunc) {
	w.t.Helper()
	_, ack = w.readUntil(in, held, "a batch of "+held, func(_ []string, ack service.AckFunc) bool { return ack != nil })
	return ack
}

// readBut acks what comes for a while, except batches of one shard. It returns the shards that came.
func (w *world) readBut(in *input, held string, d time.Duration) (came []string, ack service.AckFunc) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	for {
		batch, done, err := in.ReadBatch(ctx)
		if err != nil {
			return came, ack
		}
		id, _ := batch[0].MetaGetMut(attempt.RecordIDKey)
		from := id.(*attempt.RecordID).Attempt().Shard()
		came = append(came, from)
		if from == held {
			ack = done
			continue
		}
		_ = done(context.Background(), nil)
	}
}

const shard1 = "shardId-000000000001"

func TestI3AMergedShardWaitsForAParentThatHasNoLeaseYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.keyFor(shard0)
	key := w.keyFor(shard1)
	a, b := w.split(shard0), w.split(shard1)
	merged := w.merge(a[1], b[0])
	for i := range 20 {
		w.put(fmt.Sprint(i), "late")
	}
	w.put(key, "late")
	in := w.connected()
	came, ack := w.readUntil(in, shard1, "a child, and a batch of the other parent", func(came []string, ack service.AckFunc) bool {
		return ack != nil && slices.Contains(came, a[0])
	})
	more, _ := w.readBut(in, shard1, time.Second) // room for the wrong thing to happen
	came = append(came, more...)
	if slices.Contains(came, merged) {
		t.Fatalf("%s came before all of its grandparent %s was delivered: %v", merged, shard1, came)
	}
	_ = ack(context.Background(), nil)
	w.eventually("the merged shard is read", func() bool {
		came, _ := w.readBut(in, "", 50*time.Millisecond)
		return slices.Contains(came, merged)
	})
	if got := w.lease(b[0], "checkpoint"); got != "SHARD_END" {
		t.Fatalf("the merged shard is read while its other parent is at %s", got)
	}
}

func TestI3AnEndThatAThiefHasPreventedFreesNoChildren(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.keyFor(shard0)
	w.keyFor(shard1)
	in := w.connected()
	ack := w.readHeld(in, shard0)
	merged := w.merge(shard0, shard1)
	w.put("late", "late")
	w.readUntil(in, shard0, "the merged shard's lease is held", func([]string, service.AckFunc) bool { return w.lease(merged, "leaseOwner") != "" })
	hang := w.kinesis.Inject(kinesistest.Fault{Operation: "ListShards", Kind: kinesistest.Hang, Count: -1}) // an audit may ask, too
	_ = ack(context.Background(), nil)
	w.readUntil(in, "", "the end of the first shard is looked into", func([]string, service.AckFunc) bool {
		select {
		case <-hang.Hit():
			return true
		default: // the rest of the shard, if more than one batch
			return false
		}
	})
	if _, err := w.dynamodb.Client().UpdateItem(w.ctx(), &dynamodb.UpdateItemInput{
		TableName:        aws.String("application"),
		Key:              map[string]types.AttributeValue{"leaseKey": &types.AttributeValueMemberS{Value: shard0}},
		UpdateExpression: aws.String("SET leaseOwner = :thief ADD leaseCounter :one"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":thief": &types.AttributeValueMemberS{Value: "thief"}, ":one": &types.AttributeValueMemberN{Value: "1"},
		},
	}); err != nil {
		t.Fatal(err)
	}
	hang.Remove()
	if came, _ := w.readBut(in, "", w.failover/2); slices.Contains(came, merged) {
		t.Fatal("the merged shard is read although the thief reads its parent")
	}
}

func TestI3AStaleScanWithoutAParentFreesNoChild(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.keyFor(shard0)
	w.keyFor(shard1)
	in := w.connected()
	ack := w.readHeld(in, shard0)
	merged := w.merge(shard0, shard1)
	w.put("late", "late")
	w.readUntil(in, shard0, "the merged shard's lease is held", func([]string, service.AckFunc) bool { return w.lease(merged, "leaseOwner") != "" })
	in.mu.worker.Scanned(nil)
	if came, _ := w.readBut(in, "", 300*time.Millisecond); slices.Contains(came, merged) {
		t.Fatal("the merged shard is read before its parent is delivered")
	}
	_ = ack(context.Background(), nil)
	w.eventually("the merged shard is read", func() bool {
		came, _ := w.readBut(in, "", 50*time.Millisecond)
		return slices.Contains(came, merged)
	})
}

func (in *input) theWorker() *worker {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.mu.worker
}

func TestTheAuditCleansUpAndMends(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.put("k", "parent")
	in := w.connected()
	w.read(in, 1, nil)
	children := w.split(shard0)
	w.put("a", "1")
	w.put("b", "2")
	w.put("c", "3")
	w.put("d", "4")
	w.read(in, 4, nil)
	w.eventually("both children have begun", func() bool {
		for _, c := range children {
			if s := w.lease(c, "checkpoint"); s == "" || s == "TRIM_HORIZON" {
				return false
			}
		}
		return w.lease(shard0, "checkpoint") == "SHARD_END"
	})
	worker := in.theWorker()
	a := auditor{ended: map[string]time.Time{}, seen: map[string]int{}}
	now := time.Now()
	audit := func(after time.Duration) {
		t.Helper()
		if err := a.audit(w.ctx(), worker, now.Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	// A child's lease is deleted by hand while its parent's lease still is there.
	w.dynamodb.DeleteItem("application", map[string]types.AttributeValue{"leaseKey": &types.AttributeValueMemberS{Value: children[0]}})
	for i := range holeAudits {
		if got := w.lease(children[0], "checkpoint"); got != "" {
			t.Fatalf("the hole was filled after %d audits", i)
		}
		audit(time.Duration(i) * time.Second)
	}
	if got := w.lease(children[0], "checkpoint"); got != "TRIM_HORIZON" {
		t.Fatalf("the missing child's lease is at %q", got)
	}
	if got := w.lease(shard0, "checkpoint"); got != "SHARD_END" {
		t.Fatal("the parent was cleaned up although a child has not begun, or too early")
	}
	w.eventually("the mended child is read again", func() bool {
		s := w.lease(children[0], "checkpoint")
		if s != "" && s != "TRIM_HORIZON" {
			return true
		}
		short, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if _, ack, err := in.ReadBatch(short); err == nil {
			_ = ack(context.Background(), nil)
		}
		return false
	})
	audit(cleanupAfter - time.Second)
	if w.lease(shard0, "checkpoint") == "" {
		t.Fatal("the parent was cleaned up too early")
	}
	audit(cleanupAfter + time.Second)
	if got := w.lease(shard0, "checkpoint"); got != "" {
		t.Fatalf("the parent's lease is still there, at %s", got)
	}
	for range holeAudits + 1 {
		audit(2 * cleanupAfter)
	}
	if got := w.lease(shard0, "checkpoint"); got != "" {
		t.Fatal("a cleaned up parent came back")
	}
}

// r7.1: a worker that meets rows of another stream keeps its own leases, and makes none and deletes none in a table that is not
// its own alone.
func TestTheAuditTouchesNoTableWithRowsOfAnotherStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	in := w.connected()
	var missing string
	w.eventually("two leases", func() bool {
		missing = "shardId-000000000001"
		return w.lease(shard0, "leaseOwner") != "" && w.lease(missing, "leaseOwner") != ""
	})
	key := func(id string) map[string]types.AttributeValue {
		return map[string]types.AttributeValue{"leaseKey": &types.AttributeValueMemberS{Value: id}}
	}
	w.dynamodb.DeleteItem("application", key(missing))
	row := w.dynamodb.Item("application", key(shard0))
	row["leaseKey"] = &types.AttributeValueMemberS{Value: "shardId-000000000077"}
	row["kp_stream"] = &types.AttributeValueMemberS{Value: "arn:aws:kinesis:us-east-1:000000000000:stream/another@1"}
	w.dynamodb.Put("application", row)
	a := auditor{ended: map[string]time.Time{}, seen: map[string]int{}}
	for i := range holeAudits + 1 {
		if err := a.audit(w.ctx(), in.theWorker(), time.Now().Add(time.Duration(i)*cleanupAfter)); !errors.Is(err, lease.ErrOtherStream) {
			t.Fatalf("audit %d: %v", i, err)
		}
	}
	if w.lease(missing, "checkpoint") != "" {
		t.Error("a lease was made")
	}
}
