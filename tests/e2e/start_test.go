package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

var latest = map[string]string{"initialPositionInStream": "LATEST"}

// arrivedFrom wants the records that arrived from a moment on.
func arrivedFrom(moment time.Time) wanted {
	return func(_ string, r kinesistest.Record) bool { return !r.Arrival.Before(moment) }
}

// twoSecondsLater waits until what was put before is certainly older than LATEST: the anchor is a second back, and cut to
// whole seconds.
func twoSecondsLater() { time.Sleep(2100 * time.Millisecond) }

func TestLatestDeliversWhatComesAfterTheFirstStartAndNothingBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 2)
	w.put(100, 10)
	twoSecondsLater()
	began := time.Now()
	p := w.start(config{input: latest})
	w.eventually("leases", func() bool { return len(w.owners()) == 1 && len(w.leases()) == 2 })
	w.put(100, 10)
	w.arrived(100)
	a := w.accountOf(arrivedFrom(began), w.broker.Messages(topic)).balanced().once()
	if len(a.copies) != 100 {
		t.Fatalf("%d records arrived, want the 100 of after the start", len(a.copies))
	}
	p.stop()
	w.released()
}

func TestLatestLosesNothingWhenTheFirstWorkerDiesBeforeItsFirstCheckpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 2)
	w.put(50, 10)
	twoSecondsLater()
	began := time.Now()
	release := w.broker.StallReceipts("")
	p := w.spawn(config{quick: true, input: latest})
	w.eventually("leases are owned", func() bool { l := w.leases(); return len(l) == 2 && len(w.owners()) == 1 })
	w.put(50, 10)
	w.eventually("messages that are never confirmed", func() bool { return len(w.broker.Messages(topic)) > 0 })
	p.kill()
	release()
	for shard, l := range w.leases() {
		if l["checkpoint"] != "LATEST" {
			t.Fatalf("lease %s is at %s although nothing was confirmed", shard, l["checkpoint"])
		}
	}
	w.put(50, 10) // while nobody is there
	w.start(config{quick: true, input: latest})
	w.arrived(100)
	a := w.accountOf(arrivedFrom(began), w.broker.Messages(topic)).balanced()
	if len(a.copies) != 100 {
		t.Fatalf("%d records arrived, want 100", len(a.copies))
	}
}

// The first try of a start fixes LATEST, even if the lease table comes later.
func TestLatestIsWhatWasLatestWhenTheStartBegan(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.put(10, 3)
	twoSecondsLater()
	w.dynamodb.Stop()
	began := time.Now()
	p := w.start(config{input: latest})
	w.eventually("the start fails", func() bool { return p.logs.has("lease table", "level=ERROR") })
	w.put(20, 3)
	w.dynamodb.Restart()
	w.arrived(20)
	if a := w.accountOf(arrivedFrom(began), w.broker.Messages(topic)).balanced().once(); len(a.copies) != 20 {
		t.Fatalf("%d records arrived, want 20", len(a.copies))
	}
}

func TestTrimHorizonDeliversAllThatIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 2)
	w.put(300, 10)
	w.start(config{})
	w.arrived(300)
	w.put(300, 10)
	w.arrived(600)
	w.account().balanced().once()
}

func TestAtTimestampDeliversFromThatMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 2)
	w.put(100, 10)
	time.Sleep(20 * time.Millisecond)
	moment := time.Now().Truncate(time.Millisecond)
	time.Sleep(20 * time.Millisecond)
	w.put(100, 10)
	c := config{quick: true, input: map[string]string{"initialPositionInStream": "AT_TIMESTAMP", "startAtTime": fmt.Sprint(moment.UnixMilli())}}
	p := w.spawn(c)
	w.arrived(100)
	p.kill()
	w.put(100, 10)
	w.start(c)
	w.arrived(200)
	if a := w.accountOf(arrivedFrom(moment), w.broker.Messages(topic)).balanced(); len(a.copies) != 200 {
		t.Fatalf("%d records arrived, want 200", len(a.copies))
	}
}

// goldenTable reads a lease table as a real KCL left it.
func goldenTable(t *testing.T, name string) []map[string]types.AttributeValue {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "input", "lease", "testdata", "golden", name+".json"))
	must(t, err)
	var file struct {
		Items []map[string]struct {
			S, N *string
			B    []byte
			SS   []string
		}
	}
	must(t, json.Unmarshal(raw, &file))
	var items []map[string]types.AttributeValue
	for _, wire := range file.Items {
		item := map[string]types.AttributeValue{}
		for k, v := range wire {
			switch {
			case v.S != nil:
				item[k] = &types.AttributeValueMemberS{Value: *v.S}
			case v.N != nil:
				item[k] = &types.AttributeValueMemberN{Value: *v.N}
			case v.SS != nil:
				item[k] = &types.AttributeValueMemberSS{Value: v.SS}
			case v.B != nil:
				item[k] = &types.AttributeValueMemberB{Value: v.B}
			default: // of 3.x, like the migration's history; only that it is there matters here
				item[k] = &types.AttributeValueMemberM{}
			}
		}
		items = append(items, item)
	}
	return items
}

// install makes the lease table of golden items, as if they had been written for the world's stream: positions and hash
// ranges are the stream's, everything else stays. At says at which record of its shard a lease stands.
func (w *world) install(items []map[string]types.AttributeValue, at map[string]int) {
	w.t.Helper()
	_, err := w.dynamodb.Client().CreateTable(w.t.Context(), &dynamodb.CreateTableInput{
		TableName:            ptr(table),
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: ptr("leaseKey"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: ptr("leaseKey"), KeyType: types.KeyTypeHash}},
		BillingMode:          types.BillingModePayPerRequest,
	})
	must(w.t, err)
	records := w.kinesis.Records(streamName)
	shards := w.kinesis.Shards(streamName)
	for _, item := range items {
		if key, ok := item["leaseKey"].(*types.AttributeValueMemberS); ok {
			i := slices.IndexFunc(shards, func(s kinesistest.Shard) bool { return s.ID == key.Value })
			if i >= 0 {
				for name, value := range map[string]string{"startingHashKey": shards[i].StartingHashKey, "endingHashKey": shards[i].EndingHashKey} {
					if _, has := item[name]; has {
						item[name] = &types.AttributeValueMemberS{Value: value}
					}
				}
			}
			if n, ok := at[key.Value]; ok {
				item["checkpoint"] = &types.AttributeValueMemberS{Value: records[key.Value][n].SequenceNumber}
			}
		}
		w.dynamodb.Put(table, item)
	}
}

func ptr[T any](v T) *T { return &v }

// A table of the Java connector (KCL 2.x) is taken over where it stands, after the failover time of the dead worker that
// still owns its leases in it; with its rows left readable for that connector.
func TestTheTableOfAJavaConnectorIsTakenOverWhereItStands(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"conn312-kcl228-polling", "g272-03-mid-checkpoint", "g272-12-after-kill-9"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, 2)
			w.put(400, 20)
			items := goldenTable(t, name)
			var ours []map[string]types.AttributeValue
			for _, item := range items {
				switch item["leaseKey"].(*types.AttributeValueMemberS).Value {
				case "shardId-000000000000", "shardId-000000000001":
					ours = append(ours, item)
				}
			}
			at := map[string]int{"shardId-000000000000": 99, "shardId-000000000001": 49}
			for _, item := range ours {
				delete(item, "childShardIds") // the files with a resharding in them
			}
			w.install(ours, at)
			done := map[recordName]bool{}
			for shard, list := range w.kinesis.Records(streamName) {
				for _, r := range list[:at[shard]+1] {
					done[nameOf(r)] = true
				}
			}
			p := w.start(config{steady: true, input: latest}) // the table says where, not this
			w.arrived(400 - 150)
			a := w.accountOf(func(_ string, r kinesistest.Record) bool { return !done[nameOf(r)] }, w.broker.Messages(topic)).balanced().once()
			if len(a.copies) != 250 {
				t.Fatalf("%d records arrived, want the 250 behind the checkpoints", len(a.copies))
			}
			p.stop()
			w.released()
			for shard, l := range w.leases() {
				if l["leaseCounter"] == "" || l["checkpointSubSequenceNumber"] == "" || l["ownerSwitchesSinceCheckpoint"] == "" {
					t.Errorf("KCL could not read lease %s any more: %v", shard, l)
				}
			}
		})
	}
}

// of3 is a table that a fleet of KCL 3.x has left, in the state of a golden file, with leases of this stream's shards, of
// which each stands at its record of that number.
func (w *world) of3(name string, at int) (items []map[string]types.AttributeValue, behind wanted) {
	w.t.Helper()
	for _, item := range goldenTable(w.t, name) {
		if _, isLease := item["leaseCounter"]; isLease {
			switch item["leaseKey"].(*types.AttributeValueMemberS).Value {
			case firstShard, secondShard:
				delete(item, "childShardIds")
			default:
				continue
			}
		}
		items = append(items, item)
	}
	w.install(items, map[string]int{firstShard: at, secondShard: at})
	done := map[recordName]bool{}
	for _, list := range w.kinesis.Records(streamName) {
		for _, r := range list[:at+1] {
			done[nameOf(r)] = true
		}
	}
	return items, func(_ string, r kinesistest.Record) bool { return !done[nameOf(r)] }
}

// foreign are the items of the lease table that are no leases.
func (w *world) foreign() string {
	var foreign []map[string]string
	for _, item := range w.items() {
		if _, isLease := item["leaseCounter"]; !isLease {
			foreign = append(foreign, leaseOf(item))
		}
	}
	return fmt.Sprint(foreign)
}

// r8.3: nobody moves for as long as a live worker would have, so the table is taken over; what of it is not ours stays as
// it is, for a KCL that comes back (I11).
func TestATableOfKCL3IsTakenOverWhenNoneOfItsWorkersMoves(t *testing.T) {
	t.Parallel()
	for name, isMixed := range map[string]bool{"conn408-kcl312-polling": false, "g312-03-mid-checkpoint": false, "g351-03-mid-checkpoint": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, 2)
			w.put(400, 20)
			_, behind := w.of3(name, 99)
			foreign := w.foreign()
			p := w.start(config{steady: true, input: latest})
			w.arrived(400 - 200)
			if a := w.accountOf(behind, w.messages()).balanced().once(); len(a.copies) != 200 {
				t.Fatalf("%d records arrived, want the 200 behind the checkpoints", len(a.copies))
			}
			if now := w.foreign(); now != foreign || isMixed != (now != "[]") {
				t.Errorf("what KCL 3.x keeps among the leases was\n%s and is\n%s", foreign, now)
			}
			p.stop()
			w.released()
			if told := p.logs.has("level=WARN", "KCL 2.x can't read"); told != isMixed {
				t.Errorf("told of what keeps KCL 2.x from coming back: %t", told)
			}
			w.put(100, 20)
			again := w.start(config{steady: true, input: latest})
			w.arrived(300)
			if again.logs.has("watching") || again.logs.has("KCL 2.x can't read") {
				t.Error("a table that is ours is watched and told of again")
			}
		})
	}
}

func TestATableOfKCL3IsRefusedWhileAWorkerOfItMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 2)
	w.put(400, 20)
	items, behind := w.of3("g351-03-mid-checkpoint", 99)
	i := slices.IndexFunc(items, func(item map[string]types.AttributeValue) bool { return leaseOf(item)["leaseKey"] == firstShard })
	owner := leaseOf(items[i])["leaseOwner"]
	if owner == "" {
		t.Fatal("the lease has no owner")
	}
	alive, stopped := make(chan struct{}), make(chan struct{})
	go func() { // the worker renews its lease
		defer close(stopped)
		for n := 1000; ; n++ {
			items[i]["leaseCounter"] = &types.AttributeValueMemberN{Value: fmt.Sprint(n)}
			w.dynamodb.Put(table, items[i])
			select {
			case <-alive:
				return
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	p := w.spawn(config{steady: true, input: latest})
	w.eventually("not ready, with the worker's name", func() bool {
		code, body := p.ready()
		return code == 503 && strings.Contains(body, "KCL 3.x") && strings.Contains(body, "applicationName") && strings.Contains(body, owner)
	})
	for shard, l := range w.leases() {
		if l["kp_acq"] != "" {
			t.Errorf("%s was taken", shard)
		}
	}
	if n := len(w.messages()); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
	close(alive)
	<-stopped
	w.arrived(200) // by itself, once the worker is gone
	w.accountOf(behind, w.messages()).balanced().once()
	p.stop()
	w.released()
}

// Several workers that start for the first time at once agree on one moment: nothing that came after the first of them
// had begun is lost.
func TestLatestOfSeveralFirstStartersIsTheEarliest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 2)
	w.put(50, 25)
	twoSecondsLater()
	began := time.Now()
	// Each is held up between looking at the clock and writing, so that their moments differ.
	hold := w.dynamodb.Inject(dynamotest.Fault{Operation: "PutItem", Kind: dynamotest.Delay, Delay: 400 * time.Millisecond, Count: -1})
	var workers []*pipeline
	for range 3 {
		workers = append(workers, w.start(config{input: map[string]string{"initialPositionInStream": "LATEST", "maxLeasesForWorker": "2"}}))
		w.put(50, 25)
		time.Sleep(700 * time.Millisecond)
	}
	w.put(50, 25)
	w.arrived(200)
	hold.Remove()
	if a := w.accountOf(arrivedFrom(began), w.messages()).balanced(); len(a.copies) != 200 {
		t.Fatalf("%d records arrived, want 200", len(a.copies))
	}
	for _, p := range workers {
		p.stop()
	}
	w.released()
}

// A first start that dies half way leaves leases for some shards. The others begin where they would have begun then.
func TestLatestAfterAFirstStartThatDiedHalfWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 2)
	w.put(50, 25)
	twoSecondsLater()
	began := time.Now()
	denied := w.dynamodb.Inject(dynamotest.Fault{Operation: "PutItem", Kind: dynamotest.AccessDenied, Skip: 2, Count: -1})
	p := w.spawn(config{input: latest})
	w.eventually("half of the leases", func() bool { return denied.Hits() > 0 && len(w.leases()) == 2 })
	p.kill()
	denied.Remove()
	w.put(100, 25)
	twoSecondsLater()
	w.start(config{input: latest})
	w.put(100, 25)
	w.arrived(200)
	if a := w.accountOf(arrivedFrom(began), w.messages()).balanced(); len(a.copies) != 200 {
		t.Fatalf("%d records arrived, want 200", len(a.copies))
	}
}
