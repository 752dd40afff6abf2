package output

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
)

const (
	// The least and the greatest number that is taken for milliseconds since 1970. Below, seconds were meant: 1e11 ms is
	// March 1973, 1e11 s the year 5138. The input's startAtTime has the same bound. Above, micro- or nanoseconds were
	// meant; the bound is the last moment that the client's int64 of nanoseconds can hold, in April 2262.
	leastMillis    = 100_000_000_000
	greatestMillis = math.MaxInt64 / int64(time.Millisecond)

	eventTimeForms = `write it as 2026-01-31T12:00:00.123Z (RFC 3339, with a zone), or as milliseconds since 1970`
)

var (
	// eventTimeConstant is the shape of a constant, for lint; whether the date exists is found out when it is parsed.
	eventTimeConstant = regexp.MustCompile(`^([0-9]{12,13}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2}))$`)
)

const (
	eventTimeRule = `must be an interpolation such as ${! @"kinesis.arrival.timestamp" }, a time as RFC 3339 with a zone, or milliseconds since 1970`
)

func eventTimeField() *service.ConfigField {
	return service.NewInterpolatedStringField(fieldEventTime).
		Description(`
The event time of each message, which consumers read apart from the time of publishing. It is a time as RFC 3339, such as ` + "`2026-01-31T12:00:00.123Z`" + `, or a whole number of milliseconds since 1970. Pulsar keeps milliseconds; what is finer is cut off.

By default there is none, as with the Java connector. To have the time at which a record arrived in Kinesis, write ` + "`${! @\"kinesis.arrival.timestamp\" }`" + `, with the quotes; the input's ` + "`kinesisRecordProperties`" + ` must name that entry, as it does by default.

A message for which this is empty gets no event time, nor does one without the metadata entry that a lone reference names. A message with any other value is refused, and the others of its batch are not: it would fail the same way the next time.`).
		Default("").
		Example(`${! @"kinesis.arrival.timestamp" }`).
		Example(`${! json("created_ms").or("") }`).
		LintRule(fmt.Sprintf(`root = match {
  this == "" => [],
  this.contains("${!") && this.re_match(%q) => [ %q ],
  this.contains("${!") || this.re_match(%q) => [],
  _ => [ %q ],
}`, dottedMetadata, fieldEventTime+": "+dottedRuleOf(fieldEventTime), eventTimeConstant, fieldEventTime+": "+eventTimeRule)).
		Advanced()
}

// eventTime is the field event_time: a text that holds a time, or nothing. The zero value is that of a field that is not set.
type eventTime struct {
	text     text
	set      bool
	constant time.Time // unless the text has to be resolved for each message
}

// newEventTime checks what can be known without a message.
func newEventTime(raw string, expr *service.InterpolatedString) (eventTime, error) {
	e := eventTime{text: newText(raw, expr)}
	constant, ok := e.text.static()
	if !ok {
		if dottedMetadata.MatchString(raw) {
			return eventTime{}, errors.New(dottedRuleOf(fieldEventTime))
		}
		e.set = true
		return e, nil
	}
	var err error
	if e.constant, err = parseEventTime(constant); err != nil {
		return eventTime{}, err
	}
	e.set = !e.constant.IsZero()
	return e, nil
}

// over prepares the event time for the messages of a batch.
func (e *eventTime) over(batch service.MessageBatch) batchEventTime {
	if !e.set || !e.constant.IsZero() {
		return batchEventTime{eventTime: e}
	}
	return batchEventTime{eventTime: e, texts: e.text.over(batch)}
}

type batchEventTime struct {
	*eventTime
	texts batchText
}

// at returns the event time of message i of the batch, the zero time if it has none. It must be called only if the field
// is set.
func (b *batchEventTime) at(i int) (time.Time, error) {
	if !b.constant.IsZero() {
		return b.constant, nil
	}
	s, err := b.texts.at(i)
	if err != nil {
		return time.Time{}, err
	}
	return parseEventTime(s)
}

// parseEventTime reads a time in one of eventTimeForms, cut to the milliseconds that Pulsar has. An empty text is the
// zero time: none.
func parseEventTime(s string) (time.Time, error) {
	switch {
	case s == "":
		return time.Time{}, nil
	case s == "null": // what Bloblang makes of an absent value
		return time.Time{}, errors.New(`null is not a time, the message lacks what the interpolation refers to: append .or("") for messages without an event time`)
	case len(s) > 4 && s[4] == '-':
		return parseDate(s)
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return fromMillis(n, s)
	}
	// Bloblang's arithmetic often ends in a floating-point number, which it writes as 1.700000000123e+12.
	f, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil || math.IsNaN(f) || math.IsInf(f, 0):
		return time.Time{}, fmt.Errorf("%s is not a time: %s", shown(s), eventTimeForms)
	case f != math.Trunc(f):
		return time.Time{}, fmt.Errorf("%s is not a whole number of milliseconds since 1970: round it, after a multiplication by 1000 if it is seconds", shown(s))
	}
	// Clamped, since a conversion that overflows may have any result; the bounds are far inside.
	return fromMillis(int64(max(-1<<53, min(f, 1<<53))), s)
}

func parseDate(s string) (time.Time, error) {
	var t time.Time
	err := t.UnmarshalText([]byte(s))
	// Go also takes an hour of one digit, and a comma before the fraction, which RFC 3339 has not.
	if err != nil || s[13] != ':' || s[19] == ',' {
		var reason *time.ParseError
		if errors.As(err, &reason) && reason.Message != "" { // ": day out of range"
			return time.Time{}, fmt.Errorf("%s is not a time%s: %s", shown(s), reason.Message, eventTimeForms)
		}
		return time.Time{}, fmt.Errorf("%s is not a time: %s", shown(s), eventTimeForms)
	}
	ms := t.UnixMilli()
	// Pulsar's field is unsigned, and 0 is how its clients tell that there is none.
	if ms <= 0 || ms > greatestMillis {
		return time.Time{}, fmt.Errorf("%s is out of range: an event time lies after 1970-01-01 and before April 2262", shown(s))
	}
	return time.UnixMilli(ms), nil
}

// fromMillis returns the time of a number of milliseconds since 1970 that was written as s.
func fromMillis(n int64, s string) (time.Time, error) {
	switch {
	case n < 0:
		return time.Time{}, fmt.Errorf("%s is negative: an event time lies after 1970-01-01", shown(s))
	case n < leastMillis:
		return time.Time{}, fmt.Errorf("%s is too small for milliseconds since 1970: multiply it by 1000 if it is seconds, write a time before March 1973 as RFC 3339", shown(s))
	case n > greatestMillis:
		return time.Time{}, fmt.Errorf("%s is too large for milliseconds since 1970: %s", shown(s), eventTimeForms)
	}
	return time.UnixMilli(n), nil
}

// shown quotes a value for an error, which goes into logs: not all of it if it is long.
func shown(s string) string {
	const limit = 64
	if len(s) > limit {
		return fmt.Sprintf("%.*q… (%d bytes)", limit, s, len(s))
	}
	return strconv.Quote(s)
}
