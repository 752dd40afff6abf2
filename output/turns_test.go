package output

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// script plays batches of one run to turns, without an output.
type script struct {
	t     *testing.T
	run   *attempt.Run
	turns turns
}

func newScript(t *testing.T) *script {
	return &script{t: t, run: (&counter{}).newRun().run, turns: newTurns()}
}

// attempt hands records out.
func (s *script) attempt(records ...int64) *attempt.Attempt {
	return s.run.Attempt(len(records), func(i int) attempt.Origin { return attempt.Origin{Ordinal: records[i]} })
}

// take has some of an attempt's records come, and those up to one of them, if they may be sent, be sent and stored.
func (s *script) take(a *attempt.Attempt, upTo int64, records ...int64) (turn, error) {
	s.t.Helper()
	var batch []*attempt.RecordID
	for i := range a.Len() {
		if slices.Contains(records, a.ID(i).Ordinal()) {
			batch = append(batch, a.ID(i))
		}
	}
	if len(batch) != len(records) {
		s.t.Fatal("not of this attempt")
	}
	decided, err := s.turns.take(batch)
	if err != nil {
		return decided, err
	}
	if decided.late {
		s.turns.renamed()
	}
	var entries []entry
	for _, id := range batch {
		if s.turns.isDone(id) {
			continue
		}
		e := entry{id: id, given: id.Ordinal() <= upTo+1, class: transient} // the one that fails was given, too
		if id.Ordinal() <= upTo {
			e.class = confirmed
		}
		entries = append(entries, e)
	}
	s.turns.note(entries)
	open := 0
	for _, f := range s.turns.fates {
		if !f.done {
			open++
		}
	}
	if open != s.turns.open {
		s.t.Errorf("%d records are open, counted %d", open, s.turns.open)
	}
	return decided, nil
}

func (s *script) expect(want turn, wantErr error) func(turn, error) {
	return func(got turn, err error) {
		s.t.Helper()
		if got != want || !errors.Is(err, wantErr) {
			s.t.Errorf("decided %+v, %v; want %+v, %v", got, err, want, wantErr)
		}
	}
}

func TestNothingOvertakesWhatCameAndWasNotStored(t *testing.T) {
	s := newScript(t)
	a := s.attempt(0, 1, 2, 3, 4, 5)
	s.expect(turn{}, nil)(s.take(a, 0, 0, 1, 2))               // 1 fails
	s.expect(turn{}, errOutOfTurn)(s.take(a, 0, 3, 4, 5))      // the other part
	s.expect(turn{done: true}, nil)(s.take(a, 1, 0, 1, 2))     // something tries again, and 2 fails
	s.expect(turn{}, errOutOfTurn)(s.take(a, 0, 3, 4, 5))      //
	b := s.attempt(2, 3, 4, 5)                                 // the replay, in other parts, which come in the wrong order
	s.expect(turn{}, errOutOfTurn)(s.take(b, 0, 4, 5))         //
	s.expect(turn{}, nil)(s.take(b, 3, 2, 3))                  //
	s.expect(turn{}, nil)(s.take(b, 5, 4, 5))                  //
	s.expect(turn{}, nil)(s.take(s.attempt(6, 7, 8), 8, 6, 8)) // 7 is filtered out
	s.expect(turn{}, nil)(s.take(s.attempt(9, 10), 10, 9, 10)) // and nobody waits for it
}

func TestWhatDoesNotComeAgainIsNotWaitedForForEver(t *testing.T) {
	s := newScript(t)
	// A fallback has taken it: the input goes on.
	s.expect(turn{}, nil)(s.take(s.attempt(0, 1, 2), 0, 0, 1, 2))
	s.expect(turn{}, nil)(s.take(s.attempt(3, 4), 3, 3, 4)) // 4 fails
	// It is filtered out from now on: one attempt for it to come, and no more.
	s.expect(turn{}, errOutOfTurn)(s.take(s.attempt(4, 5, 6), 0, 5, 6))
	b := s.attempt(4, 5, 6)
	s.expect(turn{}, nil)(s.take(b, 5, 5))
	s.expect(turn{}, nil)(s.take(b, 6, 6))
	// It comes nevertheless.
	s.expect(turn{late: true}, nil)(s.take(s.attempt(4, 7), 7, 4, 7))
}

// A part that was waited for and came, and failed, is waited for again.
func TestWaitingBeginsAnewWithEachFailure(t *testing.T) {
	s := newScript(t)
	s.expect(turn{}, nil)(s.take(s.attempt(0, 1, 2, 3), -1, 0, 1))
	for range 5 {
		a := s.attempt(0, 1, 2, 3)
		s.expect(turn{}, errOutOfTurn)(s.take(a, 0, 2, 3))
		s.expect(turn{}, nil)(s.take(a, -1, 0, 1))
	}
}

func TestWhatComesBehindHigherOnesNeedsANewName(t *testing.T) {
	s := newScript(t)
	a := s.attempt(0, 1, 2, 3, 4, 5)
	s.expect(turn{}, nil)(s.take(a, 5, 4, 5))
	s.expect(turn{late: true}, nil)(s.take(a, 1, 0, 1))
	s.expect(turn{}, nil)(s.take(a, 3, 2, 3)) // under the new name it is the highest
	// A late copy of it is nobody's business.
	b := s.attempt(6)
	s.expect(turn{}, nil)(s.take(b, 6, 6))
	s.expect(turn{}, nil)(s.take(a, 0, 0, 1))
}

// What was sent under a name that is not gone on with is looked for, part by part.
func TestWhatIsInDoubtIsLookedForInAllParts(t *testing.T) {
	s := newScript(t)
	a := s.attempt(0, 1, 2, 3)
	s.expect(turn{}, nil)(s.take(a, 0, 0, 1, 2)) // 1 is sent and fails
	s.turns.renamed()
	b := s.attempt(1, 2, 3)
	if s.turns.newest = b; s.turns.looked([]*attempt.RecordID{b.ID(1), b.ID(2)}) {
		t.Error("nobody has looked for 1")
	}
	if !s.turns.looked([]*attempt.RecordID{b.ID(0)}) {
		t.Error("all was looked for")
	}
}

// part cuts records out of a batch.
func part(batch service.MessageBatch, from, to int) service.MessageBatch {
	return slices.Clone(batch[from:to])
}

// `split` and `group_by` make several batches of one, and nothing keeps their order. In whatever order they come and fail,
// every record is there once.
func TestBatchesInPartsLoseNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the Pulsar client races with itself here: unbatched, when a connection breaks")
	}
	for name, tc := range map[string]struct {
		fail  func(*pulsartest.Broker)
		order []int // of the parts
	}{
		"the first part fails": {func(b *pulsartest.Broker) {
			b.PassSends("t", 2)
			b.FailSends("t", 1, pulsartest.PersistenceError, "the bookies are away")
		}, []int{0, 1}},
		"the second part comes first": {func(*pulsartest.Broker) {}, []int{1, 0}},
		"the second part comes first, and fails": {func(b *pulsartest.Broker) {
			b.PassSends("t", 2)
			b.FailSends("t", 1, pulsartest.PersistenceError, "the bookies are away")
		}, []int{1, 0}},
		"the first part is left out": {func(b *pulsartest.Broker) {
			b.PassSends("t", 2)
			b.CorruptSends("t", 1)
		}, []int{0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			b := exactBroker(t, 1)
			o := connected(t, b.URL(), exactly)
			s := (&counter{}).newRun()
			s.deliver(t, o, 0)
			tc.fail(b)
			records := from(1, 10)
			for deadline := time.Now().Add(busy); len(records) > 0; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%v are not delivered", records)
				}
				s.confirm(records[0])
				batch, a := s.batch(records...)
				half := len(batch) / 2
				parts := []service.MessageBatch{part(batch, 0, half), part(batch, half, len(batch))}
				var failed error
				for _, k := range tc.order {
					if len(parts[k]) > 0 {
						failed = errors.Join(failed, writeOf(t.Context(), o, parts[k], a))
					}
				}
				a.Done(failed != nil)
				var left []int64
				if failed != nil {
					replay, _ := a.Undelivered(func(int) string { return "" })
					for _, i := range replay {
						left = append(left, records[i])
					}
				}
				records = left
			}
			checkExactly(t, b, "t", 11, true)
		})
	}
}

// An output around this one sends all of a batch again that has failed in part, under the same attempt.
func TestABatchThatIsSentAgainAsAWholeIsStoredOnce(t *testing.T) {
	if raceDetector {
		t.Skip("the Pulsar client races with itself here: unbatched, when a connection breaks")
	}
	for name, fail := range map[string]func(*pulsartest.Broker){
		"a failure without a doubt": func(b *pulsartest.Broker) {
			b.FailSends("t", 1, pulsartest.PersistenceError, "the bookies are away")
		},
		"a message is left out": func(b *pulsartest.Broker) { b.CorruptSends("t", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			b := exactBroker(t, 3)
			o := connected(t, b.URL(), exactly)
			s := (&counter{}).newRun()
			s.deliver(t, o, 0)
			b.PassSends("t", 20)
			fail(b)
			batch, a := s.batch(from(1, 40)...)
			err := errors.New("not sent")
			for deadline := time.Now().Add(busy); err != nil; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
				err = writeOf(t.Context(), o, batch, a)
			}
			checkExactly(t, b, "t", 41, true)
		})
	}
}
