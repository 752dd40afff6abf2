package kcltest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kcltest"
)

const tableName = "app"

type item = map[string]types.AttributeValue

// A shape is what two items have in common that differ only in what must differ: names and types of the attributes, sentinels by
// name, and whether a number is 0.
func shape(m map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, name+m[name])
	}
	return strings.Join(parts, " ")
}

func class(name, kind, text string) string {
	switch name {
	case "checkpoint", "entityType", "cv", "leaseDuration":
		if strings.Trim(text, "0123456789") == "" && name == "checkpoint" {
			return ":digits"
		}
		return ":" + text
	case "leaseCounter", "ownerSwitchesSinceCheckpoint":
		if text == "0" {
			return ":0"
		}
	}
	return ":" + kind
}

// shapesOf are the shapes of the golden items of the files that match.
func shapesOf(t *testing.T, patterns ...string) map[string]string {
	t.Helper()
	shapes := map[string]string{}
	for _, pattern := range patterns {
		files, err := filepath.Glob("../../input/lease/testdata/golden/" + pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no golden files %s: %v", pattern, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "-CoordinatorState.json") || strings.HasSuffix(file, "-WorkerMetricStats.json") {
				continue
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var g struct {
				Items []map[string]map[string]json.RawMessage
			}
			if err := json.Unmarshal(b, &g); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for _, m := range g.Items {
				attributes := map[string]string{}
				for name, v := range m {
					for kind, content := range v {
						var text string
						_ = json.Unmarshal(content, &text) // lists and maps are known by their kind
						attributes[name] = class(name, kind, text)
					}
				}
				shapes[shape(attributes)] = filepath.Base(file)
			}
		}
	}
	return shapes
}

func shapeOf(m item) string {
	attributes := map[string]string{}
	for name, v := range m {
		switch v := v.(type) {
		case *types.AttributeValueMemberS:
			attributes[name] = class(name, "S", v.Value)
		case *types.AttributeValueMemberN:
			attributes[name] = class(name, "N", v.Value)
		default:
			kind := fmt.Sprintf("%T", v)
			attributes[name] = ":" + kind[strings.LastIndex(kind, "Member")+len("Member"):]
		}
	}
	return shape(attributes)
}

// fleet is a table with workers on it, in a bubble.
type fleet struct {
	t      *testing.T
	db     *dynamotest.DB
	stream *kcltest.Stream

	mu        sync.Mutex
	shapes    map[string]bool
	delivered map[string]map[string]int // by shard and sequence number
	events    []string
	cancels   map[string]func()
}

func newFleet(t *testing.T, shards int) *fleet {
	f := &fleet{
		t: t, db: dynamotest.New(), stream: kcltest.NewStream(shards),
		shapes: map[string]bool{}, delivered: map[string]map[string]int{}, cancels: map[string]func(){},
	}
	t.Cleanup(f.db.Close)
	_, err := f.db.API().CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: aws.String(tableName), BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("leaseKey"), AttributeType: "S"}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("leaseKey"), KeyType: "HASH"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.db.OnChange(func(c dynamotest.Change) {
		if c.New != nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.shapes[shapeOf(c.New)] = true
		}
	})
	return f
}

func (f *fleet) start(id string, edit ...func(*kcltest.Config)) *kcltest.Worker {
	f.t.Helper()
	cfg := kcltest.Config{
		API: f.db.Direct(nil), Table: tableName, WorkerID: id, InitialPosition: kcltest.TrimHorizon, Shards: f.stream.Shards,
		Consumer: &kcltest.App{Stream: f.stream, Deliver: func(shard string, p kcltest.Position) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.delivered[shard] == nil {
				f.delivered[shard] = map[string]int{}
			}
			f.delivered[shard][p.Sequence]++
		}},
		OnEvent: func(e kcltest.Event) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, fmt.Sprintf("%s %s %s", id, [...]string{"took", "stole", "lost", "begun", "given", "ended", "failed"}[e.Kind], e.Key))
		},
	}
	for _, e := range edit {
		e(&cfg)
	}
	w, err := kcltest.New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	stop := func() { cancel(); <-done }
	f.cancels[id] = stop
	f.t.Cleanup(stop)
	return w
}

func (f *fleet) read(key string) item {
	return f.db.Item(tableName, item{"leaseKey": &types.AttributeValueMemberS{Value: key}})
}

func (f *fleet) text(key, name string) string {
	switch v := f.read(key)[name].(type) {
	case *types.AttributeValueMemberS:
		return v.Value
	case *types.AttributeValueMemberN:
		return v.Value
	}
	return ""
}

// missing counts the records that nobody has delivered, and the copies.
func (f *fleet) missing() (missing, copies int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.stream.Shards() {
		for _, p := range f.stream.Records(s.ID) {
			switch n := f.delivered[s.ID][p.Sequence]; {
			case n == 0:
				missing++
			default:
				copies += n - 1
			}
		}
	}
	return missing, copies
}

func (f *fleet) putAll(n int) {
	for _, s := range f.stream.Shards() {
		f.stream.Put(s.ID, n)
	}
}

// A fleet of KCL 2.x goes through what the real one went through when its tables were dumped: every state of a dump is met, and
// no item ever looks otherwise than one that the real KCL wrote at some time.
func TestItemsOfKCL2LookLikeTheRealOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2)
		f.start("W1")
		time.Sleep(time.Minute)
		f.putAll(3)
		time.Sleep(time.Minute)
		f.stream.Split("shardId-000000000000")
		f.putAll(3)
		time.Sleep(time.Minute)
		f.stream.Merge("shardId-000000000002")
		f.putAll(3)
		time.Sleep(time.Minute)
		f.cancels["W1"]()
		f.start("W2")
		time.Sleep(time.Minute)
		f.putAll(3)
		time.Sleep(30 * time.Minute)
		if missing, copies := f.missing(); missing != 0 || copies != 0 {
			t.Errorf("%d records missing, %d copies", missing, copies)
		}
		compareShapes(t, f, shapesOf(t, "g272-*.json"), shapesOf(t, "g272-0[2-9]*.json", "g272-1*.json"))
	})
}

// The same of KCL 3.5: leader, worker rows, migration state, assignment, and a hand-over in progress and done.
func TestItemsOfKCL3LookLikeTheRealOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 4)
		three := func(c *kcltest.Config) { c.Generation = kcltest.KCL3 }
		f.start("H1", three)
		time.Sleep(2 * time.Minute)
		f.putAll(3)
		time.Sleep(time.Minute)
		f.start("H2", three)
		time.Sleep(3 * time.Minute)
		f.putAll(3)
		time.Sleep(time.Minute)
		owners := map[string]int{}
		for _, s := range f.stream.Shards() {
			owners[f.text(s.ID, "leaseOwner")]++
		}
		if owners["H1"] != 2 || owners["H2"] != 2 {
			t.Errorf("owners after the hand-overs: %v; %v", owners, f.events)
		}
		if missing, copies := f.missing(); missing != 0 || copies != 0 {
			t.Errorf("hand-overs: %d records missing, %d copies", missing, copies)
		}
		f.stream.Split("shardId-000000000000")
		f.putAll(3)
		time.Sleep(time.Minute)
		f.stream.Merge("shardId-000000000004")
		f.putAll(3)
		time.Sleep(2 * time.Minute)
		f.cancels["H1"]() // as kill -9: the lock and the leases must expire
		f.putAll(3)
		time.Sleep(10 * time.Minute)
		if missing, _ := f.missing(); missing != 0 {
			t.Errorf("%d records missing", missing)
		}
		if leader := f.text("Leader", "ownerName"); leader != "H2" {
			t.Errorf("leader: %s", leader)
		}
		compareShapes(t, f, shapesOf(t, "g351-*.json", "ho351-*.json"), shapesOf(t, "g351-0[23]*.json", "g351-0[5-9]*.json", "ho351-*.json"))
	})
}

// passing are states that KCL's own code goes through between two of its writes, and that no dump has caught.
var passing = map[string]bool{
	"before anybody took a first lease": true,
	"children noted, end not yet":       true,
	"checkpointed, not renewed since":   true,
}

// passes names the state of passing that an item with this shape is in.
func passes(shape string) string {
	switch {
	case strings.Contains(shape, "checkpoint:TRIM_HORIZON") && strings.Contains(shape, "leaseCounter:0") && !strings.Contains(shape, "leaseOwner"):
		return "before anybody took a first lease"
	case strings.Contains(shape, "childShardIds") && !strings.Contains(shape, "checkpoint:SHARD_END"):
		return "children noted, end not yet"
	case strings.Contains(shape, "checkpoint:digits") && strings.Contains(shape, "entityType:LEASE") && !strings.Contains(shape, "throughputKBps"):
		return "checkpointed, not renewed since"
	}
	return ""
}

// compareShapes wants all of must, and nothing but what is known.
func compareShapes(t *testing.T, f *fleet, known, must map[string]string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range slices.Sorted(maps.Keys(f.shapes)) {
		if known[s] == "" && !passing[passes(s)] {
			t.Errorf("no real item looks like\n  %s", s)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(must)) {
		if !f.shapes[s] {
			t.Errorf("an item of %s is never met:\n  %s", must[s], s)
		}
	}
}
