package output

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// settleTime is how long after the end of a producer its topic is read: what the broker had taken from a connection that
// broke is stored by then.
const settleTime = time.Second

// A failure of the kind that leaves tracks in doubt comes hardly ever, and a crash seldom. Together they may cost copies,
// never records: what was stored under the old name is known to this process alone, until the count has passed it; and
// what an earlier run has stored beyond the batch is not looked for.

// bar sees to it that tracks in doubt are not gone on with.
func (l *lane) bar(ctx context.Context) {
	if k := slices.IndexFunc(l.tracks, func(t *track) bool { return t.doubt }); k >= 0 {
		l.abandon(ctx, "the client or the broker may have left records out on "+l.tracks[k].partition.name)
	}
}

// overtaken is abandon for records that come for the first time, from the given one on, behind higher numbers. An earlier run
// may have stored them: in front of anything that is known of this one, unless Pulsar had no number yet above one that this
// run has stored in front of them.
func (l *lane) overtaken(ctx context.Context, first int64) {
	for _, t := range l.tracks {
		if t.fresh < 0 || first < t.fresh {
			t.last, t.used = nil, true
		}
	}
	l.abandon(ctx, "records came behind others that were sent before them")
}

// abandon lets the numbering begin anew, under another name of the producers, and waits until the lease knows: from then on
// nothing can be taken for a duplicate that is none, whoever goes on with the shard. What the topic has already is found out
// before the next batch is sent, see review; if the process ends in between, it comes twice.
//
// That name is not used: prepare begins once more, at the first record that is not confirmed, when the input knows which
// of this batch are.
func (l *lane) abandon(ctx context.Context, why string) {
	if l.not == "" {
		l.session.log.Infof("Shard %s goes on under a new name of its producers: %s", l.run.Shard(), why)
	}
	// The name is the same in all partitions, so what was sent to the others without a receipt is to be looked for too.
	for _, t := range l.tracks {
		if t.used {
			l.doubts = append(l.doubts, t)
		}
	}
	l.inDoubt.Store(len(l.doubts) > 0)
	l.not = l.sequence.Producer
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), barLimit)
	defer cancel()
	unused, err := l.run.Sequence(ctx, len(l.tracks), l.not)
	if err != nil {
		l.session.log.Debugf("Numbering the records of %s anew: %v", l.run.Shard(), err) // prepare does it
		return
	}
	l.not = unused.Producer
}

// barLimit bounds the wait for the lease table, during which a batch that has failed already is held.
const barLimit = 5 * time.Second

// review finds out which messages of the batch are in the topic already, sent by producers that are not gone on with. It
// marks their records as delivered and returns the others. The batch holds everything that was not confirmed when the doubt
// arose, since all of that is replayed at once; or else the next batches do, and are looked for then.
func (l *lane) review(ctx context.Context, o *output, batch service.MessageBatch) (rest service.MessageBatch, err error) {
	if len(l.doubts) == 0 || len(batch) == 0 {
		return batch, nil
	}
	// A topic may be large: when the shard is lost meanwhile nobody waits for the rest.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !l.endsWith(cancel) {
		return nil, fmt.Errorf("writing records of %s: %w", l.run.Shard(), errRunOver)
	}
	defer l.endsWith(nil)
	select {
	case <-l.closed:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	settle := time.NewTimer(settleTime)
	defer settle.Stop()
	select {
	case <-settle.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	expected := map[int][][]*entry{} // the topic may have had other numbers of partitions
	for _, t := range l.doubts {
		if !slices.ContainsFunc(l.tracks, func(now *track) bool { return now.partition.name == t.partition.name }) {
			continue // The topic was deleted and made anew with fewer partitions, and what this one had is gone.
		}
		if expected[t.of] == nil {
			expected[t.of] = l.expected(o, batch, t.of)
		}
		mine := expected[t.of][t.partition.index]
		found, err := l.readBack(ctx, t, mine)
		if err != nil {
			return nil, fmt.Errorf("after a failure it is not known which records of %s are stored, and the topic has to be read to find out: %w", l.run.Shard(), err)
		}
		for i, e := range mine {
			if found[i] {
				l.turns.finish(e.id)
			}
		}
	}
	if l.turns.looked(recordsOf(batch)) {
		l.doubts = nil
		l.inDoubt.Store(false)
	}
	return l.unsettled(o, batch), nil
}

// unsettled returns the messages of the batch that have to be sent. The others count as confirmed.
func (l *lane) unsettled(o *output, batch service.MessageBatch) (rest service.MessageBatch) {
	var there service.MessageBatch
	for _, m := range batch {
		if l.turns.isDone(recordOf(m)) {
			there = append(there, m)
		} else {
			rest = append(rest, m)
		}
	}
	o.holdBackBut(there, l.turns.isDone)
	return rest
}

// expected makes the messages of the batch, for each of so many partitions.
func (l *lane) expected(o *output, batch service.MessageBatch, partitions int) [][]*entry {
	w := &writing{output: o, session: l.session, batch: batch, lane: l, flight: newFlight(&cargo{}, len(batch))}
	texts := o.texts(batch)
	byPartition := make([][]*entry, partitions)
	for i, m := range batch {
		e := &w.flight.entries[i]
		e.id = recordOf(m)
		if w.fill(e, m, i, &texts) != nil {
			continue // It was not sent before, and will not be.
		}
		k := w.exactPartition(e, partitions)
		byPartition[k] = append(byPartition[k], e)
	}
	return byPartition
}

// readBack tells which of the messages of a track the topic has. Readers are not told the numbers of messages, so they are
// known by all that is in them, which with the default properties is never the same.
//
// Behind the last message of which the place is known there can be nothing but these messages, so of equal ones it does not
// matter which is found. Without one the topic is read from its beginning, and may have equal messages that were sent
// long before: a message that is not the only one of its kind then counts as missing, so that it comes twice rather than
// not at all.
func (l *lane) readBack(ctx context.Context, t *track, expected []*entry) (found []bool, err error) {
	wanted, there := map[fingerprint]int{}, map[fingerprint]int{}
	for _, e := range expected {
		wanted[e.fingerprint()]++
	}
	s := &scan{session: l.session, topic: t.partition.name, at: t.last, silence: l.session.scanSilence}
	if s.at == nil {
		s.at = pulsar.EarliestMessageID()
	}
	s.visit = func(m pulsar.Message) {
		if m.ProducerName() != t.partition.producer {
			return
		}
		if f := fingerprintOf(m.Key(), m.OrderingKey(), m.Payload(), m.Properties(), m.EventTime()); wanted[f] > 0 {
			there[f]++
		}
	}
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	found = make([]bool, len(expected))
	for i, e := range expected {
		f := e.fingerprint()
		if t.last == nil {
			found[i] = there[f] == 1 && wanted[f] == 1
		} else if there[f] > 0 {
			there[f]--
			found[i] = true
		}
	}
	return found, nil
}

// fingerprint stands for all that a consumer sees of a message.
type fingerprint [sha256.Size]byte

func (e *entry) fingerprint() fingerprint {
	m := &e.message
	return fingerprintOf(m.Key, m.OrderingKey, m.Payload, m.Properties, m.EventTime)
}

func fingerprintOf(key, orderingKey string, payload []byte, properties map[string]string, when time.Time) fingerprint {
	h := sha256.New()
	part := func(s string) { fmt.Fprintf(h, "%d:%s", len(s), s) }
	part(key)
	part(orderingKey)
	part(string(payload))
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		part(name)
		part(properties[name])
	}
	if ms := when.UnixMilli(); ms > 0 { // no event time is read as 0
		fmt.Fprint(h, ms)
	}
	return fingerprint(h.Sum(nil))
}
