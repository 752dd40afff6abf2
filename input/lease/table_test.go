package lease

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

// r1.2: never a Put over an item.
func TestCreateLeavesAnExistingLeaseAlone(t *testing.T) {
	for _, opts := range [][]dynamotest.Option{nil, {dynamotest.WithoutOldItemOnFailure()}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, opts...)
			begin := time.UnixMilli(1700000000123).UTC()
			l := Lease{
				Key: shard0, Checkpoint: at(checkpoint.Latest), Parents: []string{"p1", "p2"}, Children: []string{"c"},
				StartingHashKey: "0", EndingHashKey: "9", Stream: testStream, Start: begin,
			}
			created, ok, err := w.table.Create(t.Context(), l)
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			got, found, err := w.table.Get(t.Context(), shard0)
			if err != nil || !found || fmt.Sprint(got) != fmt.Sprint(created) || fmt.Sprint(got) != fmt.Sprint(l) {
				t.Errorf("created %+v, read %+v, %v", created, got, err)
			}
			w.edit(shard0, func(item map[string]types.AttributeValue) { item[attrOwner], item[attrCounter] = text("K"), number(9) })
			l.Start = begin.Add(time.Hour)
			current, ok, err := w.table.Create(t.Context(), l)
			if err != nil || ok || current.Owner != "K" || current.Counter != 9 || !current.Start.Equal(begin) {
				t.Errorf("second Create: %+v, %v, %v", current, ok, err)
			}
			// The SDK repeats a Put whose answer was lost, and then meets its own item.
			w.db.Inject(dynamotest.Fault{Operation: "PutItem", Kind: dynamotest.LoseAnswer})
			l.Key = shard1
			if current, _, err := w.table.Create(t.Context(), l); err != nil || current.Key != shard1 || current.Counter != 0 {
				t.Errorf("lost answer: %+v, %v", current, err)
			}
			if _, _, err := w.table.Create(t.Context(), Lease{Key: "x"}); err == nil {
				t.Error("a lease without a checkpoint must not be written: every KCL 2.x scan would die of it")
			}
		})
	}
}

func TestAnchors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		t0 := time.UnixMilli(1700000000000).UTC()
		w.put(Lease{Key: shard0, Owner: "K", Counter: 7, Checkpoint: at(checkpoint.Latest)}, nil)
		w.put(Lease{Key: shard1, Owner: "K", Counter: 7, Checkpoint: at("5")}, nil)

		// r5.5: the first to see it decides, owned or not.
		if l, err := w.table.Anchor(t.Context(), shard0, t0); err != nil || !l.Start.Equal(t0) {
			t.Errorf("Anchor: %+v, %v", l, err)
		}
		if l, err := w.table.Anchor(t.Context(), shard0, t0.Add(time.Hour)); err != nil || !l.Start.Equal(t0) {
			t.Errorf("an anchor that is there stays: %+v, %v", l, err)
		}
		if l, err := w.table.Anchor(t.Context(), shard1, t0); err != nil || !l.Start.IsZero() {
			t.Errorf("digits need no anchor: %+v, %v", l, err)
		}
		// r5.3: anchors only move back.
		if l, err := w.table.LowerStart(t.Context(), shard0, t0.Add(time.Hour)); err != nil || !l.Start.Equal(t0) {
			t.Errorf("LowerStart with a later time: %+v, %v", l, err)
		}
		if l, err := w.table.LowerStart(t.Context(), shard0, t0.Add(-time.Hour)); err != nil || !l.Start.Equal(t0.Add(-time.Hour)) {
			t.Errorf("LowerStart: %+v, %v", l, err)
		}
		if l, err := w.table.LowerStart(t.Context(), shard1, t0); err != nil || !l.Start.IsZero() {
			t.Errorf("LowerStart where there is none: %+v, %v", l, err)
		}
		// r1.3: a KCL 2.x owner that meets a moved counter gives its lease up.
		for _, key := range []string{shard0, shard1} {
			if l := w.read(key); l.Counter != 7 || l.Owner != "K" {
				t.Errorf("the owner was disturbed: %+v", l)
			}
		}
		// r1.1
		for name, f := range map[string]func() error{
			"Anchor":      func() error { _, err := w.table.Anchor(t.Context(), "gone", t0); return err },
			"LowerStart":  func() error { _, err := w.table.LowerStart(t.Context(), "gone", t0); return err },
			"SetChildren": func() error { _, err := w.table.SetChildren(t.Context(), "gone", []string{"c"}); return err },
		} {
			if err := f(); !errors.Is(err, ErrNoLease) {
				t.Errorf("%s of a lease that is gone: %v", name, err)
			}
		}
		if n := len(w.db.Items(tableName)); n != 2 {
			t.Errorf("%d items: a write made one", n)
		}
	})
}

func TestDeleteOfOtherStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(Lease{Key: shard0, Owner: "B", Counter: 7, Checkpoint: at("5"), Stream: "old@1"}, nil)
		seen := w.read(shard0)
		w.edit(shard0, func(item map[string]types.AttributeValue) { item[attrCounter] = number(8) })
		if deleted, err := w.table.DeleteOfOtherStream(t.Context(), seen); deleted || err != nil {
			t.Errorf("a lease that is alive: %v, %v", deleted, err)
		}
		if deleted, err := w.table.DeleteOfOtherStream(t.Context(), w.read(shard0)); !deleted || err != nil {
			t.Errorf("%v, %v", deleted, err)
		}
		if _, err := w.table.DeleteOfOtherStream(t.Context(), Lease{Key: shard1}); err == nil {
			t.Error("a lease of nobody's stream must not be deleted")
		}
	})
}

func TestScanReadsAllPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		filler := &types.AttributeValueMemberB{Value: make([]byte, 300_000)}
		for i := range 12 {
			w.put(Lease{Key: fmt.Sprintf("shardId-%012d", i), Checkpoint: at("1")}, map[string]types.AttributeValue{"x": filler})
		}
		w.db.Put(tableName, map[string]types.AttributeValue{attrKey: text("Leader"), attrEntityType: text("LEADER")})
		s, err := w.table.Scan(t.Context(), false)
		if err != nil || len(s.Leases) != 12 || len(s.Foreign) != 1 || s.Foreign[0].EntityType != "LEADER" {
			t.Errorf("%d leases, foreign %v, %v", len(s.Leases), s.Foreign, err)
		}
		if n := w.db.Counts()["Scan"].Requests; n < 3 {
			t.Errorf("%d pages: the test does not page", n)
		}
	})
}

func TestMarksOfKCL3(t *testing.T) {
	kinds := func(m Marks) (kinds []MarkKind) {
		for _, mark := range m.Marks {
			if !slices.Contains(kinds, mark.Kind) {
				kinds = append(kinds, mark.Kind)
			}
		}
		slices.Sort(kinds)
		return kinds
	}
	for _, c := range []struct {
		golden, coordinator string
		want                []MarkKind
		version             string
	}{
		{golden: "g272-12-after-kill-9"},
		{golden: "conn312-kcl228-polling"},
		{golden: "g312-03-mid-checkpoint", coordinator: "g312-03-mid-checkpoint-CoordinatorState",
			want: []MarkKind{MarkCoordinatorState, MarkIndex, MarkThroughput}, version: "CLIENT_VERSION_3X"},
		{golden: "g351-03-mid-checkpoint", want: []MarkKind{MarkEntityType, MarkIndex, MarkThroughput}, version: "CLIENT_VERSION_3X"},
		{golden: "ho351-01-handoff-in-progress", want: []MarkKind{MarkCheckpointOwner, MarkEntityType, MarkIndex, MarkThroughput}, version: "CLIENT_VERSION_3X"},
		{golden: "mix-272-with-351-compatible", want: []MarkKind{MarkEntityType, MarkIndex}, version: "CLIENT_VERSION_UPGRADE_FROM_2X"},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := goldenNamed(t, c.golden)
			db := dynamotest.New()
			defer db.Close()
			api := db.API()
			createGolden(t, api, tableName, attrKey, len(g.Describe.GSI) > 0)
			for _, item := range g.items(t) {
				db.Put(tableName, item)
			}
			if c.coordinator != "" {
				createGolden(t, api, tableName+coordinatorSuffix, "key", false)
				for _, item := range goldenNamed(t, c.coordinator).items(t) {
					db.Put(tableName+coordinatorSuffix, item)
				}
			}
			table := NewTable(api, tableName)
			s, err := table.Scan(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			m, err := table.Marks(t.Context(), s)
			if got := kinds(m); err != nil || !slices.Equal(got, c.want) || m.ClientVersion != c.version || len(m.Unreadable) != 0 {
				t.Errorf("%s: %v, version %q, unreadable %v, %v; want %v, %q", c.golden, got, m.ClientVersion, m.Unreadable, err, c.want, c.version)
			}
			// An old connector's role may neither describe nor read what 3.x makes: told, no error.
			db.Inject(dynamotest.Fault{Operation: "GetItem", Kind: dynamotest.AccessDenied})
			db.Inject(dynamotest.Fault{Operation: "DescribeTable", Kind: dynamotest.AccessDenied})
			m, err = table.Marks(t.Context(), s)
			if want := []string{"DescribeTable app", "GetItem app-CoordinatorState"}; err != nil || !slices.Equal(m.Unreadable, want) {
				t.Errorf("%s: unreadable %v, %v", c.golden, m.Unreadable, err)
			}
		})
	}
}

func createGolden(t *testing.T, api API, name, key string, index bool) {
	t.Helper()
	in := &dynamodb.CreateTableInput{
		TableName: aws.String(name), BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String(key), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String(key), KeyType: types.KeyTypeHash}},
	}
	if index {
		in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{AttributeName: aws.String(attrOwner), AttributeType: types.ScalarAttributeTypeS})
		in.GlobalSecondaryIndexes = []types.GlobalSecondaryIndex{{
			IndexName: aws.String(ownerIndex), Projection: &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly},
			KeySchema: []types.KeySchemaElement{{AttributeName: aws.String(attrOwner), KeyType: types.KeyTypeHash}, {AttributeName: aws.String(attrKey), KeyType: types.KeyTypeRange}},
		}}
	}
	if _, err := api.CreateTable(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}
