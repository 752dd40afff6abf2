package output

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// With de-duplication every message carries the number that the input gave its record, and goes through a producer of the
// record's shard alone. Pulsar remembers, for each name of a producer in each partition, the last number that it has
// stored, and answers a message whose number does not lie above with a receipt and without storing it. So whatever is sent
// again, by the client, by a replay or by the shard's next owner, is stored once.
//
// The same rule loses data wherever a number is stored before one below it: that one, when it comes, is dropped with a
// receipt that looks like success. Everything here serves to keep it from happening, or to notice it
// (record_path_rules.md 25):
//   - Messages are sent one by one, in the order of their numbers, which come from the input in the records' metadata.
//   - The first failure, of whatever kind, stops the shard: what is above is sent when what failed is stored, or is in the
//     dead-letter topic.
//   - Where the client may have gone on behind a failure the partition is in doubt: see track.

// switchOn is what the person is told to do.
const switchOn = "Switch it on, with `pulsar-admin namespaces set-deduplication --enable TENANT/NAMESPACE` or `pulsar-admin topics set-deduplication --enable TOPIC`"

// Errors of de-duplication that a person has to mend.
var (
	// errNotNumbered is returned for a message that does not tell which record it is.
	errNotNumbered = errors.New("with " + fieldDeduplication + " every message must come from the kinesis_pulsar input and keep its metadata (" +
		attempt.RecordIDKey + "): in mappings, write to the message instead of replacing its metadata (no `meta = deleted()`), and do not make new messages")
	// errNotAscending is returned when the messages of a batch are not in the order of their records.
	errNotAscending = errors.New("with " + fieldDeduplication + " the messages of a batch must be in the order of their records, one message a record: " +
		"take the processors away that split, copy, group or sort messages")
	// errManyShards is returned when batches of several shards were merged.
	errManyShards = errors.New("with " + fieldDeduplication + " a batch must be of one shard: take away what merges batches, as `buffer`, `batching` and `group_by` do")
	// errNotDeduplicated is returned when the broker stored the same number twice.
	errNotDeduplicated = errors.New(fieldDeduplication + ": the topic does not de-duplicate: the broker stored a message twice that was sent twice with one number. " +
		switchOn + ", and start again")
	// errDeduplicationOff is returned when the admin API says that no policy switches de-duplication on.
	errDeduplicationOff = errors.New(fieldDeduplication + ": the topic does not de-duplicate. " + switchOn)
	// errLeftOut is the end of a producer of which the broker has left a message out.
	errLeftOut = errors.New("the broker may have left a message out and stored later ones")
	// errRunOver is returned for a batch whose run of its shard has ended.
	errRunOver = errors.New("the shard's run is over, and so are its producers")
)

// exactPending is the most messages of a shard that are sent before their receipts are waited for. The client makes room
// for all of them in every producer, of which there may be one for each shard and partition.
const exactPending = 1000

// writeExact is WriteBatch with de-duplication.
func (o *output) writeExact(ctx context.Context, s *session, batch service.MessageBatch) error {
	if err := s.refused(); err != nil {
		o.holdBack(batch)
		return o.notConnected(err)
	}
	if err := checkNumbered(batch); err != nil {
		o.holdBack(batch)
		return err
	}
	run := recordOf(batch[0]).Attempt().Run()
	name, _ := o.conf.topic.static()
	t, err := s.topics.use(name, time.Now())
	if err != nil {
		o.holdBack(batch)
		return err
	}
	defer s.topics.done(t, time.Now())
	known, err := t.known(ctx)
	if err != nil {
		o.holdBack(batch)
		return o.unsent(s, err)
	}
	l, err := s.lanes.enter(ctx, run)
	if err != nil {
		o.holdBack(batch)
		return err
	}
	defer l.leave()
	turn, err := l.turns.take(recordsOf(batch))
	if err != nil {
		o.holdBack(batch)
		return err
	}
	if turn.late && l.not == "" {
		l.overtaken(ctx, recordOf(batch[0]).Ordinal())
	}
	if err := l.prepare(ctx, t, known); err != nil {
		o.holdBack(batch)
		return err
	}
	rest := batch
	if turn.done {
		rest = l.unsettled(o, batch)
	}
	left, err := l.review(ctx, o, rest)
	if err != nil {
		o.holdBack(rest)
		return err
	}
	rest = left
	if len(rest) > 0 {
		err = o.writeParts(ctx, s, l, rest)
	}
	l.bar(ctx)
	if len(rest) < len(batch) && err != nil {
		// A plain error: it is none of this batch, and ErrNotConnected would have all of it sent again, in place.
		return fmt.Errorf("writing what the topic did not have: %s", err)
	}
	return err
}

// recordsOf returns the records of a batch that checkNumbered has passed.
func recordsOf(batch service.MessageBatch) []*attempt.RecordID {
	ids := make([]*attempt.RecordID, len(batch))
	for i, m := range batch {
		ids[i] = recordOf(m)
	}
	return ids
}

// checkNumbered checks that the batch is what the input handed out, perhaps without some of its records.
func checkNumbered(batch service.MessageBatch) error {
	var last *attempt.RecordID
	for _, m := range batch {
		v, _ := m.MetaGetImmut(attempt.RecordIDKey)
		id, ok := v.(*attempt.RecordID)
		switch {
		case !ok || id == nil:
			return errNotNumbered
		case last == nil:
		case id.Attempt() != last.Attempt():
			return errManyShards
		case id.Ordinal() <= last.Ordinal():
			return fmt.Errorf("record %s after %s: %w", id, last, errNotAscending)
		}
		last = id
	}
	return nil
}

// settled notes what became of the messages of a part, whose flight is done or given up. A track is in doubt when a message
// failed and one behind it may be stored.
func (l *lane) settled(entries []entry) {
	for i := range entries {
		e := &entries[i]
		if e.place == nil || e.place.track == nil {
			continue
		}
		t := e.place.track
		t.used = true
		switch {
		case e.class == confirmed:
			if t.missing {
				// The client promises that it can't be: what was sent behind a message that failed was stored.
				t.doubt = true
			}
			if !e.duplicate && (t.fresh < 0 || e.id.Ordinal() < t.fresh) {
				t.fresh = e.id.Ordinal()
			}
			if !e.duplicate && !t.missing {
				t.last = e.stored
			}
		case e.class == transient:
			t.missing = true
			t.doubt = t.doubt || e.doubtful || e.generation != nil && e.generation.suspect.Load()
			if e.generation != nil && !slices.Contains(t.waited, e.generation) {
				t.waited = append(t.waited, e.generation)
			}
		}
	}
	for _, t := range l.tracks {
		t.missing = false
	}
}

// judge looks, before anything is sent through the places, at the generations whose receipts were not waited for, since the
// caller's context had ended. The client may have told of a message that was left out only after that, and what is sent
// again would be taken for a duplicate. A generation that has a successor is closed, and nothing more comes to be known of
// it; receipts of one that lives are judged when they come.
func (l *lane) judge(places []*place) error {
	var err error
	for _, p := range places {
		t := p.track
		if t == nil {
			continue
		}
		t.waited = slices.DeleteFunc(t.waited, func(g *generation) bool {
			if g == p.generation {
				return false
			}
			if g.suspect.Load() {
				t.doubt = true
				err = fmt.Errorf("writing to %s: %w", t.partition.name, errLeftOut)
			}
			return true
		})
	}
	return err
}

// receivedExact is what the callback notes with de-duplication. An id of -1:-1 says that the broker has stored the number,
// or a higher one, before: as long as numbers were sent in their order and none has failed, that is as good as stored.
func (e *entry) receivedExact(id pulsar.MessageID, err error) {
	e.flight.mu.Lock()
	defer e.flight.mu.Unlock()
	if e.flight.mu.givenUp {
		return // the entry is not ours any more
	}
	switch {
	case err != nil:
		e.doubtful = spontaneous(err)
	case notStored(id):
		e.duplicate = true
	default:
		e.stored = id
	}
}

// suspect is told what the client writes into its log when a broker has left a message out and perhaps taken those behind
// it. The client connects again and sends all of them, and the broker answers each with a receipt, of a duplicate: from now
// on none of those is believed. Without the name of a partition it is all of them. It must not wait.
func (ls *lanes) suspect(partition string, cause error) {
	ls.mu.Lock()
	var all []*lane
	for _, l := range ls.mu.byRun {
		all = append(all, l)
	}
	ls.mu.Unlock()
	for _, l := range all {
		l.mu.Lock()
		open := l.mu.open
		l.mu.Unlock()
		for _, t := range open {
			// The client may write the name out where it was given in short.
			if g := t.partition.last(); g != nil && (strings.HasSuffix(partition, t.partition.name) || strings.HasSuffix(t.partition.name, partition)) {
				g.suspect.Store(true)
				g.retire(cause)
			}
		}
	}
}

// leftOut are the beginnings of those lines. A failed write, and whatever else goes wrong with a topic rather than with a
// message, is none of them: the broker then ends the producer, and takes nothing behind it.
var leftOut = []string{
	"Received send error from server: [ChecksumError]",
	"Received send error from server: [NotAllowedError]",
	"Received ack for ",
}

// observeLeftOut takes in a log line of the client.
func (ls *lanes) observeLeftOut(text string, fields log.Fields) {
	for _, begin := range leftOut {
		if strings.HasPrefix(text, begin) && !strings.Contains(text, "local > remote") {
			partition, _ := fields["topic"].(string)
			ls.suspect(partition, fmt.Errorf("%w: %s", errLeftOut, text))
		}
	}
}

// refuse ends all writing of the session.
func (s *session) refuse(err error) { s.refusal.Store(&err) }

// refused returns why nothing may be written any more, nil if all is well.
func (s *session) refused() error {
	if err := s.refusal.Load(); err != nil {
		return *err
	}
	return nil
}

// passing tells of an error that it is nobody's failure and ends by itself: others come first; or the last owner's producers
// are still connected, until the broker misses a sign of life of a process that was killed or stands still. When that lasts,
// the partition's trouble tells so, once.
func passing(err error) bool {
	return errors.Is(err, errOutOfTurn) || strings.Contains(err.Error(), "ProducerBusy")
}

// spontaneous tells that the client failed a message by itself and goes on with those behind it, as it does when a quota
// is exceeded. When a producer ends, whoever ended it, nothing behind what it failed is sent any more.
func spontaneous(err error) bool {
	for _, end := range []error{pulsar.ErrProducerClosed, pulsar.ErrTopicTerminated, pulsar.ErrTopicNotfound, pulsar.ErrProducerFenced, errPanicked} {
		if errors.Is(err, end) {
			return false
		}
	}
	return true
}

// prove sends a message once more that was just stored: the only way to learn from a broker whether the topic
// de-duplicates. If it does not, the topic has that one message twice, and nothing more is written to it.
func (l *lane) prove(ctx context.Context, w *writing) error {
	s := l.session
	if s.proven.Load() {
		return nil
	}
	var stored *entry
	for i := range w.kept {
		if e := &w.flight.entries[i]; e.class == confirmed && e.place.track != nil {
			if e.duplicate {
				s.proven.Store(true)
				return nil
			}
			stored = e
		}
	}
	if stored == nil {
		return nil
	}
	again := &writing{output: w.output, session: s, lane: l, kept: 1, flight: newFlight(&cargo{}, 1), attempts: w.attempts}
	e := &again.flight.entries[0]
	e.message, e.sequence = stored.message, stored.sequence
	e.message.SequenceID = &e.sequence
	// The map belongs to the part, which uses it again while the client may still be sending this, if the wait is cut short.
	e.message.Properties = maps.Clone(stored.message.Properties)
	again.placeAt(e, l.places(again), stored.place.track.partition.index)
	if sent, _ := again.dispatch(ctx); !sent {
		return nil // The next part is as good for the proof.
	}
	switch {
	case e.class == confirmed && e.duplicate:
		s.proven.Store(true)
	case e.class == confirmed:
		s.refuse(errNotDeduplicated)
		return errNotDeduplicated
	}
	return nil
}
