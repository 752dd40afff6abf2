package output

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// settleTime is how long after the end of a producer its topic is read: what the broker had taken from a connection that
// broke is stored by then.
const settleTime = time.Second

// A failure of the kind that leaves tracks in doubt comes hardly ever, and a crash seldom. Together they may cost copies,
// never records: what was stored under the old name is known to this process alone, until the count has passed it.

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
	l.reachesOn()
	// The name is the same in all partitions, so what was sent to the others without a receipt is to be looked for too.
	for _, t := range l.tracks {
		if t.used {
			l.doubts = append(l.doubts, t)
		}
	}
	l.inDoubt.Store(len(l.doubts) > 0)
	l.rested = false
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
	ctx, end, err := l.reading(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	select {
	case <-l.closed:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if !l.rested {
		settle := time.NewTimer(settleTime)
		defer settle.Stop()
		select {
		case <-settle.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		l.rested = true
	}
	last := int64(-1)
	expected := map[int][][]*entry{} // the topic may have had other numbers of partitions
	for _, t := range l.doubts {
		if !slices.ContainsFunc(l.tracks, func(now *track) bool { return now.partition.name == t.partition.name }) {
			continue // The topic was deleted and made anew with fewer partitions, and what this one had is gone.
		}
		if expected[t.of] == nil {
			expected[t.of] = l.expected(o, batch, t.of)
		}
		mine := expected[t.of][t.partition.index]
		if len(mine) == 0 {
			continue
		}
		found, err := l.readBack(ctx, t, mine)
		if err != nil {
			return nil, fmt.Errorf("after a failure it is not known which records of %s are stored, and the topic has to be read to find out: %w", l.run.Shard(), err)
		}
		for i, e := range mine {
			if found[i] {
				last = max(last, e.id.Ordinal())
				l.turns.finish(e.id)
			}
		}
	}
	records := recordsOf(batch)
	l.reached(records, last)
	if l.turns.looked(records) && l.reach < 0 {
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

// reading returns a context for reading topics. They may be large: when the shard is lost meanwhile nobody waits for the rest.
func (l *lane) reading(ctx context.Context) (_ context.Context, end func(), _ error) {
	ctx, cancel := context.WithCancelCause(ctx)
	if !l.endsWith(cancel) {
		cancel(nil)
		return nil, nil, fmt.Errorf("writing records of %s: %w", l.run.Shard(), errRunOver)
	}
	return ctx, func() {
		l.endsWith(nil)
		cancel(nil)
	}, nil
}

// readBack tells which of the messages of a track the topic has. Readers are not told the numbers of messages, so they are
// known by their identity.
//
// Behind the last message of which the place is known there can be nothing but these messages, so of equal ones it does not
// matter which is found. Without one the topic is read from its beginning, and may have equal messages that were sent
// long before: a message that is not the only one of its kind then counts as missing, so that it comes twice rather than
// not at all. Where the messages tell their records it is not read from its beginning, but from behind a message with a lower
// number.
func (l *lane) readBack(ctx context.Context, t *track, expected []*entry) (found []bool, err error) {
	wanted := newWanted(expected)
	last := t.last
	if t.met.place != nil && expected[0].id.Ordinal() > t.met.ordinal {
		last = t.met.place
	}
	begins := []pulsar.MessageID{last}
	lowest := expected[0].sequenceNumber()
	if last == nil {
		begins = []pulsar.MessageID{pulsar.EarliestMessageID()}
		if lowest != "" {
			if begins, err = l.begins(ctx, t, len(expected)); err != nil {
				return nil, err
			}
		}
	}
	var there map[identity]int
	for i, at := range begins {
		final, met := i == len(begins)-1, false // a message of the producer's
		there = map[identity]int{}
		s := &scan{session: l.session, topic: t.partition.name, at: at, silence: l.session.scanSilence}
		s.visit = func(m pulsar.Message) bool {
			if m.ProducerName() != t.partition.producer {
				return true
			}
			if sequence := m.Properties()[sequenceProperty]; !met && !final && (sequence == "" || compareSequences(sequence, lowest) >= 0) {
				return false // There may be more in front.
			}
			met = true
			if id, ok := wanted.identify(m); ok {
				there[id]++
				if k := wanted.places[id][0]; id.isRecord() && expected[k].id.Ordinal() >= t.met.ordinal {
					t.met.place, t.met.ordinal = m.ID(), expected[k].id.Ordinal()
				}
			}
			return wanted.contents || len(there) < len(wanted.places)
		}
		if err := s.run(ctx); err != nil {
			return nil, err
		}
		if met {
			break
		}
	}
	found = make([]bool, len(expected))
	for i, id := range wanted.ids {
		if last == nil && !id.isRecord() {
			found[i] = there[id] == 1 && len(wanted.places[id]) == 1
		} else if there[id] > 0 {
			there[id]--
			found[i] = true
		}
	}
	return found, nil
}
