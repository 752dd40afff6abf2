package output

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// Properties that a dead letter has beside those of the refused message.
const (
	propertyCause    = "dead_letter.cause"
	propertyTopic    = "dead_letter.topic"
	propertyShard    = "dead_letter.shard"
	propertySequence = "dead_letter.sequence_number"
	// propertyCut says what of the message was left out, because it would make the dead letter impossible too.
	propertyCut = "dead_letter.left_out"
)

// sequenceMetadata is where the kinesis_pulsar input puts a record's sequence number.
const sequenceMetadata = "kinesis.sequence.number"

const (
	// mostCause is the bytes of a cause that a dead letter keeps: an error of a mapping may quote the message.
	mostCause = 2 << 10
	// mostKept is the bytes of key and properties that a dead letter keeps. Far below any broker's limit.
	mostKept = 64 << 10
	// buriedInterval is how often dead letters are told of in the log.
	buriedInterval = time.Minute
)

// gravedigger tells of dead letters in the log, once a minute: each is a record that consumers will never see, but a
// stream of nothing else must not fill the log.
type gravedigger struct {
	mu struct {
		sync.Mutex
		untold int
		told   time.Time
	}
}

func (g *gravedigger) note(log *service.Logger, n int, topic string, cause error, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.untold += n
	if now.Sub(g.mu.told) < buriedInterval {
		return
	}
	log.Warnf("%d messages can never be published as they are and went to %s, the last one because of: %v", g.mu.untold, topic, cause)
	g.mu.untold, g.mu.told = 0, now
}

// bury sends the refused messages of a part that is settled to the dead-letter topic, if there is one.
func (w *writing) bury(ctx context.Context) {
	o := w.output
	if o.conf.deadLetterTopic == "" || !w.flight.failed() {
		return
	}
	var refused []*entry
	var causes []error
	for i := range w.kept {
		if e := &w.flight.entries[i]; e.class == permanent {
			refused, causes = append(refused, e), append(causes, e.err)
		}
	}
	for i, err := range o.deadLetters(ctx, refused, causes) {
		if refused[i].class = buried; err != nil {
			// Not permanent: the record is not the obstacle, the dead-letter topic is.
			refused[i].class, refused[i].err = transient, err
		}
	}
}

// deadLetters sends refused messages to the dead-letter topic and returns when Pulsar has confirmed them there. They keep
// their order: none is sent after one that failed. An error is transient, whatever its kind: the record is neither published
// nor buried, and must come again. The entries are ones that were resolved; they must not be with the client any more.
func (o *output) deadLetters(ctx context.Context, refused []*entry, causes []error) []error {
	outcomes := make([]error, len(refused))
	for begin := 0; begin < len(refused); {
		n, err := o.sendDeadLetters(ctx, refused[begin:], causes[begin:], outcomes[begin:])
		failed := err != nil
		for i := begin; i < begin+n; i++ {
			failed = failed || outcomes[i] != nil
		}
		if !failed {
			o.gravedigger.note(o.log, n, o.conf.deadLetterTopic, causes[begin+n-1], time.Now())
			begin += n
			continue
		}
		if err == nil {
			err = errStopped
		}
		for i := begin + n; i < len(refused); i++ {
			outcomes[i] = err
		}
		for i := begin; i < len(refused); i++ {
			if outcomes[i] != nil {
				outcomes[i] = fmt.Errorf("%w; writing it to %s: %w", causes[i], fieldDeadLetterTopic, outcomes[i])
			}
		}
		break
	}
	return outcomes
}

// sendDeadLetters sends as many as can be sent together, and returns their number and the outcome of each. With an error
// nothing was sent.
func (o *output) sendDeadLetters(ctx context.Context, refused []*entry, causes, outcomes []error) (int, error) {
	s := o.session.Load()
	switch {
	case o.conf.deadLetterTopic == "":
		return 0, errNoDeadLetterTopic
	case s == nil:
		return 0, errClosed
	}
	n := min(len(refused), o.conf.maxPending)
	w := &writing{output: o, session: s, kept: n, flight: newFlight(&cargo{}, n)}
	defer w.release()
	f := w.flight
	for i := range n {
		e := &f.entries[i]
		if err := w.fillDeadLetter(e, refused[i], causes[i]); err != nil {
			return 0, err
		}
		if refused[i].attempt != nil {
			w.touch(refused[i].attempt)
		}
		if s.cumbersome(e) {
			// In chunks, whatever the field chunking says: there is nowhere else for it to go.
			f.chunked = i == 0
			w.cut(max(i, 1))
			break
		}
	}
	known := func(t *topic) (*layout, error) { return t.known(ctx) }
	for i := range f.entries {
		if err := w.place(&f.entries[i], o.conf.deadLetterTopic, known); err != nil {
			return 0, err
		}
	}
	if sent, err := w.dispatch(ctx); !sent {
		return 0, err
	}
	for i := range f.entries {
		outcomes[i] = f.entries[i].err
	}
	return len(f.entries), nil
}

// fillDeadLetter makes an entry the dead letter of a refused one.
func (w *writing) fillDeadLetter(e, refused *entry, cause error) error {
	m := &e.message
	var err error
	if m.Payload, err = refused.source.AsBytes(); err != nil {
		return fmt.Errorf("reading the message: %w", err)
	}
	if m.Payload == nil {
		m.Payload = []byte{} // not a tombstone
	}
	own := map[string]string{
		propertyCause: strings.ToValidUTF8(cause.Error()[:min(len(cause.Error()), mostCause)], ""),
	}
	if refused.topic != "" {
		own[propertyTopic] = refused.topic
	}
	if refused.attempt != nil {
		own[propertyShard] = refused.attempt.Shard()
	}
	if number, ok := refused.source.MetaGet(sequenceMetadata); ok {
		own[propertySequence] = number
	}
	m.Key, m.OrderingKey, m.EventTime = refused.message.Key, refused.message.OrderingKey, refused.message.EventTime
	e.weigh(m.Key)
	e.weigh(m.OrderingKey)
	w.fillProperties(e, refused.source)
	if e.overhead > mostKept {
		m.Key, m.OrderingKey, m.Properties, e.overhead = "", "", nil, 0
		own[propertyCut] = "key and properties"
	}
	if m.Properties == nil {
		m.Properties = map[string]string{}
	}
	maps.Copy(m.Properties, own)
	for name, value := range own {
		e.weigh(name)
		e.weigh(value)
	}
	return nil
}
