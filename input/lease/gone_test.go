package lease

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// A lease table that was deleted is told, and ends the manager; nothing of it is written any more.
func TestATableThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := lent(t)
		h.Confirmed(at("20"), 0)
		if _, err := w.db.API().DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: aws.String(tableName)}); err != nil {
			t.Fatal(err)
		}
		deleted := time.Now()
		<-a.done
		if d := time.Since(deleted); d > 6*sec {
			t.Errorf("noticed after %s", d)
		}
		if !errors.Is(a.ran, ErrTableGone) || !errors.Is(h.Err(), ErrStopped) || h.Fence().Open() {
			t.Errorf("Run returned %v, the run ended with %v", a.ran, h.Err())
		}
		begin := time.Now()
		if err := a.m.Close(t.Context()); err != nil || time.Since(begin) > sec {
			t.Errorf("Close after %s: %v", time.Since(begin), err)
		}
		if got := a.log.warnings(); len(got) == 0 || !strings.Contains(got[len(got)-1], "table app is gone") {
			t.Errorf("warnings: %q", got)
		}
	})
}

// A replica of DynamoDB's directory may lag: one scan that finds no table is no proof.
func TestAScanThatFindsNoTableOnceEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		api := &forgetful{API: w.db.API()}
		k := w.worker("A", func(c *Config) { c.Table = NewTable(api, tableName) }).run()
		time.Sleep(sec)
		h := k.mustHold(shard0)
		for range 3 {
			api.forgets.Store(true)
			time.Sleep(20 * sec)
			if api.forgets.Load() {
				t.Fatal("no scan")
			}
		}
		if isOver(h) || w.read(shard0).Owner != "A" {
			t.Errorf("the run is over: %v", h.Err())
		}
	})
}

// forgetful has one scan find no table when it is told to.
type forgetful struct {
	API
	forgets atomic.Bool
}

func (f *forgetful) Scan(ctx context.Context, in *dynamodb.ScanInput, opts ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error) {
	if f.forgets.Swap(false) {
		return nil, &types.ResourceNotFoundException{}
	}
	return f.API.Scan(ctx, in, opts...)
}

// A table that somebody has deleted and made anew is as good as deleted, though no scan has missed it: what the workers know
// is all that is left of the positions, and they must not forget it.
func TestATableThatWasMadeAnewIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := lent(t)
		w.db.DropTable(tableName)
		w.db.AddTable(tableName, attrKey)
		deleted := time.Now()
		scans := a.scanned()
		<-a.done
		if d := time.Since(deleted); d < 9*sec || d > 9*sec+3*sec+2*1650*time.Millisecond {
			t.Errorf("noticed after %s", d)
		}
		if !errors.Is(a.ran, ErrTableGone) || h.Fence().Open() {
			t.Errorf("Run returned %v, the run ended with %v", a.ran, h.Err())
		}
		if a.scanned() != scans {
			t.Error("the user was told that there are no leases")
		}
		if got := a.log.warnings(); len(got) == 0 || !strings.Contains(got[len(got)-1], "table app is empty") {
			t.Errorf("warnings: %q", got)
		}
	})
}

// Somebody refills it in time, or a stale read shows it as it was before: the work goes on.
func TestATableThatIsEmptyForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := lent(t)
		w.db.DropTable(tableName)
		w.db.AddTable(tableName, attrKey)
		time.Sleep(8 * sec)
		w.lease(shard0, at("10"))
		time.Sleep(20 * sec)
		if again := a.mustHold(shard0); again == h || again.Lease().Checkpoint != at("10") {
			t.Errorf("%+v", again.Lease())
		}
		// An empty table of long ago, when there were no leases yet, says nothing.
		w.db.SetReadLag(time.Hour)
		time.Sleep(60 * sec)
		a.mustHold(shard0)
	})
}

// A table that has no leases yet is waited at.
func TestAnEmptyTableIsWaitedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.worker("A").run()
		time.Sleep(60 * sec)
		w.lease(shard0, at("1"))
		time.Sleep(5 * sec)
		a.mustHold(shard0)
		if got := a.log.warnings(); len(got) != 0 {
			t.Errorf("warnings: %q", got)
		}
	})
}
