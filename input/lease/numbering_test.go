package lease

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

// numberOf asks for the numbering of a run that has confirmed so many records, with four partitions.
func numberOf(t *testing.T, h *Held, confirmed int64, next string) Numbering {
	t.Helper()
	n, err := h.Number(t.Context(), Numbered{Partitions: 4, Records: confirmed, Next: at(next)})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// mustCount expects that the first lease's item counts so many records of the epoch up to the position.
func (w *world) mustCount(records int64, epoch, position string) {
	w.t.Helper()
	l := w.read(shard0)
	if l.DedupCount == nil || *l.DedupCount != records || l.DedupEpoch != epoch || string(l.DedupAt) != string(hashOf(at(position))) {
		w.t.Errorf("want %d records of epoch %s up to %s: %+v", records, epoch, position, l)
	}
}

// What the next owner goes on from: epoch and count are in the item before the first record may be sent, and move with
// the checkpoint in one write.
func TestTheCountMovesWithTheCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := holding(t, checkpoint.TrimHorizon)
		h.Starts(at("101"), false)
		first := numberOf(t, h, 0, "101")
		w.mustCount(0, first.Epoch, checkpoint.TrimHorizon)
		if l := w.read(shard0); first.First != 0 || first.Epoch == "" || l.DedupParts != 4 || string(l.DedupFirst) != string(hashOf(at("101"))) {
			t.Errorf("%+v; lease %+v", first, l)
		}
		if time.Since(w.start) > 2*sec {
			t.Errorf("the first batch waited %s", time.Since(w.start))
		}
		h.Confirmed(at("110"), 10)
		a.close()
		w.mustCount(10, first.Epoch, "110")
		_, h = w.takesOver("B")
		h.Starts(at("111"), false)
		if n := numberOf(t, h, 0, "111"); n != (Numbering{Epoch: first.Epoch, First: 10}) {
			t.Errorf("the next owner numbers %+v after %+v", n, first)
		}
		// An output that never asks does not stop the count.
		h.Confirmed(at("115"), 5)
		time.Sleep(5 * sec)
		w.mustCount(15, first.Epoch, "115")
	})
}

// A lease that was never numbered costs nothing, and an epoch may begin in the middle of a run.
func TestAnEpochBeginsInTheMiddleOfARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, h := holding(t, "100")
		h.Starts(at("101"), false)
		h.Confirmed(at("107"), 7)
		time.Sleep(5 * sec)
		if l := w.read(shard0); l.DedupCount != nil || l.DedupAt != nil || l.Checkpoint != at("107") {
			t.Errorf("%+v", l)
		}
		n := numberOf(t, h, 7, "108")
		if n.First != -7 {
			t.Errorf("%+v", n)
		}
		w.mustCount(0, n.Epoch, "107")
		h.Confirmed(at("109"), 9)
		time.Sleep(5 * sec)
		w.mustCount(2, n.Epoch, "109")
		// The epoch must not be gone on with: another begins at the first unconfirmed record.
		again, err := h.Number(t.Context(), Numbered{Partitions: 4, Records: 9, Next: at("110"), Not: n.Epoch})
		if err != nil || again.Epoch == n.Epoch || again.First != -9 {
			t.Errorf("%+v, %v", again, err)
		}
		w.mustCount(0, again.Epoch, "109")
		if l := w.read(shard0); string(l.DedupFirst) != string(hashOf(at("110"))) {
			t.Errorf("%+v", l)
		}
	})
}

// Rule 25g: wherever the count may not belong to the position any more, a new epoch begins.
func TestAStaleCountBeginsANewEpoch(t *testing.T) {
	kcl := func(w *world) {
		w.edit(shard0, func(item map[string]types.AttributeValue) { item[attrCheckpoint] = text("150") })
	}
	for _, tc := range []struct {
		name    string
		confirm int64 // records by the first owner
		between func(*world)
		first   string // record of the second owner's run
		trimmed bool
		same    bool
	}{
		{"nothing happened", 10, nil, "111", false, true},
		{"KCL moved the checkpoint", 10, kcl, "151", false, false},
		{"KCL moved the sub-sequence number alone", 10, func(w *world) {
			w.edit(shard0, func(item map[string]types.AttributeValue) { item[attrSub] = number(3) })
		}, "111", false, false},
		{"reset by hand to the beginning", 10, func(w *world) {
			w.edit(shard0, func(item map[string]types.AttributeValue) { item[attrCheckpoint] = text(checkpoint.TrimHorizon) })
		}, "101", false, false},
		{"the count was taken away", 10, func(w *world) {
			w.edit(shard0, func(item map[string]types.AttributeValue) { delete(item, attrDedupCount) })
		}, "111", false, false},
		{"the epoch was taken away", 10, func(w *world) {
			w.edit(shard0, func(item map[string]types.AttributeValue) { delete(item, attrDedupEpoch) })
		}, "111", false, false},
		{"trimmed behind the checkpoint", 10, nil, "120", true, false},
		{"nothing confirmed, the same first record", 0, nil, "101", false, true},
		// The checkpoint of an epoch without a confirmed record need not be a record's.
		{"nothing confirmed, the same first record, the checkpoint's is gone", 0, nil, "101", true, true},
		{"nothing confirmed, another first record", 0, nil, "102", false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, h := holding(t, checkpoint.TrimHorizon)
				h.Starts(at("101"), false)
				before := numberOf(t, h, 0, "101")
				if tc.confirm > 0 {
					h.Confirmed(at(fmt.Sprint(100+tc.confirm)), tc.confirm)
				}
				a.close()
				if tc.between != nil {
					tc.between(w)
				}
				_, h = w.takesOver("B")
				h.Starts(at(tc.first), tc.trimmed)
				after := numberOf(t, h, 0, tc.first)
				if same := after.Epoch == before.Epoch; same != tc.same {
					t.Fatalf("epoch %s after %s", after.Epoch, before.Epoch)
				}
				want := int64(0)
				if tc.same {
					want = tc.confirm
				}
				if l := w.read(shard0); after.First != want || *l.DedupCount != want {
					t.Errorf("numbers from %d, lease %+v", after.First, l)
				}
			})
		})
	}
}

// A count that turned out stale is not written on, though nobody asks for numbers in this run: the next one, which does,
// would take it for sound.
func TestAStaleCountIsNotMovedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := holding(t, checkpoint.TrimHorizon)
		old := numberOf(t, h, 0, "101")
		h.Confirmed(at("110"), 10)
		a.close()
		b, h := w.takesOver("B")
		h.Starts(at("200"), true)
		h.Confirmed(at("201"), 2)
		b.close()
		_, h = w.takesOver("C")
		h.Starts(at("202"), false)
		if n := numberOf(t, h, 0, "202"); n.Epoch == old.Epoch {
			t.Error("a count with a hole was gone on with")
		}
	})
}

func TestRecordsThatWentMissingBeginANewEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, h := holding(t, "100")
		n := numberOf(t, h, 0, "101")
		h.Confirmed(at("105"), 5)
		h.Miscounted()
		if again := numberOf(t, h, 5, "190"); again.Epoch == n.Epoch || again.First != -5 {
			t.Errorf("%+v after %+v", again, n)
		}
	})
}

func TestChangedPartitionsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, h := holding(t, "100")
		numberOf(t, h, 0, "101")
		if _, err := h.Number(t.Context(), Numbered{Partitions: 5, Next: at("101")}); !errors.Is(err, ErrPartitionsChanged) {
			t.Errorf("%v", err)
		}
	})
}

// The answer of the write that begins an epoch is lost: the epoch counts as begun only when an answer shows it.
func TestAnEpochWhoseAnswerIsLost(t *testing.T) {
	for _, kind := range []dynamotest.Kind{dynamotest.HangAnswer, dynamotest.Hang, dynamotest.LateWrite} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _, h := holding(t, "100")
				w.db.Inject(dynamotest.Fault{Kind: kind, Operation: "UpdateItem", Count: 1, Delay: 1700 * time.Millisecond})
				n := numberOf(t, h, 0, "101")
				w.mustCount(0, n.Epoch, "100")
				if isOver(h) {
					t.Error("the run is over")
				}
			})
		})
	}
}

func TestNumberingEndsWithTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, h := holding(t, "100")
		w.kclSteals(shard0, "KCL")
		if _, err := h.Number(t.Context(), Numbered{Partitions: 1, Next: at("101")}); !errors.Is(err, ErrLost) {
			t.Errorf("%v", err)
		}
		if l := w.read(shard0); l.DedupEpoch != "" {
			t.Errorf("%+v", l)
		}
	})
}

// The reader finds out that records are missing while an epoch, which would count them, is being written: nobody goes on
// waiting for it.
func TestAMiscountEndsTheWaitForAnEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("100"))
		a := w.worker("A").run()
		time.Sleep(sec)
		h := a.mustHold(shard0)
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.Delay, Operation: "UpdateItem", Count: 1, Delay: 500 * time.Millisecond})
		time.AfterFunc(100*time.Millisecond, h.Miscounted)
		asked := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*sec)
		defer cancel()
		if n, err := h.Number(ctx, Numbered{Partitions: 1, Next: at("101")}); err == nil || time.Since(asked) > 200*time.Millisecond {
			t.Errorf("%+v, %v after %s", n, err, time.Since(asked))
		}
		if n := numberOf(t, h, 0, "200"); w.read(shard0).DedupEpoch != n.Epoch {
			t.Error("the next one is not written")
		}
	})
}
