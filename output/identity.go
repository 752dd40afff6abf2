package output

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
)

// The properties that tell which record a message was made of.
const (
	sequenceProperty    = "kinesis.sequence.number"
	subSequenceProperty = "kinesis.subsequence.number"
)

// behindProperty is another one each time the record is read.
const behindProperty = "kinesis.millis.behind.latest"

// identity is what a message of a shard is known by in the topic, whose readers are not told its number. It is that of the
// record, where properties tell it: by default they do, but for records that share one Kinesis record, which have their
// place in it in a property of its own. Otherwise it is all that a consumer sees of the message, which has to come out the
// same every time then.
type identity struct {
	sequence string
	sub      string // "" for a record that is alone in its Kinesis record
	content  fingerprint
}

// isRecord tells that no other record's message has this identity.
func (id identity) isRecord() bool { return id.sequence != "" }

// identity of a message that is to be sent. A property that a mapping has changed tells nothing.
func (e *entry) identity() identity {
	origin, properties := e.id.Origin(), e.message.Properties
	if sequence := properties[sequenceProperty]; sequence != "" && sequence == origin.SequenceNumber {
		if origin.Sub < 0 {
			return identity{sequence: sequence}
		}
		if sub := strconv.FormatInt(origin.Sub, 10); properties[subSequenceProperty] == sub {
			return identity{sequence: sequence, sub: sub}
		}
	}
	return identity{content: e.fingerprint()}
}

// wanted are messages that are looked for.
type wanted struct {
	ids      []identity         // in the order of the messages
	places   map[identity][]int // in ids, ascending
	contents bool               // some are known by their content
}

func newWanted(expected []*entry) *wanted {
	w := &wanted{ids: make([]identity, len(expected)), places: make(map[identity][]int, len(expected))}
	for i, e := range expected {
		id := e.identity()
		w.ids[i] = id
		w.places[id] = append(w.places[id], i)
		w.contents = w.contents || !id.isRecord()
	}
	return w
}

// identify tells which identity a message of the topic has, of those that are looked for.
func (w *wanted) identify(m pulsar.Message) (identity, bool) {
	properties := m.Properties()
	if sequence := properties[sequenceProperty]; sequence != "" {
		for _, sub := range [...]string{"", properties[subSequenceProperty]} {
			if id := (identity{sequence: sequence, sub: sub}); w.places[id] != nil {
				return id, true
			}
		}
	}
	if w.contents {
		id := identity{content: fingerprintOf(m.Key(), m.OrderingKey(), m.Payload(), properties, m.EventTime())}
		return id, w.places[id] != nil
	}
	return identity{}, false
}

// fingerprint stands for all that a consumer sees of a message, but for what is never the same.
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
		if name == behindProperty {
			continue
		}
		part(name)
		part(properties[name])
	}
	if ms := when.UnixMilli(); ms > 0 { // no event time is read as 0
		fmt.Fprint(h, ms)
	}
	return fingerprint(h.Sum(nil))
}
