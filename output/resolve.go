package output

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// writing is one part of a batch on its way through WriteBatch: first resolved (what goes where), then sent.
type writing struct {
	output  *output
	session *session
	batch   service.MessageBatch // the whole
	begin   int                  // of the part, in it
	flight  *flight              // one entry for each message of the part

	// kept is how many of the part's entries count when it has been sent: those after the first that was refused may not
	// have been.
	kept int

	// lane is set with de-duplication, see exact.go.
	lane *lane
	// halt is why nothing more of the batch may be sent though nothing of the part failed. It is for de-duplication alone.
	halt error

	attempts []*attempt.Attempt
	seen     []seenRecords
	topics   []*topicPlaces
}

// seenRecords notes which records of an attempt the batch holds.
type seenRecords struct {
	attempt *attempt.Attempt
	bits    []uint64
}

// topicPlaces is a topic with its partitions as this batch found them.
type topicPlaces struct {
	topic  *topic
	places []place
	turn   int // where the batch's messages without a key go
}

// resolve works out key, properties, event time and payload of every message, without the broker. A message for which
// that fails is refused: it would fail the same way the next time.
//
// It shortens the part where it must not go on: around a message that is sent in chunks, and after messages that are
// refused and have to be in the dead-letter topic before anything follows them.
func (w *writing) resolve() {
	conf := w.output.conf
	texts := w.output.texts(w.batch)
	f := w.flight
	f.halts = conf.deadLetterTopic != "" || w.lane != nil
	refused := false
	for i := range f.entries {
		e, m := &f.entries[i], w.batch[w.begin+i]
		w.identify(e, m, i)
		if err := w.fill(e, m, w.begin+i, &texts); err != nil {
			f.settle(e, permanent, err)
			refused = true
			continue
		}
		if refused && f.halts {
			w.cut(i)
			return
		}
		if (conf.chunking || f.halts) && w.session.cumbersome(e) {
			if conf.chunking && i > 0 {
				w.cut(i)
				return
			}
			// Refusing it may take until after the packet was cut, and nothing that follows may have been sent by then.
			f.chunked = conf.chunking
			w.cut(i + 1)
			return
		}
	}
}

// cut ends the part before its entry n; nothing of it was sent yet.
func (w *writing) cut(n int) {
	w.kept = n
	w.flight.shorten(n)
}

// identify finds out whose record a message is. The attempt is in the context, which all messages of one share; the
// record is in the metadata, which stays with it through processors that shift contexts between messages.
func (w *writing) identify(e *entry, m *service.Message, i int) {
	if e.attempt = attempt.FromContext(m.Context()); e.attempt != nil {
		w.touch(e.attempt)
	}
	id := recordOf(m)
	if id == nil {
		return
	}
	e.id = id
	w.touch(id.Attempt())
	if w.see(id) {
		// Two messages of one record: no receipt proves the record delivered.
		for k := range w.flight.entries[:i+1] {
			if other := &w.flight.entries[k]; other.id == id {
				other.unmarked = true
			}
		}
	}
}

// recordOf returns the record that a message says to be of, nil if it says nothing.
func recordOf(m *service.Message) *attempt.RecordID {
	v, _ := m.MetaGetImmut(attempt.RecordIDKey)
	id, _ := v.(*attempt.RecordID)
	return id
}

// touch notes an attempt that the batch has messages of; there is one, unless batches were merged on the way.
func (w *writing) touch(a *attempt.Attempt) {
	if n := len(w.attempts); n > 0 && w.attempts[n-1] == a || slices.Contains(w.attempts, a) {
		return
	}
	w.attempts = append(w.attempts, a)
}

// see tells whether the record was in the batch before.
func (w *writing) see(id *attempt.RecordID) bool {
	k := slices.IndexFunc(w.seen, func(s seenRecords) bool { return s.attempt == id.Attempt() })
	if k < 0 {
		k = len(w.seen)
		w.seen = append(w.seen, seenRecords{id.Attempt(), make([]uint64, (id.Attempt().Len()+63)/64)})
	}
	word, bit := &w.seen[k].bits[id.Index()/64], uint64(1)<<(id.Index()%64)
	before := *word&bit != 0
	*word |= bit
	return before
}

// resolvedTexts are the interpolated fields that make up a message, over a batch.
type resolvedTexts struct {
	key, orderingKey batchText
	eventTime        batchEventTime
}

func (o *output) texts(batch service.MessageBatch) resolvedTexts {
	return resolvedTexts{o.conf.key.over(batch), o.conf.orderingKey.over(batch), o.conf.eventTime.over(batch)}
}

func (w *writing) fill(e *entry, m *service.Message, i int, texts *resolvedTexts) error {
	e.source = m
	var err error
	if e.message.Key, err = texts.key.at(i); err != nil {
		return fmt.Errorf("resolving %s: %w", fieldKey, err)
	}
	if e.message.OrderingKey, err = texts.orderingKey.at(i); err != nil {
		return fmt.Errorf("resolving %s: %w", fieldOrderingKey, err)
	}
	if texts.eventTime.set {
		if e.message.EventTime, err = texts.eventTime.at(i); err != nil {
			return fmt.Errorf("resolving %s: %w", fieldEventTime, err)
		}
	}
	if e.message.Payload, err = m.AsBytes(); err != nil {
		return fmt.Errorf("reading the message: %w", err)
	}
	if e.message.Payload == nil {
		// Without a payload the client would send a tombstone, which deletes the key in compacted topics.
		e.message.Payload = []byte{}
	}
	e.weigh(e.message.Key)
	e.weigh(e.message.OrderingKey)
	w.fillProperties(e, m)
	return nil
}

func (w *writing) fillProperties(e *entry, m *service.Message) {
	filter := w.output.conf.properties
	if filter.IsEmpty() {
		return
	}
	_ = filter.WalkMut(m, func(name string, value any) error {
		if name == attempt.RecordIDKey {
			return nil
		}
		if e.properties == nil {
			e.properties = make(map[string]string, 8)
		}
		s, ok := value.(string)
		if !ok {
			s, _ = m.MetaGet(name)
		}
		// Strings of the input live in one slab per batch, which the client keeps alive no longer than the batch.
		e.properties[name] = s
		e.weigh(name)
		e.weigh(s)
		return nil
	})
	if len(e.properties) > 0 {
		e.message.Properties = e.properties
	}
}

// route finds topic and partition of every message that was not refused. It asks the broker for topics that are new. The
// topics are held until release.
func (w *writing) route(layoutOf func(*topic) (*layout, error)) error {
	names := w.output.conf.topic.over(w.batch)
	for i := range w.flight.entries {
		e := &w.flight.entries[i]
		if e.settled {
			continue // without a place
		}
		if w.lane != nil {
			w.lane.place(w, e)
			continue
		}
		name, err := names.at(w.begin + i)
		if err != nil {
			w.flight.settle(e, permanent, fmt.Errorf("resolving %s: %w", fieldTopic, err))
		} else if err := w.place(e, name, layoutOf); err != nil {
			return err
		}
		if e.place == nil && w.flight.halts {
			w.cut(i + 1)
			break
		}
	}
	return nil
}

// place chooses the partition of an entry, or refuses it. An error is about the topic.
func (w *writing) place(e *entry, name string, layoutOf func(*topic) (*layout, error)) error {
	e.topic = name
	t, err := w.at(name, layoutOf)
	if err != nil {
		return err
	}
	if t == nil {
		w.flight.settle(e, permanent, fmt.Errorf("resolving %s: %q is %w", fieldTopic, name, errNoTopic))
		return nil
	}
	k := t.turn
	if key := e.orderKey(); key != "" {
		k = w.output.conf.hashing.partitionOf(key, len(t.places))
	}
	e.place = &t.places[k]
	if w.flight.chunked && canHoldChunks(name) {
		if err := w.session.inChunks(e); err != nil {
			e.place = nil
			w.flight.settle(e, permanent, err)
			return nil
		}
		e.place.partition = e.place.partition.chunks
	}
	e.place.messages++
	e.place.bytes += int64(len(e.message.Payload))
	return nil
}

// at returns the places of a topic, nil if its name is none.
func (w *writing) at(name string, layoutOf func(*topic) (*layout, error)) (*topicPlaces, error) {
	if n := len(w.topics); n > 0 && w.topics[n-1].topic.name == name {
		return w.topics[n-1], nil
	}
	if k := slices.IndexFunc(w.topics, func(t *topicPlaces) bool { return t.topic.name == name }); k >= 0 {
		return w.topics[k], nil
	}
	if !topicName.MatchString(name) {
		return nil, nil
	}
	t, err := w.session.topics.use(name, time.Now())
	if err != nil {
		return nil, err
	}
	places := &topicPlaces{topic: t}
	w.topics = append(w.topics, places)
	l, err := layoutOf(t)
	if err != nil {
		return nil, err
	}
	places.places = make([]place, len(l.partitions))
	for i, p := range l.partitions {
		places.places[i].partition = p
	}
	places.turn = int(t.turn.Add(1) % uint32(len(l.partitions)))
	return places, nil
}

// inUse returns the places that get messages, in the one order in which their locks and limiters are taken: otherwise two
// batches could wait for each other.
func (w *writing) inUse() []*place {
	slices.SortFunc(w.topics, func(a, b *topicPlaces) int { return strings.Compare(a.topic.name, b.topic.name) })
	var used []*place
	for _, t := range w.topics {
		for i := range t.places {
			if t.places[i].messages > 0 {
				used = append(used, &t.places[i])
			}
		}
	}
	return used
}

// release gives the topics back.
func (w *writing) release() {
	if w.lane != nil {
		return // writeExact holds the topic
	}
	for _, t := range w.topics {
		w.session.topics.done(t.topic, time.Now())
	}
}
