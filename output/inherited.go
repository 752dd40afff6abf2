package output

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
)

// A receipt of a duplicate says that Pulsar has stored the number or a higher one. Which of them it is this run knows of what
// it has sent itself. A run begins, though, with what an earlier one has sent beyond its checkpoint, and that one may have
// ended in the moment between the broker's leaving a message out and the new name's being written to the lease: the message
// is missing, later ones are stored, and nobody knows. So such a receipt is believed when the message was seen in the topic.
//
// In a partition the messages of one producer's name lie in the order of their numbers, and Pulsar deletes from the front
// alone. So a message that is missing was left out if one with a lower number is still there. If none is, it may be deleted
// as well: that is believed unless the partition holds something that is older than the record.

// maxBatch is how many records of a shard the input hands out at once.
const maxBatch = 2000

// clockSkew is how far the clocks of two machines may be apart: whose message is the older one is then not known.
const clockSkew = 5 * time.Second

// unproven tells that the entry's receipt is that of a duplicate which an earlier run may have sent: nothing yet of what
// this one has sent to the partition, up to there, was new to Pulsar.
func (t *track) unproven(e *entry) bool {
	return e.class == confirmed && e.duplicate && (t.fresh < 0 || e.id.Ordinal() < t.fresh)
}

// inherit looks in the topic for the messages of a part of which an earlier run may have sent others and not these. What is
// not found counts as failed: the track is in doubt then, see bar, unless the topic could not be read.
func (l *lane) inherit(ctx context.Context, w *writing) {
	unproven := map[*track][]*entry{}
	for i := range w.flight.entries[:w.kept] {
		e := &w.flight.entries[i]
		if e.place == nil {
			continue
		}
		if e.class == confirmed && !e.duplicate && (l.fresh < 0 || e.id.Ordinal() < l.fresh) {
			l.fresh = e.id.Ordinal()
		}
		if e.place.track.unproven(e) {
			unproven[e.place.track] = append(unproven[e.place.track], e)
		}
	}
	if len(unproven) == 0 {
		return
	}
	l.inherits = true
	ctx, end, err := l.reading(ctx)
	if err == nil {
		defer end()
	}
	for _, t := range l.tracks {
		expected := unproven[t]
		if len(expected) == 0 {
			continue
		}
		r := newRecognition(l, t, expected)
		if err == nil {
			err = r.run(ctx)
		}
		if r.behind != nil {
			t.seen = r.behind
		}
		known, cause := r.next, errLeftOut
		switch {
		case err != nil:
			known = 0
			cause = fmt.Errorf("it is not known which records of %s an earlier run has stored, and the topic has to be read to find out: %w", l.run.Shard(), err)
		case known < len(expected):
			t.doubt = true
		case t.last == nil || t.seen != nil && comparePlaces(t.last, t.seen) < 0:
			t.last = t.seen
		}
		if known < len(expected) {
			t.last = t.seen
		}
		for _, e := range expected[known:] {
			w.flight.revoke(e, fmt.Errorf("writing to %s: %w", t.partition.name, cause))
		}
	}
}

// reachesOn notes, when the name goes, how far beyond what this run has sent an earlier one may have got under it, and into which
// partitions. What was new to Pulsar was not stored by that one, so neither was the batch that it belonged to, nor any behind it.
func (l *lane) reachesOn() {
	limit := l.session.batchLimit
	if !l.inherits || l.fresh >= 0 && l.turns.high >= l.fresh+limit {
		return
	}
	for _, t := range l.tracks {
		t.used = t.used || t.fresh < 0
	}
	l.reach = max(l.reach, l.turns.high+limit)
	if l.fresh >= 0 {
		l.reach = l.fresh + limit
	}
}

// reached takes in that a batch was looked for in the topic, whose last record of those that were found is given, -1 for none.
// When no record of as many as a batch may have is there, the earlier run has not got any further: it had one batch under way.
// Nor has it sent what came to Kinesis after its end.
func (l *lane) reached(batch []*attempt.RecordID, found int64) {
	if l.reach < 0 {
		return
	}
	if found >= 0 {
		l.reach = max(l.reach, found+l.session.batchLimit)
	}
	last := batch[len(batch)-1]
	if last.Ordinal() > l.reach || last.Origin().Arrival.After(l.began.Add(clockSkew)) {
		l.reach = -1
	}
}

// recognition looks for messages of a track that an earlier run may have stored.
type recognition struct {
	lane     *lane
	track    *track
	expected []*entry
	wanted   *wanted
	ordered  bool // by sequence numbers which the messages in the topic have, too

	next   int              // the first of the expected that was not found
	behind pulsar.MessageID // the place of the last message that was seen of those with lower numbers, nil for none

	// Of the reading under way.
	strange bool  // it has met messages of the producer that do not tell their records
	runs    []int // see align: how many of the expected are equal to the last messages, the longest first
	final   bool  // it begins where the topic does
	ledger  int64 // in which the one before began, -1 for none
	first   pulsar.MessageID
	oldest  time.Time // publish time of all that was read
	verdict verdict
}

// verdict is what a reading comes to, before it gets to the end.
type verdict int

const (
	readOn  verdict = iota
	tooLate         // it began behind messages that are looked for: they may be in front
	missing         // the next one is not in the topic
)

func newRecognition(l *lane, t *track, expected []*entry) *recognition {
	r := &recognition{lane: l, track: t, expected: expected, wanted: newWanted(expected), ledger: -1}
	r.ordered = !slices.ContainsFunc(expected, func(e *entry) bool { return e.sequenceNumber() == "" })
	return r
}

// sequenceNumber is that of the message's record, if the message tells it.
func (e *entry) sequenceNumber() string {
	if s := e.message.Properties[sequenceProperty]; s == e.id.Origin().SequenceNumber {
		return s
	}
	return ""
}

// run sets next. It reads no more of the topic than it must: from behind what was found last, or else from its end
// backwards in ever longer steps, until a message with a lower number is seen.
func (r *recognition) run(ctx context.Context) error {
	if r.track.seen != nil {
		if done, err := r.read(ctx, r.track.seen); done || err != nil {
			return err
		}
	}
	begins, err := r.lane.begins(ctx, r.track, len(r.expected))
	if err != nil {
		return err
	}
	for i, at := range begins {
		r.final = i == len(begins)-1
		if done, err := r.read(ctx, at); done || err != nil {
			return err
		}
		if at.EntryID() == 0 && r.first != nil {
			r.ledger = r.first.LedgerID()
		}
	}
	return errors.New("internal: the last reading has decided nothing")
}

// begins are the places to begin reading a partition at, the nearest to its end first. The last one is its beginning, which
// alone is certain to be in front of everything.
//
// Places inside the last ledger can be counted from its end. Of the earlier ones only that their numbers are lower is known,
// which is enough: a reader that begins in a ledger which is not the topic's gets the next one that is. A time is not looked
// for: brokers bisect for it, which needs times that ascend, and those of several clients do not.
func (l *lane) begins(ctx context.Context, t *track, n int) ([]pulsar.MessageID, error) {
	s := &scan{session: l.session, topic: t.partition.name, silence: l.session.scanSilence}
	last, err := s.end(ctx)
	if err != nil {
		return nil, err
	}
	var begins []pulsar.MessageID
	if last.EntryID() >= 0 {
		for back := int64(64 + 4*n); back < last.EntryID(); back *= 8 {
			begins = append(begins, pulsar.NewMessageID(last.LedgerID(), last.EntryID()-back, -1, 0))
		}
		for back := int64(0); back <= last.LedgerID(); back = max(1, 8*back) {
			begins = append(begins, pulsar.NewMessageID(last.LedgerID()-back, 0, -1, 0))
		}
	}
	return append(begins, pulsar.EarliestMessageID()), nil
}

// read reads from a place on, and reports whether that has decided.
func (r *recognition) read(ctx context.Context, at pulsar.MessageID) (done bool, err error) {
	r.reset()
	s := &scan{session: r.lane.session, topic: r.track.partition.name, at: at, silence: r.lane.session.scanSilence, visit: r.visit}
	if err := s.run(ctx); err != nil {
		return false, err
	}
	return r.finish(), nil
}

// reset begins another reading.
func (r *recognition) reset() {
	r.next, r.behind, r.first, r.oldest, r.verdict = 0, nil, nil, time.Time{}, readOn
	r.strange, r.runs = false, nil
}

// finish ends a reading, and reports whether it has decided.
func (r *recognition) finish() bool {
	if r.verdict == readOn {
		r.pass(len(r.expected))
	}
	return r.verdict != tooLate
}

// visit takes in the next message of the topic.
func (r *recognition) visit(m pulsar.Message) (goOn bool) {
	if r.first == nil {
		if r.first = m.ID(); r.first.LedgerID() == r.ledger && !r.final {
			r.verdict = tooLate // There is nothing more in front than before.
			return false
		}
	}
	if when := m.PublishTime(); r.oldest.IsZero() || when.Before(r.oldest) {
		r.oldest = when
	}
	if m.ProducerName() != r.track.partition.producer {
		return true
	}
	if !r.ordered {
		return r.align(m)
	}
	place, equal, ok := r.place(m)
	switch {
	case !ok:
		return true
	case place > r.next && !r.pass(place):
		return false
	}
	r.next = max(r.next, place)
	r.behind = m.ID()
	if equal {
		r.next++
	}
	return r.next < len(r.expected)
}

// place tells how many of the expected messages have lower numbers than a message of the topic, and whether it is equal to
// the one behind them.
func (r *recognition) place(m pulsar.Message) (place int, equal, ok bool) {
	if id, ok := r.wanted.identify(m); ok {
		places := r.wanted.places[id]
		if k, _ := slices.BinarySearch(places, r.next); k < len(places) {
			return places[k], true, true
		}
		return 0, false, false // It was found, and there is another of the same content.
	}
	sequence := m.Properties()[sequenceProperty]
	if sequence == "" {
		return 0, false, false
	}
	k, part := slices.BinarySearchFunc(r.expected, sequence, func(e *entry, sequence string) int {
		return compareSequences(e.sequenceNumber(), sequence)
	})
	return k, false, !part // Of a record with others in its Kinesis record the place is not known.
}

// align is visit for messages that do not tell their records. The topic has them if it has them all, one behind the other;
// messages in front that are like the first of them may be others.
func (r *recognition) align(m pulsar.Message) (goOn bool) {
	r.strange = true
	id, ok := r.wanted.identify(m)
	if !ok {
		r.runs = r.runs[:0]
		return true
	}
	longer := r.runs[:0]
	for _, n := range append(r.runs, 0) {
		if r.wanted.ids[n] == id {
			longer = append(longer, n+1)
		}
	}
	if r.runs = longer; len(longer) > 0 && longer[0] == len(r.expected) {
		r.next, r.behind = len(r.expected), m.ID()
		return false
	}
	return true
}

// pass tells what it means that the expected messages from the next one up to the given place are not where they should be,
// and whether that is all right: because Pulsar has deleted them. Those which it may have deleted are done with.
func (r *recognition) pass(place int) bool {
	for r.next < place && r.verdict == readOn {
		switch {
		case r.behind != nil:
			r.verdict = missing
		case !r.final:
			r.verdict = tooLate
		case !r.mayBeDeleted():
			r.verdict = missing
		default:
			r.next++
		}
	}
	return r.verdict == readOn
}

// mayBeDeleted tells, of the next message, whether Pulsar may have deleted it. Not as long as the partition has anything that
// is older than the record. Nor is it believed where no message with a lower number need ever have been there, since of the
// whole epoch nothing was confirmed when the run began; or where messages do not tell which record they are of, and some have
// lower numbers perhaps.
func (r *recognition) mayBeDeleted() bool {
	if r.lane.sequence.First <= 0 || r.strange {
		return false
	}
	arrival := r.expected[r.next].id.Origin().Arrival
	return arrival.IsZero() || r.oldest.IsZero() || !r.oldest.Before(arrival.Add(-clockSkew))
}

// compareSequences compares decimal numbers without leading zeros.
func compareSequences(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// revoke lets an entry fail of which the broker has a receipt. The flight is done, or given up.
func (f *flight) revoke(e *entry, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.class, e.err = transient, err
	f.mu.failures++
}
