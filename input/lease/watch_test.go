package lease

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

// goldenWorld is a world whose tables are those of a fleet of KCL 3.x, as it left them: files are named by their
// common beginning.
func goldenWorld(t *testing.T, name string) *world {
	t.Helper()
	db := dynamotest.New(dynamotest.WithClock(serverTime))
	t.Cleanup(db.Close)
	w := &world{t: t, db: db, table: NewTable(db.API(), tableName), start: time.Now()}
	for suffix, key := range map[string]string{"": attrKey, coordinatorSuffix: "key", workersSuffix: attrWorkerID} {
		for _, g := range goldens(t) {
			if g.name != name+suffix {
				continue
			}
			createGolden(t, db.API(), tableName+suffix, key, len(g.Describe.GSI) > 0)
			for _, item := range g.items(t) {
				db.Put(tableName+suffix, item)
			}
		}
	}
	return w
}

// serverTime is after the golden items were written, and far from the clock of a bubble.
func serverTime() time.Time { return time.Now().AddDate(40, 0, 0) }

// move changes one attribute of an item every period, as a live worker does, until the test ends.
func (w *world) move(table, key, value string, period time.Duration, change func(item map[string]types.AttributeValue, n int)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	w.t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for n := 1; ; n++ {
			if sleep(ctx, period) != nil {
				return
			}
			item := maps.Clone(w.db.Item(table, map[string]types.AttributeValue{key: text(value)}))
			change(item, n)
			w.db.Put(table, item)
		}
	}()
}

func beats(item map[string]types.AttributeValue, n int) { item[attrCounter] = number(int64(1000 + n)) }

func reports(item map[string]types.AttributeValue, _ int) {
	item[attrWorkerSeen] = number(serverTime().Unix())
}

func TestWatchBeforeTheFirstWrite(t *testing.T) {
	const failover = 9 * sec
	young := func(w *world, table, key, worker string, age time.Duration) {
		item := maps.Clone(w.db.Item(table, map[string]types.AttributeValue{key: text(worker)}))
		item[attrWorkerSeen] = number(serverTime().Add(-age).Unix())
		w.db.Put(table, item)
	}
	cases := []struct {
		story, golden string
		edit          func(*world)
		alive         string // the worker that must be named; "" = the table may be used
		unreadable    int
		within, least time.Duration
	}{
		{story: "a table that KCL 2.x left has no marks", golden: "g272-03-mid-checkpoint"},
		{story: "r8.1: a stopped fleet with old reports is taken over after 4/3 F", golden: "g312-10-after-graceful-stop", least: 12 * sec, within: 12 * sec},
		{story: "the same in one table", golden: "g351-10-after-graceful-stop", least: 12 * sec, within: 12 * sec},
		{story: "r8.3: a young report must grow old", golden: "g351-10-after-graceful-stop",
			edit: func(w *world) { young(w, tableName, attrKey, "W1", 20*sec) }, least: 70 * sec, within: 71 * sec},
		{story: "a young report in a table of its own", golden: "g312-10-after-graceful-stop",
			edit: func(w *world) { young(w, tableName+workersSuffix, attrWorkerID, "W1", 20*sec) }, least: 70 * sec, within: 71 * sec},
		{story: "a report of the future is not waited for any longer", golden: "g351-10-after-graceful-stop",
			edit: func(w *world) { young(w, tableName, attrKey, "W1", -time.Hour) }, least: 90 * sec, within: 90 * sec},
		{story: "an owner renews", golden: "g312-03-mid-checkpoint", alive: "W1", within: 7 * sec,
			edit: func(w *world) { w.move(tableName, attrKey, shard0, 3*sec, beats) }},
		{story: "a standby without leases reports", golden: "g351-10-after-graceful-stop", alive: "W1", within: 33 * sec,
			edit: func(w *world) {
				young(w, tableName, attrKey, "W1", 0)
				w.move(tableName, attrKey, "W1", 30*sec, reports)
			}},
		{story: "a standby reports in a table of its own", golden: "g312-10-after-graceful-stop", alive: "W1", within: 33 * sec,
			edit: func(w *world) {
				young(w, tableName+workersSuffix, attrWorkerID, "W1", 0)
				w.move(tableName+workersSuffix, attrWorkerID, "W1", 30*sec, reports)
			}},
		{story: "a hand-over begins", golden: "ho351-02-handoff-done", alive: "NEXT", within: 6 * sec,
			edit: func(w *world) {
				w.move(tableName, attrKey, "shardId-000000000002", 2*sec, func(item map[string]types.AttributeValue, _ int) {
					item[attrCheckpointOwner], item[attrOwner] = text("OLD"), text("NEXT")
				})
			}},
		{story: "r8.3: UPGRADE_FROM_2X works as 2.x, whoever lives", golden: "mix-272-with-351-compatible",
			edit: func(w *world) { w.move(tableName, attrKey, shard0, 3*sec, beats) }},
		{story: "3X_WITH_ROLLBACK does not", golden: "mig351-03-3x-with-rollback", within: 12 * sec, alive: "?",
			edit: func(w *world) {
				for _, item := range w.db.Items(tableName) {
					if l, err := Decode(item); err == nil {
						w.move(tableName, attrKey, l.Key, 3*sec, beats)
					}
				}
			}},
		{story: "leases that are ours need no watch", golden: "g351-10-after-graceful-stop",
			edit: func(w *world) {
				for _, item := range w.db.Items(tableName) {
					if l, err := Decode(item); err == nil {
						w.edit(l.Key, func(item map[string]types.AttributeValue) {
							item[attrOwner], item[attrAcquisition] = text("A"), text("A#1")
						})
					}
				}
			}},
		{story: "without permission for more, what the leases show counts", golden: "g312-03-mid-checkpoint", alive: "W1", unreadable: 2, within: 7 * sec,
			edit: func(w *world) {
				w.move(tableName, attrKey, shard0, 3*sec, beats)
				other := func(r dynamotest.Request) bool { return r.Table != tableName }
				w.db.Inject(dynamotest.Fault{Kind: dynamotest.AccessDenied, When: other, Count: -1})
			}},
		{story: "without permission for more, a dead fleet is taken over", golden: "g312-03-mid-checkpoint", unreadable: 2, least: 12 * sec, within: 12 * sec,
			edit: func(w *world) {
				other := func(r dynamotest.Request) bool { return r.Table != tableName }
				w.db.Inject(dynamotest.Fault{Kind: dynamotest.AccessDenied, When: other, Count: -1})
			}},
		{story: "marks that 2.x has taken over, without a stored version, are 2.x's", golden: "g312-03-mid-checkpoint", least: 12 * sec, within: 12 * sec,
			edit: func(w *world) {
				for _, suffix := range []string{coordinatorSuffix, workersSuffix} {
					key := map[string]string{coordinatorSuffix: "key", workersSuffix: attrWorkerID}[suffix]
					for _, item := range w.db.Items(tableName + suffix) {
						w.db.DeleteItem(tableName+suffix, map[string]types.AttributeValue{key: item[key]})
					}
				}
				w.move(tableName, attrKey, shard0, 3*sec, beats)
			}},
	}
	for _, c := range cases {
		t.Run(c.story, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := goldenWorld(t, c.golden)
				if c.edit != nil {
					c.edit(w)
				}
				var log testLog
				seen, err := w.table.Watch(t.Context(), WatchConfig{Failover: failover, Clock: func() time.Duration { return time.Since(w.start) }, Log: &log})
				switch {
				case c.alive != "" && (!errors.Is(err, ErrKCL3) || c.alive != "?" && !strings.Contains(err.Error(), "worker "+c.alive+" ")):
					t.Errorf("got %v, want a refusal that names %s", err, c.alive)
				case c.alive == "" && err != nil:
					t.Error(err)
				}
				if took := time.Since(w.start); took > c.within || took < c.least {
					t.Errorf("took %s, want %s to %s", took, c.least, c.within)
				}
				if len(seen.Marks.Unreadable) != c.unreadable {
					t.Errorf("unreadable: %v", seen.Marks.Unreadable)
				}
				if c.alive == "" && len(seen.Snapshot.Leases) == 0 {
					t.Error("no snapshot")
				}
				for operation := range w.db.Counts() {
					if strings.Contains(operation, "Put") || strings.Contains(operation, "Update") || strings.Contains(operation, "Delete") {
						t.Errorf("the watch has called %s", operation)
					}
				}
				if told := len(log.infos()) > 0; told != (c.within > 0) {
					t.Errorf("told %v", log.infos())
				}
			})
		})
	}
}
