package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

// golden is a table as real KCL versions left it.
type golden struct {
	Table    string
	Describe struct {
		GSI []struct{ IndexName string }
	}
	Items []map[string]wireValue

	name string
}

// wireValue reads DynamoDB's JSON.
type wireValue struct {
	S  *string
	N  *string
	B  []byte
	SS []string
	L  []wireValue
	M  map[string]wireValue
}

func (w wireValue) value(t *testing.T) types.AttributeValue {
	t.Helper()
	switch {
	case w.S != nil:
		return text(*w.S)
	case w.N != nil:
		return &types.AttributeValueMemberN{Value: *w.N}
	case w.B != nil:
		return &types.AttributeValueMemberB{Value: w.B}
	case w.SS != nil:
		return &types.AttributeValueMemberSS{Value: w.SS}
	case w.L != nil:
		l := &types.AttributeValueMemberL{}
		for _, v := range w.L {
			l.Value = append(l.Value, v.value(t))
		}
		return l
	case w.M != nil:
		m := &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{}}
		for k, v := range w.M {
			m.Value[k] = v.value(t)
		}
		return m
	}
	t.Fatalf("unknown type in golden item: %+v", w)
	return nil
}

func (g golden) items(t *testing.T) (items []map[string]types.AttributeValue) {
	for _, wire := range g.Items {
		item := map[string]types.AttributeValue{}
		for k, v := range wire {
			item[k] = v.value(t)
		}
		items = append(items, item)
	}
	return items
}

// isLeaseTable tells the lease tables from KCL 3.0-3.4's other tables.
func (g golden) isLeaseTable() bool {
	return !strings.HasSuffix(g.Table, coordinatorSuffix) && !strings.HasSuffix(g.Table, "-WorkerMetricStats")
}

func goldens(t *testing.T) (all []golden) {
	t.Helper()
	files, err := filepath.Glob("testdata/golden/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		g := golden{name: strings.TrimSuffix(filepath.Base(file), ".json")}
		if err := json.Unmarshal(b, &g); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, g)
	}
	return all
}

func goldenNamed(t *testing.T, name string) golden {
	t.Helper()
	for _, g := range goldens(t) {
		if g.name == name {
			return g
		}
	}
	t.Fatalf("no golden file %s", name)
	return golden{}
}

func TestEveryItemThatKCLWroteIsUnderstood(t *testing.T) {
	leases := 0
	for _, g := range goldens(t) {
		for _, item := range g.items(t) {
			l, err := Decode(item)
			shard := g.isLeaseTable() && strings.HasPrefix(l.Key, "shardId-")
			switch {
			case shard && err != nil:
				t.Errorf("%s: %v", g.name, err)
			case !shard && !errors.Is(err, ErrForeign):
				t.Errorf("%s: item %s is no lease, got %v", g.name, l.Key, err)
			case shard:
				leases++
				if l.Checkpoint.IsZero() || l.IsOurs() {
					t.Errorf("%s: %+v", g.name, l)
				}
			}
		}
	}
	if leases < 100 {
		t.Errorf("only %d leases in the golden files", leases)
	}
}

func TestAttributesOfGoldenItems(t *testing.T) {
	find := func(file, key string) Lease {
		for _, item := range goldenNamed(t, file).items(t) {
			if l, err := Decode(item); err == nil && l.Key == key {
				return l
			}
		}
		t.Fatalf("%s: no lease %s", file, key)
		return Lease{}
	}
	prepared := find("g260-30-prepared-at-timestamp", "shardId-000000000001")
	if want := (checkpoint.Position{Sequence: "49680475769003756917423465954323944965133958269613637650"}); prepared.Pending != want ||
		string(prepared.PendingState) != "app-state" || prepared.Checkpoint.Sequence != checkpoint.AtTimestamp || prepared.Counter != 39 || prepared.Owner != "P1" {
		t.Errorf("prepared checkpoint: %+v", prepared)
	}
	inside := find("g272-06-split-children-started", "shardId-000000000001")
	if inside.Checkpoint.Sub != 4 || inside.EndingHashKey != "340282366920938463463374607431768211455" {
		t.Errorf("checkpoint inside an aggregated record: %+v", inside)
	}
	ended := find("g272-06-split-children-started", "shardId-000000000000")
	if !ended.Ended() || !slices.Equal(ended.Children, []string{"shardId-000000000002", "shardId-000000000003"}) {
		t.Errorf("split parent: %+v", ended)
	}
	child := find("g351-11-taken-over-by-W2", "shardId-000000000004")
	if !slices.Equal(child.Parents, []string{"shardId-000000000002", "shardId-000000000003"}) || child.EntityType != "LEASE" ||
		child.ThroughputKBps == nil || *child.ThroughputKBps != 0.021551 || child.OwnerSwitches != 1 {
		t.Errorf("merge child: %+v", child)
	}
	handed := find("ho351-01-handoff-in-progress", "shardId-000000000002")
	if handed.Owner != "H2" || handed.CheckpointOwner != "H1" {
		t.Errorf("hand-over: %+v", handed)
	}
	if old := find("conn312-kcl228-polling", "shardId-000000000000"); old.StartingHashKey != "" {
		t.Errorf("KCL 2.2 writes no hash keys: %+v", old)
	}
}

// Every lease that a KCL wrote goes through each of our writes: taken from its dead owner, kept with a checkpoint, asked for, given, adopted,
// and released. What is not ours to change stays as it is, known or not.
func TestGoldenLeasesSurviveOurWrites(t *testing.T) {
	ours := []string{attrOwner, attrCounter, attrCheckpoint, attrSub, attrSwitches, attrPending, attrPendingSub, attrPendingState,
		attrAcquisition, attrFailover, attrStream, attrCheckpointOwner, attrAsk, attrAskAt}
	writes := map[string]func(dynamotest.Request) bool{
		"TAKE": isTake, "KEEP": isKeep, "ASK": isAsk, "GIVE": isGive, "adoption": isAdopt, "RELEASE": isRelease,
	}
	for _, g := range goldens(t) {
		if !g.isLeaseTable() {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			before := map[string]map[string]types.AttributeValue{}
			var keys []string
			for _, item := range g.items(t) {
				l, err := Decode(item)
				if err == nil {
					item["applicationOwn"] = text("kept")
				}
				w.db.Put(tableName, item)
				if err == nil && !l.Ended() {
					before[l.Key] = item
					keys = append(keys, l.Key)
				}
			}
			var mu sync.Mutex
			sent := map[string]int{}
			w.db.OnRequest(func(r dynamotest.Request) *dynamotest.Fault {
				mu.Lock()
				defer mu.Unlock()
				for name, is := range writes {
					if is(r) {
						sent[name]++
					}
				}
				return nil
			})
			a := w.worker("A").grants().run()
			time.Sleep(20 * sec) // the dead owners expire
			for _, key := range keys {
				a.mustHold(key).Confirmed(at("99999999999999999999999999999999999999999999999999999998"), 1)
			}
			time.Sleep(5 * sec)
			b := w.worker("B").wants(keys...).run()
			time.Sleep(20 * sec)
			for _, key := range keys {
				b.mustHold(key).Confirmed(at("99999999999999999999999999999999999999999999999999999999"), 1)
			}
			if err := b.m.Close(t.Context()); err != nil {
				t.Errorf("%s: %v", g.name, err)
			}
			for name := range writes {
				if sent[name] < len(keys) {
					t.Errorf("%s: %d of %s for %d leases", g.name, sent[name], name, len(keys))
				}
			}
			for key, item := range before {
				after := w.item(key)
				for name, v := range item {
					if !slices.Contains(ours, name) && fmt.Sprint(value(v)) != fmt.Sprint(value(after[name])) {
						t.Errorf("%s, %s: attribute %s was %v, is %v", g.name, key, name, value(v), value(after[name]))
					}
				}
				for name := range after {
					if item[name] == nil && !slices.Contains(ours, name) && !strings.HasPrefix(name, "kp_") {
						t.Errorf("%s, %s: there is a new attribute %s", g.name, key, name)
					}
				}
				if l := w.read(key); l.Checkpoint != at("99999999999999999999999999999999999999999999999999999999") || l.Owner != "" || l.Ask != "" {
					t.Errorf("%s: %+v", g.name, l)
				}
			}
			if n, m := len(w.db.Items(tableName)), len(g.Items); n != m {
				t.Errorf("%s: %d items, were %d", g.name, n, m)
			}
		})
	}
}
