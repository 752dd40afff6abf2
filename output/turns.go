package output

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
)

// errOutOfTurn is returned for a batch in front of which another has to come first.
var errOutOfTurn = errors.New("records in front of these came and are not stored, and Pulsar would drop them behind these: " +
	"if it happens again and again, take the processors away that make several batches of one (`split`, `group_by`)")

// turns keep the records of a run in their order over all the batches that they come in. A batch of the input may come in
// parts, whose order nobody keeps, and again, when something between input and output tries again.
//
// Pulsar forgets a record without a word that comes behind a higher one. So:
//   - What came and was not stored is waited for: a batch that would overtake it is refused. It is not waited for when it
//     does not come again: when the input has gone on without it, because somebody else took it, or when a whole attempt has
//     passed in which it did not come though the input handed it out, because it is filtered out now.
//   - What comes for the first time behind a higher one that was sent cannot go under this name any more. Records that were
//     filtered out look like that until they come, so it cannot be refused before.
//   - What was stored is not sent again, under whatever name.
//
// A process may end between the overtaking and the new name. The next owner finds out, see inherited.go, but the order is lost.
// Lint refuses what makes parts.
type turns struct {
	newest *attempt.Attempt
	fates  map[int64]fate // by ordinal, of the newest attempt's records that have come
	open   int            // how many of them are not done
	top    int64          // the highest of them
	high   int64          // the highest ordinal that was given to the client under the present name, -1 for none
}

// fate is what became of a record.
type fate struct {
	came   bool // in the newest attempt
	waited bool // others were refused in the newest attempt because of it
	passed bool // an attempt has passed in which it was waited for and did not come
	tried  bool // given to the client under the present name, and not overtaken
	doubt  bool // tried and overtaken, or under a name that is not gone on with, and not looked for yet
	done   bool // stored, or in the dead-letter topic
}

func newTurns() turns { return turns{fates: map[int64]fate{}, top: -1, high: -1} }

// turn is what turns decide on a batch.
type turn struct {
	late bool // it needs a new name
	done bool // some of it need not be sent
}

// take decides on a batch, all of it of one attempt and in ascending order.
func (t *turns) take(batch []*attempt.RecordID) (turn, error) {
	a := batch[0].Attempt()
	if t.newest != nil && a.Number() < t.newest.Number() {
		return turn{}, nil // it is over, and nothing of it will be sent
	}
	if a != t.newest {
		t.advance(a)
	}
	var decided turn
	undone := 0
	for _, id := range batch {
		o := id.Ordinal()
		f, known := t.fates[o]
		if !known {
			t.open++
		}
		f.came, f.passed = true, false
		t.fates[o] = f
		t.top = max(t.top, o)
		if f.done {
			decided.done = true
			continue
		}
		undone++
		decided.late = decided.late || !f.tried && o <= t.high
	}
	if t.open > undone {
		return decided, t.wait(batch)
	}
	return decided, nil
}

// wait refuses a batch that would overtake records that have come before.
func (t *turns) wait(batch []*attempt.RecordID) (err error) {
	a, last := batch[0].Attempt(), batch[len(batch)-1].Ordinal()
	for o, f := range t.fates {
		if f.done || o > last {
			continue
		}
		if _, in := slices.BinarySearchFunc(batch, o, func(id *attempt.RecordID, o int64) int { return cmp.Compare(id.Ordinal(), o) }); in {
			continue
		}
		if f.passed {
			f.tried, f.doubt = false, f.doubt || f.tried
		} else {
			f.waited = true
			err = fmt.Errorf("record %d of the run of %s: %w", o, a.Shard(), errOutOfTurn)
		}
		t.fates[o] = f
	}
	return err
}

// advance forgets what the next attempt does not hold: the input takes it for delivered.
func (t *turns) advance(a *attempt.Attempt) {
	if t.newest = a; a.ID(0).Ordinal() > t.top {
		clear(t.fates) // as nearly always
		t.open = 0
		return
	}
	for o, f := range t.fates {
		if a.Has(o) {
			f.passed = f.passed || f.waited && !f.came
			f.came, f.waited = false, false
			t.fates[o] = f
		} else if delete(t.fates, o); !f.done {
			t.open--
		}
	}
}

// note takes in what became of a part's messages.
func (t *turns) note(entries []entry) {
	for i := range entries {
		e := &entries[i]
		if e.id == nil {
			continue
		}
		o := e.id.Ordinal()
		f, ok := t.fates[o]
		if !ok {
			continue
		}
		if e.given {
			f.tried = true
			t.high = max(t.high, o)
		}
		t.fates[o] = f
		if e.class == confirmed || e.class == buried {
			t.finish(e.id)
		}
	}
}

// finish notes that a record is in the topic, or in that of dead letters.
func (t *turns) finish(id *attempt.RecordID) {
	if f, ok := t.fates[id.Ordinal()]; ok && !f.done {
		f.done = true
		t.open--
		t.fates[id.Ordinal()] = f
	}
}

// isDone tells whether a record need not be sent.
func (t *turns) isDone(id *attempt.RecordID) bool { return t.fates[id.Ordinal()].done }

// renamed begins another name: nothing was sent under it. What was sent under the old one is in doubt.
func (t *turns) renamed() {
	t.high = -1
	for o, f := range t.fates {
		f.doubt = f.doubt || f.tried && !f.done
		f.tried = false
		t.fates[o] = f
	}
}

// looked notes that a batch's records were looked for in the topic, and reports whether that was all that is in doubt.
func (t *turns) looked(batch []*attempt.RecordID) (all bool) {
	for _, id := range batch {
		if f, ok := t.fates[id.Ordinal()]; ok {
			f.doubt = false
			t.fates[id.Ordinal()] = f
		}
	}
	for _, f := range t.fates {
		if f.doubt && !f.done {
			return false
		}
	}
	return true
}
