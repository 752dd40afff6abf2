package output

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// clientLog is the Pulsar client's logger. The client tells of every connect and every reconnect at INFO and WARN, and
// of what its caller gets as an error anyway at ERROR; none of it asks anything of an operator, who is told by Connect,
// by failed writes and by the blocked gauge. So all of it goes to DEBUG, with its fields, and only a change between
// "connected" and "cannot connect" is told aloud, by the health record.
//
// The client's own debug lines are dropped, since they hold whole messages; of one the broker's limit for messages is read.
type clientLog struct {
	out      *service.Logger
	health   *health
	refusals *refusals
	fields   log.Fields
}

var (
	_ log.Logger = (*clientLog)(nil)
	_ log.Entry  = (*clientLog)(nil)
)

func (l *clientLog) with(fields log.Fields) *clientLog {
	all := make(log.Fields, len(l.fields)+len(fields))
	maps.Copy(all, l.fields)
	maps.Copy(all, fields)
	// A message's properties are user data and no help here.
	delete(all, "properties")
	return &clientLog{out: l.out, health: l.health, refusals: l.refusals, fields: all}
}

func (l *clientLog) SubLogger(fields log.Fields) log.Logger { return l.with(fields) }
func (l *clientLog) WithFields(fields log.Fields) log.Entry { return l.with(fields) }
func (l *clientLog) WithError(err error) log.Entry          { return l.with(log.Fields{"error": err}) }
func (l *clientLog) WithField(name string, value any) log.Entry {
	return l.with(log.Fields{name: value})
}

func (l *clientLog) Debug(args ...any) {
	// Called for every message, so this must cost nothing.
	if len(args) == 2 {
		l.health.observeLimit(args)
	}
}
func (l *clientLog) Debugf(string, ...any)             {}
func (l *clientLog) Info(args ...any)                  { l.tell(fmt.Sprint(args...)) }
func (l *clientLog) Warn(args ...any)                  { l.tell(fmt.Sprint(args...)) }
func (l *clientLog) Error(args ...any)                 { l.tell(fmt.Sprint(args...)) }
func (l *clientLog) Infof(format string, args ...any)  { l.tell(fmt.Sprintf(format, args...)) }
func (l *clientLog) Warnf(format string, args ...any)  { l.tell(fmt.Sprintf(format, args...)) }
func (l *clientLog) Errorf(format string, args ...any) { l.tell(fmt.Sprintf(format, args...)) }

func (l *clientLog) tell(text string) {
	now := time.Now()
	l.health.observe(text, l.fields, now)
	l.refusals.observe(text, l.fields, now)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(l.fields)) {
		fmt.Fprintf(&b, " %s=%v", name, l.fields[name])
	}
	l.out.Debugf("Pulsar client: %s%s", strings.TrimSpace(text), b.String())
}

// quotaExceeded begins the client's log line of a producer that cannot connect again because of the topic's backlog quota.
const quotaExceeded = "Producer was blocked by quota exceed exception"

const connectionReady = "Connection is ready"

// health keeps the cause for which the client cannot connect, nil while it can.
type health struct {
	log   *service.Logger
	conf  *config
	limit atomic.Int64 // maxMessageSize
	// quotaExceeded is called with the topic or partition when the client is about to fail what waits for a receipt there.
	// It must not wait for anything.
	quotaExceeded atomic.Pointer[func(topic string)]
	// line is called with every other line. It must not wait for anything.
	line atomic.Pointer[func(text string, fields log.Fields)]

	mu struct {
		sync.Mutex
		cause error
		since time.Time
		quiet int // >0 while Connect waits, which reports the cause itself
		told  bool
	}
}

// observe takes in a log line of the client.
func (h *health) observe(text string, fields log.Fields, now time.Time) {
	if text == connectionReady {
		h.recovered()
		return
	}
	if strings.HasPrefix(text, quotaExceeded) {
		topic, known := fields["topic"].(string)
		if tell := h.quotaExceeded.Load(); tell != nil && known {
			(*tell)(topic)
		}
		return
	}
	if tell := h.line.Load(); tell != nil {
		(*tell)(text, fields)
	}
	var limit int
	if _, err := fmt.Sscanf(text, limitFromRefusal, &limit); err == nil {
		h.lowerLimit(limit)
		return
	}
	for _, f := range connectFailures {
		if !strings.HasPrefix(text, f.text) {
			continue
		}
		failure := connectFailure{step: f.step, detail: strings.Trim(strings.TrimPrefix(text, f.text), "'")}
		failure.err, _ = fields["error"].(error)
		if addr, ok := fields["remote_addr"]; ok {
			failure.addr = fmt.Sprint(addr)
		}
		h.failed(diagnose(h.conf, failure), now)
		return
	}
}

const (
	limitFromHandshake = "Got MaxMessageSize from handshake response:"
	limitByDefault     = "No MaxMessageSize from handshake response, use default: "
	limitFromRefusal   = "MaxMessageSize %d"
)

// observeLimit takes in the two arguments of a debug line, if it is the one that tells of the broker's maxMessageSize:
// nothing else of the client does.
func (h *health) observeLimit(args []any) {
	switch args[0] {
	case limitFromHandshake, limitByDefault:
	default:
		return
	}
	if limit, err := strconv.Atoi(fmt.Sprint(args[1])); err == nil {
		h.lowerLimit(limit)
	}
}

// lowerLimit notes a broker's limit for messages. Of several brokers the lowest counts, and of a limit that was changed
// until the output is started again: what is cut into chunks for nothing costs little.
func (h *health) lowerLimit(limit int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known := h.maxMessageSize(); limit > 0 && (known == 0 || limit < known) {
		h.limit.Store(int64(limit))
	}
}

// maxMessageSize is the most bytes of a message that the brokers take, metadata included, 0 if that is not known.
func (h *health) maxMessageSize() int { return int(h.limit.Load()) }

func (h *health) failed(cause error, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.cause == nil {
		h.mu.since = now
	}
	h.mu.cause = cause
	if h.mu.quiet == 0 && !h.mu.told {
		h.mu.told = true
		h.log.Warnf("No connection to Pulsar, trying again: %v", cause)
	}
}

func (h *health) recovered() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.told {
		h.log.Infof("Connected to Pulsar again")
	}
	h.mu.cause, h.mu.told = nil, false
}

// failure returns why the client cannot connect and since when, nil if it can or has not tried.
func (h *health) failure() (since time.Time, cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.since, h.mu.cause
}

// hush keeps failures out of the log until the returned function is called.
func (h *health) hush() (end func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.quiet++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.mu.quiet--
		// Whoever hushed has the cause and reports it.
		h.mu.told = h.mu.told || h.mu.cause != nil
	}
}
