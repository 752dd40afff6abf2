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
// Topics are those of partitions, by full name. A new version of the client may word its lines otherwise; tests hold each of them.
type refusals struct {
	mu struct {
		sync.Mutex
		byTopic map[string]refusal
		message refusal // of the last message that was refused, by whatever topic
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
	producerCreated     = "Created producer"
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
	topic, _ := fields["topic"].(string)
	switch {
	case text == producerReconnected || text == producerCreated:
		r.forget(topic)
	case text == producerRefused:
		if err, ok := fields["error"].(error); ok {
			r.refused(topic, err, false, now)
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
				r.refused(topic, fmt.Errorf("the broker has ended the producer: %s", cause), true, now)
			}
		}
	}
}

func (r *refusals) refused(topic string, cause error, final bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	since := now
	if before, ok := r.mu.byTopic[fullName(topic)]; ok {
		since = before.since
	}
	if r.mu.byTopic == nil {
		r.mu.byTopic = map[string]refusal{}
	}
	r.mu.byTopic[fullName(topic)] = refusal{cause, since, final}
}

func (r *refusals) refusedMessage(cause error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.message = refusal{cause: cause, since: now}
}

// forget ends the refusal of a topic.
func (r *refusals) forget(topic string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.byTopic, fullName(topic))
}

// standing returns why a topic's producer cannot connect, nil if it can or if that is not certain yet: a broker that has
// just started, or a topic that is moving, refuses everybody for a moment.
func (r *refusals) standing(topic string, now time.Time) (cause error, final bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.mu.byTopic[fullName(topic)]
	if !ok || !f.final && now.Sub(f.since) < downAfter {
		return nil, false
	}
	return f.cause, f.final
}

// latest returns the last word about a topic, however young it is, nil if there is none.
func (r *refusals) latest(topic string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.byTopic[fullName(topic)].cause
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

// fullName is the name that the client's log has for a topic or a partition, whatever the configuration calls it.
func fullName(topic string) string {
	switch {
	case strings.Contains(topic, "://"):
		return topic
	case strings.Contains(topic, "/"):
		return "persistent://" + topic
	default:
		return "persistent://public/default/" + topic
	}
}
