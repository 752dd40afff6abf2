package kcltest_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kcltest"
)

// The leader of n workers w00, w01, … as a real JDK shuffles them.
func TestLeaderIsTheOneThatJavaShufflesToTheFront(t *testing.T) {
	for n, index := range map[int]int{1: 0, 2: 0, 3: 2, 4: 3, 5: 4, 6: 2, 7: 2, 8: 2, 16: 11, 31: 22, 100: 95} {
		var owners []string
		for i := range n {
			owners = append(owners, fmt.Sprintf("w%03d", i))
		}
		if got, want := kcltest.Leader(append(owners, owners...)), owners[index]; got != want {
			t.Errorf("%d workers: %s leads, want %s", n, got, want)
		}
	}
	if got := kcltest.Leader(nil); got != "" {
		t.Errorf("without owners %s leads", got)
	}
}

func (f *fleet) owners() map[string]int {
	owners := map[string]int{}
	for _, s := range f.stream.Shards() {
		owners[f.text(s.ID, "leaseOwner")]++
	}
	return owners
}

// The first takes everything; who comes later steals one lease per round until it has its share, and then nobody moves.
func TestSharesBecomeFairOneTheftARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 6)
		f.start("A")
		time.Sleep(time.Minute)
		if got := fmt.Sprint(f.owners()); got != "map[A:6]" {
			t.Fatalf("cold start: %s", got)
		}
		began := time.Now()
		f.start("B")
		for f.owners()["B"] < 3 {
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took < 30*time.Second || took > 70*time.Second {
			t.Errorf("three thefts took %s, want about three rounds of 20 s", took)
		}
		f.mu.Lock()
		n := len(f.events)
		f.mu.Unlock()
		time.Sleep(10 * time.Minute)
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, e := range f.events[n:] {
			if !strings.Contains(e, "begun") && !strings.Contains(e, "lost") {
				t.Errorf("churn: %s", e)
			}
		}
	})
}

func TestADeadWorkerIsReplacedInTwentyToFortySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 4)
		f.start("A")
		f.start("B")
		time.Sleep(3 * time.Minute)
		f.cancels["A"]()
		died := time.Now()
		for f.owners()["A"] > 0 {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(died); took < 6*time.Second || took > 41*time.Second {
			t.Errorf("took over after %s", took)
		}
	})
}

// One item that is no lease ends every scan of KCL 2.x, and with it taking and auditing; 3.5 skips it.
func TestAForeignItemEndsScansOfKCL2Only(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for generation, scans := range map[kcltest.Generation]bool{kcltest.KCL2: false, kcltest.KCL3: true} {
			f := newFleet(t, 2)
			f.start("A", func(c *kcltest.Config) { c.Generation = generation })
			time.Sleep(time.Minute)
			f.db.Put(tableName, item{"leaseKey": &types.AttributeValueMemberS{Value: "note"}, "entityType": &types.AttributeValueMemberS{Value: "OURS"}})
			f.cancels["A"]()
			f.start("B", func(c *kcltest.Config) { c.Generation = generation })
			time.Sleep(10 * time.Minute)
			if took := f.owners()["B"] == 2; took != scans {
				t.Errorf("generation %d: %v, %v", generation, f.owners(), f.events)
			}
			for _, stop := range f.cancels {
				stop()
			}
		}
	})
}

// A checkpoint whose answer is lost is repeated by the SDK, fails on itself, and costs the lease; the worker takes it again
// once it has expired. A renewal in the same case is recognised.
func TestALostAnswerCostsALeaseAtACheckpointOnly(t *testing.T) {
	for what, checkpoint := range map[string]bool{"checkpoint": true, "renewal": false} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 1)
				api := &loser{API: f.db.Direct(nil), checkpoint: checkpoint}
				f.start("A", func(c *kcltest.Config) { c.API, c.ProcessPause = api, 100*time.Millisecond })
				time.Sleep(time.Minute)
				if !checkpoint {
					f.putAll(1)
					time.Sleep(time.Second)
				}
				synctest.Wait()
				api.armed.Store(true)
				if checkpoint {
					f.putAll(1)
				}
				time.Sleep(10 * time.Second)
				f.mu.Lock()
				lost := slices.Contains(f.events, "A lost shardId-000000000000")
				f.mu.Unlock()
				if api.armed.Load() {
					t.Fatal("no fault happened")
				}
				if lost != checkpoint {
					t.Errorf("lost: %v", f.events)
				}
				time.Sleep(time.Minute)
				if f.owners()["A"] != 1 {
					t.Error("not taken again")
				}
			})
		})
	}
}

// loser loses the answer of one checkpoint or renewal, once it is armed.
type loser struct {
	kcltest.API
	checkpoint bool
	armed      atomic.Bool
}

func (l *loser) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, o ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	out, err := l.API.UpdateItem(ctx, in, o...)
	if _, is := in.AttributeUpdates["checkpoint"]; is == l.checkpoint && l.armed.CompareAndSwap(true, false) {
		return nil, io.EOF
	}
	return out, err
}

// A lease that was given up is free at once for KCL 2.6, and must age for 2.5.
func TestALeaseGivenUpIsFree(t *testing.T) {
	for expire, most := range map[bool]time.Duration{false: 21 * time.Second, true: 42 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, 2)
			f.start("A", func(c *kcltest.Config) { c.UnownedMustExpire = expire })
			f.start("B", func(c *kcltest.Config) { c.UnownedMustExpire = expire })
			time.Sleep(3 * time.Minute)
			key := "shardId-000000000000"
			f.cancels[f.text(key, "leaseOwner")]()
			m := f.read(key)
			delete(m, "leaseOwner")
			m["leaseCounter"] = &types.AttributeValueMemberN{Value: "900"}
			f.db.Put(tableName, m)
			since := time.Now()
			for f.text(key, "leaseOwner") == "" {
				time.Sleep(100 * time.Millisecond)
			}
			took := time.Since(since)
			if took > most || expire && took < 10*time.Second {
				t.Errorf("must expire %v: taken after %s", expire, took)
			}
		})
	}
}
