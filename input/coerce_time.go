package input

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// isoTime is what Jackson takes of ISO 8601: a date, or a date with hours and minutes, seconds, a fraction, and a zone,
// each of the last three optional. (It also takes a fraction of minutes and reads it as one of seconds; that is refused.)
var isoTime = regexp.MustCompile(`^(\d{4})-(\d{2})-(\d{2})(?:T(\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?(Z|[+-]\d{2}(?::?\d{2})?)?)?$`)

const timeForms = "write it as 2019-03-05T19:28:58Z, or as milliseconds since 1970"

// Milliseconds since 1970 whose size tells that another unit was meant: below, seconds (1e11 ms is March 1973, 1e11 s the
// year 5138); above, microseconds or nanoseconds.
const (
	leastMillis = 100_000_000_000
	mostMillis  = 10_000_000_000_000
)

// coerceTime reads a moment in the forms that Jackson's date format takes, cut to milliseconds, in UTC where no zone is
// given. An empty text is no moment, the zero time.
//
// Refused, though Jackson takes them: seconds since 1970 (it would read a day in January 1970, and the stream from its
// oldest record), and values that roll over, such as month 13 (it goes on into the next year: the typing error becomes a
// wrong start that nobody sees).
func coerceTime(v any) (time.Time, error) {
	if t, ok := v.(time.Time); ok { // YAML has timestamps of its own, when they are not quoted
		return t.UTC().Truncate(time.Millisecond), nil
	}
	if n, ok, err := integer(v); ok && err == nil {
		return fromMillis(n)
	}
	s, ok := v.(string)
	if !ok {
		return time.Time{}, fmt.Errorf("%s is not a moment: %s", shown(v), timeForms)
	}
	s = strings.TrimSpace(s)
	switch m := isoTime.FindStringSubmatch(s); {
	case s == "":
		return time.Time{}, nil
	case m != nil:
		return fromISO(m)
	case digits(s) && s[0] != '+':
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return time.Time{}, fmt.Errorf("%s is too large: %s", shown(s), timeForms)
		}
		return fromMillis(n)
	case len(s) > 3 && s[3] == ',':
		return fromRFC1123(s)
	}
	return time.Time{}, fmt.Errorf("%s is not a moment: %s", shown(s), timeForms)
}

func fromMillis(n int64) (time.Time, error) {
	switch {
	case n > -leastMillis && n < leastMillis:
		return time.Time{}, fmt.Errorf("%d is too small for milliseconds since 1970: write %d if it is seconds, or a date as 2019-03-05T19:28:58Z", n, n*1000)
	case n >= mostMillis || n <= -mostMillis:
		return time.Time{}, fmt.Errorf("%d is too large for milliseconds since 1970: %s", n, timeForms)
	}
	return time.UnixMilli(n).UTC(), nil
}

// fromISO takes the groups of isoTime. time.Parse has no layout for parts that may be missing; time.Date rolls over, so
// what comes back is compared with what was written.
func fromISO(m []string) (time.Time, error) {
	var n [6]int // year to second
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1]) // digits only, or empty: 0
	}
	var nanos int
	if m[7] != "" {
		nanos, _ = strconv.Atoi((m[7] + "00000000")[:9])
	}
	zone := time.UTC
	if m[8] != "" && m[8] != "Z" {
		z := strings.ReplaceAll(m[8][1:], ":", "") + "00"
		hours, _ := strconv.Atoi(z[:2])
		minutes, _ := strconv.Atoi(z[2:4])
		if hours > 18 || minutes > 59 { // as Java's ZoneOffset
			return time.Time{}, fmt.Errorf("%q has a zone that does not exist: %s", m[0], timeForms)
		}
		offset := (hours*60 + minutes) * 60
		if m[8][0] == '-' {
			offset = -offset
		}
		zone = time.FixedZone("", offset)
	}
	t := time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], nanos, zone)
	if [6]int{t.Year(), int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second()} != n {
		return time.Time{}, fmt.Errorf("%q is a date or a time that does not exist: write one that does", m[0])
	}
	return t.UTC().Truncate(time.Millisecond), nil
}

// fromRFC1123 reads "Tue, 05 Mar 2019 19:28:58 GMT". Of zone names only GMT and UTC are taken: Go reads any other as an
// offset of zero.
func fromRFC1123(s string) (time.Time, error) {
	stamp, zone := s, ""
	if i := strings.LastIndexByte(s, ' '); i > 0 {
		stamp, zone = s[:i], s[i+1:]
	}
	if zone == "GMT" || zone == "UTC" {
		zone = "+0000"
	}
	t, err := time.Parse("Mon, _2 Jan 2006 15:04:05 -0700", stamp+" "+zone)
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("%s is not a moment as Tue, 05 Mar 2019 19:28:58 GMT (or +0200 for the zone): %s", shown(s), timeForms)
	case !strings.EqualFold(t.Weekday().String()[:3], s[:3]):
		return time.Time{}, errors.New(shown(s) + " is not a " + s[:3] + ": correct the day")
	}
	return t.UTC().Truncate(time.Millisecond), nil
}
