package lease

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

// A time of failing begins with the first failure after some calm, is told of once, and ends with the first success after
// as much calm.
func TestATimeOfFailingIsToldOnce(t *testing.T) {
	const f = 10 * sec
	failed := errors.New("throttled")
	h := newHealth(f)
	step := func(story string, ok, want bool) {
		t.Helper()
		if ok != want {
			t.Errorf("%s: %t", story, ok)
		}
	}
	step("well from the beginning", h.ok(sec), false)
	h.fail(2*sec, failed)
	step("the first failure", h.warn(), true)
	now := 2 * sec
	for ; now < 10*time.Minute; now += 2 * sec {
		step("a success between failures", h.ok(now), false)
		h.fail(now+sec, failed)
		step("another failure", h.warn(), false)
	}
	last := now - sec
	step("a success soon after", h.ok(last+6*f-1), false)
	step("calm", h.ok(last+6*f), true)
	step("calm as before", h.ok(last+7*f), false)
	h.fail(last+8*f, failed)
	step("a failure after some calm", h.warn(), true)

	// Nothing was tried in between, so nothing could be told.
	h.fail(last+20*f, failed)
	step("the first failure in a long time", h.warn(), true)
	if err := h.failing(last+20*f, sec); err != nil {
		t.Errorf("failing since just now: %v", err)
	}
}

// A table that is throttled does some of what it is asked for. It is one time of trouble, and is told once; so is its end.
func TestPartialThrottlingIsToldOnce(t *testing.T) {
	for what, some := range map[string]struct {
		which func(dynamotest.Request) bool
		of    int // one of so many gets through; the SDK tries a scan three times
	}{
		"writes": {isKeep, 2},
		"reads":  {func(r dynamotest.Request) bool { return r.Operation == "Scan" }, 4},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.lease(shard0, at("1"))
				w.lease(shard1, at("1"))
				k := w.worker("A", func(c *Config) { c.NumRetries = 1 }).run()
				time.Sleep(sec)
				n := 0
				fault := w.db.Inject(dynamotest.Fault{Kind: dynamotest.Throttle, Count: -1, When: func(r dynamotest.Request) bool {
					if some.which(r) {
						n++
					}
					return some.which(r) && n%some.of != 0
				}})
				time.Sleep(5 * time.Minute)
				if fault.Hits() < 20 {
					t.Fatalf("%d failures", fault.Hits())
				}
				if got := k.log.warnings(); len(got) != 1 {
					t.Errorf("%d warnings: %q", len(got), got)
				}
				fault.Remove()
				time.Sleep(5 * time.Minute)
				var again []string
				for _, line := range k.log.infos() {
					if strings.HasSuffix(line, " again") {
						again = append(again, line)
					}
				}
				if len(again) != 1 || !strings.Contains(again[0], tableName) {
					t.Errorf("told of the end: %q", again)
				}
				w.db.Inject(dynamotest.Fault{Kind: dynamotest.Throttle, Count: 3, When: some.which})
				time.Sleep(time.Minute)
				if got := k.log.warnings(); len(got) != 2 {
					t.Errorf("the next time of failing: %q", got)
				}
				k.mustHold(shard0)
				k.mustHold(shard1)
			})
		})
	}
}
