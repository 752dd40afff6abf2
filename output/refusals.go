package output

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/apache/pulsar-client-go/pulsar/log"
)

// refusals is what brokers said to producers that the client has, which only its log tells: a producer that may not connect
// again is tried for ever, one that may never again is closed, one whose message was refused is forgotten. In none of these
// cases do the messages get a callback.
//
// They are kept by the producer's name, from watch to forget: the client may go on for a moment with a producer that was
// closed, and what it says of that one must not count for the next. A new version of the client may word its lines otherwise;
// tests hold each of them.
type refusals struct {
	mu struct {
		sync.Mutex
		byProducer map[string]refusal // of the watched ones; without a cause there is no refusal
		message    refusal            // of the last message that was refused, by whatever topic
	}
}

// refusal is one broker's answer, until the producer is connected again.
type refusal struct {
	cause error
	since time.Time
	// final says that the client does not try again and has closed the producer.
	final bool
}

const (
	producerReconnected = "Reconnected producer to broker"
	producerRefused     = "Failed to reconnect to broker, will retry later."
	messageRefused      = "Received send error from server: "
)

// producersEnded are the client's lines of a producer that it closes.
var producersEnded = []string{
	"Topic not found, stop reconnecting",
	"Topic was terminated, failing pending messages, stop reconnecting",
	"Producer was fenced, failing pending messages, stop reconnecting",
}

// forgettingErrors are the answers to a message after which the client forgets the producer: no receipt reaches it any more,
// and no loss of its connection. After any other it connects again.
var forgettingErrors = []string{"[NotAllowedError]", "[TopicTerminatedError]"}

// observe takes in a log line of the client.
func (r *refusals) observe(text string, fields log.Fields, now time.Time) {
	producer, _ := fields["producer_name"].(string)
	switch {
	case text == producerReconnected:
		r.connected(producer)
	case text == producerRefused:
		// A producer that was closed while it was connecting again is told of like this, by the client and not by a broker.
		// With numbers the next producer has its name.
		if err, ok := fields["error"].(error); ok && !strings.Contains(err.Error(), "ProducerClosed") {
			r.refused(producer, err, false, now)
		}
	case strings.HasPrefix(text, messageRefused):
		answer := strings.TrimPrefix(text, messageRefused)
		for _, code := range forgettingErrors {
			if strings.HasPrefix(answer, code) {
				r.refusedMessage(fmt.Errorf("the broker has refused a message: %s", answer), now)
			}
		}
	default:
		for _, line := range producersEnded {
			if strings.HasPrefix(text, line) {
				cause, _, _ := strings.Cut(text, ",")
				r.refused(producer, fmt.Errorf("the broker has ended the producer: %s", cause), true, now)
			}
		}
	}
}

// watch begins to keep what is said of a producer, which is connected.
func (r *refusals) watch(producer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.byProducer == nil {
		r.mu.byProducer = map[string]refusal{}
	}
	r.mu.byProducer[producer] = refusal{}
}

// forget ends that.
func (r *refusals) forget(producer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.byProducer, producer)
}

func (r *refusals) refused(producer string, cause error, final bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, watched := r.mu.byProducer[producer]
	if !watched {
		return
	}
	since := before.since
	if before.cause == nil {
		since = now
	}
	r.mu.byProducer[producer] = refusal{cause, since, final}
}

// connected ends a refusal.
func (r *refusals) connected(producer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, watched := r.mu.byProducer[producer]; watched {
		r.mu.byProducer[producer] = refusal{}
	}
}

func (r *refusals) refusedMessage(cause error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.message = refusal{cause: cause, since: now}
}

// standing returns why a producer cannot connect, nil if it can or if that is not certain yet: a broker that has just
// started, or a topic that is moving, refuses everybody for a moment.
func (r *refusals) standing(producer string, now time.Time) (cause error, final bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.mu.byProducer[producer]
	if f.cause == nil || !f.final && now.Sub(f.since) < downAfter {
		return nil, false
	}
	return f.cause, f.final
}

// latest returns the last word about a producer, however young it is, nil if it is connected.
func (r *refusals) latest(producer string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.byProducer[producer].cause
}

// messageSince returns why a message that was sent since then was refused, nil if none was.
func (r *refusals) messageSince(sent time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.message.since.Before(sent) {
		return nil
	}
	return r.mu.message.cause
}
