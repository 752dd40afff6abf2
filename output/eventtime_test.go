package output

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// arrival is how a user asks for what the input calls kinesis.arrival.timestamp.
const arrival = `event_time: '${! @"kinesis.arrival.timestamp" }'`

func TestEventTimeForms(t *testing.T) {
	for text, want := range map[string]int64{
		"2023-11-14T22:13:20Z":                1700000000000,
		"2023-11-14T22:13:20.123Z":            1700000000123,
		"2023-11-14T22:13:20.1Z":              1700000000100,
		"2023-11-14T22:13:20.123999999Z":      1700000000123, // cut, not rounded
		"2023-11-15T00:13:20.123+02:00":       1700000000123,
		"2023-11-14T16:43:20.123-05:30":       1700000000123,
		"1970-01-01T00:00:00.001Z":            1,
		"2262-04-11T23:47:16.854Z":            greatestMillis,
		"1700000000123":                       1700000000123,
		"100000000000":                        leastMillis,
		strconv.FormatInt(greatestMillis, 10): greatestMillis,
		"1.700000000123e+12":                  1700000000123, // Bloblang's way to write a large float
		"1700000000123.0":                     1700000000123,
	} {
		if got, err := parseEventTime(text); err != nil || got.UnixMilli() != want || !got.Equal(time.UnixMilli(want)) {
			t.Errorf("%q is %v (%v), want %d", text, got, err, want)
		}
	}
	if got, err := parseEventTime(""); err != nil || !got.IsZero() {
		t.Errorf("empty: %v, %v", got, err)
	}
}

// Every refusal shows the value, unless it is long, and says what is wrong with it.
func TestEventTimeRefusals(t *testing.T) {
	for text, problem := range map[string]string{
		"null":                                 `.or("")`,
		"yesterday":                            "RFC 3339",
		" ":                                    "RFC 3339",
		"1700000000123ms":                      "RFC 3339",
		"NaN":                                  "RFC 3339",
		"Inf":                                  "RFC 3339",
		"1700000000":                           "seconds", // 20 January 1970, if it were believed
		"1.7e9":                                "seconds",
		"1700000000.123":                       "seconds",
		"0":                                    "too small",
		"99999999999":                          "too small",
		"-1":                                   "negative",
		"-1700000000123":                       "negative",
		"-1e300":                               "negative",
		"1700000000123.5":                      "whole",
		"1700000000123000":                     "too large", // microseconds
		"1700000000123000000":                  "too large", // nanoseconds
		"17000000001230000000000":              "too large", // no int64
		"9223372036855":                        "too large",
		"1e300":                                "too large",
		"2023-11-14":                           "RFC 3339",
		"2023-11-14T22:13:20":                  "zone",
		"2023-11-14 22:13:20Z":                 "RFC 3339",
		"2023-11-14T2:13:20Z":                  "RFC 3339",
		"2023-11-14T22:13:20,5Z":               "RFC 3339",
		"2023-11-14T22:13:20+99:00":            "RFC 3339",
		"2023-02-30T00:00:00Z":                 "day out of range",
		"2023-11-14T22:13:20.123Z and more":    "RFC 3339",
		"1970-01-01T00:00:00Z":                 "after 1970", // Pulsar's 0 is "none"
		"1969-12-31T23:59:59.999Z":             "after 1970",
		"0001-01-01T00:00:00Z":                 "after 1970", // Go's zero time
		"2262-04-11T23:47:16.855Z":             "2262",       // would overflow in the client
		"9999-12-31T23:59:59Z":                 "2262",
		strings.Repeat("x", 65):                "65 bytes",
		"2023-" + strings.Repeat("\xff", 1000): "1005 bytes",
	} {
		got, err := parseEventTime(text)
		if err == nil || !got.IsZero() {
			t.Errorf("%q is %v (%v)", text, got, err)
			continue
		}
		if !strings.Contains(err.Error(), problem) {
			t.Errorf("error of %q lacks %q: %v", text, problem, err)
		}
		if len(text) <= 64 && text != "null" && !strings.Contains(err.Error(), strconv.Quote(text)) {
			t.Errorf("error of %q does not show it: %v", text, err)
		}
		if len(err.Error()) > 600 {
			t.Errorf("error of %d bytes", len(err.Error()))
		}
	}
}

// What is accepted is a time that Pulsar can hold, and the same time however it is written.
func FuzzParseEventTime(f *testing.F) {
	for _, seed := range []string{"", "null", "2023-11-14T22:13:20.123Z", "2023-11-15T00:13:20.123+02:00", "1700000000123", "1.700000000123e+12", "-1", "0x1p40", "1_700_000_000_123", "2023-"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseEventTime(text)
		if err != nil || text == "" {
			if !got.IsZero() {
				t.Fatalf("%v beside %v", got, err)
			}
			return
		}
		ms := got.UnixMilli()
		if ms <= 0 || ms > greatestMillis || got.UnixNano() != ms*1e6 {
			t.Fatalf("%v", got)
		}
		for _, again := range []string{got.UTC().Format(time.RFC3339Nano), strconv.FormatInt(ms, 10)} {
			if other, err := parseEventTime(again); err == nil && !other.Equal(got) {
				t.Fatalf("%v as %s is %v", got, again, other)
			} else if err != nil && ms >= leastMillis {
				t.Fatalf("%v as %s: %v", got, again, err)
			}
		}
	})
}

// eventTimes returns what is stored, 0 for none, by payload.
func eventTimes(messages []pulsartest.Message) map[string]int64 {
	out := map[string]int64{}
	for _, m := range messages {
		out[string(m.Payload)] = 0
		if !m.EventTime.IsZero() {
			out[string(m.Payload)] = m.EventTime.UnixMilli()
		}
	}
	return out
}

// The broker stores the arrival time in packed messages and in single ones, and none where there is none: neither by
// default, nor beside neighbours that have one.
func TestEventTimeIsStored(t *testing.T) {
	b := startBroker(t)
	for name, c := range map[string]struct {
		yaml string
		want map[string]int64
	}{
		"default":         {"", map[string]int64{"0": 0, "1": 0, "2": 0, "3": 0, "4": 0}},
		"empty":           {"event_time: ''", map[string]int64{"0": 0, "1": 0, "2": 0, "3": 0, "4": 0}},
		"arrival":         {arrival, map[string]int64{"0": 1700000000123, "1": 0, "2": 0, "3": 1700000000456, "4": 0}},
		"single messages": {arrival + "\nproducer_batching:\n  enabled: false", map[string]int64{"0": 1700000000123, "1": 0, "2": 0, "3": 1700000000456, "4": 0}},
		"bloblang":        {`event_time: '${! metadata("kinesis.arrival.timestamp").or("") + "" }'`, map[string]int64{"0": 1700000000123, "1": 0, "2": 0, "3": 1700000000456, "4": 0}},
		"constant":        {"event_time: '2023-11-14T22:13:20.789Z'", map[string]int64{"0": 1700000000789, "1": 1700000000789, "2": 1700000000789, "3": 1700000000789, "4": 1700000000789}},
	} {
		t.Run(name, func(t *testing.T) {
			topic := strings.ReplaceAll(name, " ", "-")
			o := connected(t, b.URL(), "topic: "+topic+"\n"+c.yaml)
			batch, a := newShard().batch(repeat("k", 5)...)
			batch[0].MetaSetMut("kinesis.arrival.timestamp", "2023-11-14T22:13:20.123Z")
			// 1 has no such entry.
			batch[2].MetaSetMut("kinesis.arrival.timestamp", "")
			batch[3].MetaSetMut("kinesis.arrival.timestamp", "1700000000456")
			if name != "bloblang" { // where it would be the text null
				batch[4].MetaSetMut("kinesis.arrival.timestamp", nil)
			}
			if failed, err := write(t, o, batch); err != nil {
				t.Fatalf("failed %v: %v", failed, err)
			}
			if replay, _ := undelivered(t, a); len(replay) > 0 {
				t.Errorf("not marked: %v", replay)
			}
			got := eventTimes(b.Messages(topic))
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("stored %v, want %v", got, c.want)
			}
		})
	}
}

// A mapping may leave numbers and times in the metadata.
func TestEventTimeOfTypedMetadata(t *testing.T) {
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t\n"+arrival)
	values := []any{int64(1700000000001), float64(1700000000002), time.UnixMilli(1700000000003).UTC()}
	batch, _ := newShard().batch(repeat("k", len(values))...)
	want := map[string]int64{}
	for i, v := range values {
		batch[i].MetaSetMut("kinesis.arrival.timestamp", v)
		want[strconv.Itoa(i)] = 1700000000001 + int64(i)
	}
	if _, err := write(t, o, batch); err != nil {
		t.Fatal(err)
	}
	if got := eventTimes(b.Messages("t")); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("stored %v, want %v", got, want)
	}
}

// A record with a bad event time is refused for good, its neighbours are not, and the error tells which field and value.
func TestBadEventTimeRefusesTheRecordAlone(t *testing.T) {
	b := startBroker(t)
	for name, c := range map[string]struct {
		yaml  string
		value any
		error []string
	}{
		"words":             {arrival, "yesterday", []string{"event_time", `"yesterday"`, "RFC 3339"}},
		"seconds":           {arrival, int64(1700000000), []string{"event_time", `"1700000000"`, "1000"}},
		"boolean":           {arrival, true, []string{"event_time", `"true"`}},
		"failing-bloblang":  {`event_time: '${! @"kinesis.arrival.timestamp".not_null().ts_unix_milli() }'`, "yesterday", []string{"event_time"}},
		"null-in-bloblang":  {`event_time: '${! @other.or(@"kinesis.arrival.timestamp") }'`, nil, []string{"event_time", "null", `.or("")`}},
		"words-in-bloblang": {`event_time: 'x${! @"kinesis.arrival.timestamp" }'`, "1", []string{"event_time", `"x1"`}},
	} {
		t.Run(name, func(t *testing.T) {
			o := connected(t, b.URL(), "topic: "+name+"\n"+c.yaml)
			batch, a := newShard().batch(repeat("k", 3)...)
			bad, good := 1, []int{0, 2}
			for _, i := range good {
				batch[i].MetaSetMut("kinesis.arrival.timestamp", "2023-11-14T22:13:20.123Z")
			}
			wantFailed := []int{1}
			if name == "words-in-bloblang" { // nothing can be right there
				wantFailed = []int{0, 1, 2}
			}
			batch[bad].MetaSetMut("kinesis.arrival.timestamp", c.value)
			index := batch.Index()
			err := o.WriteBatch(t.Context(), batch)
			be, ok := err.(*service.BatchError)
			if !ok {
				t.Fatalf("%v", err)
			}
			var failed []int
			be.WalkMessagesIndexedBy(index, func(i int, _ *service.Message, err error) bool {
				if err == nil {
					return true
				}
				failed = append(failed, i)
				for _, part := range c.error {
					if i == bad && !strings.Contains(err.Error(), part) {
						t.Errorf("error lacks %q: %v", part, err)
					}
				}
				return true
			})
			if !slices.Equal(failed, wantFailed) {
				t.Errorf("failed %v: %v", failed, err)
			}
			if got, want := len(b.Messages(name)), 3-len(wantFailed); got != want {
				t.Errorf("%d messages stored, want %d", got, want)
			}
			if replay, allRefused := undelivered(t, a); !slices.Equal(replay, wantFailed) || !allRefused {
				t.Errorf("replay %v, all refused %v", replay, allRefused)
			}
		})
	}
}

// Entries are used again: what comes next in one must not get the event time of the message before.
func TestReusedEntryHasNoOldEventTime(t *testing.T) {
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t\n"+arrival)
	s := newShard()
	reused := map[*cargo]bool{}
	again := false
	want := map[string]int64{}
	// A pool may forget, and does so at random under the race detector: hence several rounds, and the check that a
	// storage came twice.
	for round := range 20 {
		c := o.takeCargo()
		again = again || reused[c]
		reused[c] = true
		o.cargos.Put(c)

		batch, _ := s.batch(repeat("k", 10)...)
		for i, m := range batch {
			if want[strconv.Itoa(10*round+i)] = 0; (round+i)%2 == 0 {
				m.MetaSetMut("kinesis.arrival.timestamp", "2023-11-14T22:13:20.123Z")
				want[strconv.Itoa(10*round+i)] = 1700000000123
			}
		}
		if _, err := write(t, o, batch); err != nil {
			t.Fatal(err)
		}
	}
	if !again {
		t.Error("no storage was used again")
	}
	if got := eventTimes(b.Messages("t")); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("stored %v\nwant %v", got, want)
	}
}

// The form with dots, which is the first that comes to mind, would refuse every message at run time.
func TestDottedMetadataReferenceIsToldAtOnce(t *testing.T) {
	const good = "url: pulsar://localhost:6650\ntopic: orders\n"
	for _, value := range []string{`${! @kinesis.arrival.timestamp }`, `${! @kinesis.arrival.timestamp.or("") }`, `x${!@kinesis.x}`} {
		yaml := good + "event_time: '" + value + "'"
		if texts := strings.Join(lint(t, under(yaml)), "\n"); !strings.Contains(texts, `event_time: @kinesis.`) || !strings.Contains(texts, `@"kinesis.arrival.timestamp"`) {
			t.Errorf("%s lints with %q", value, texts)
		}
		if _, err := parse(t, yaml); err == nil || !strings.Contains(err.Error(), `event_time: @kinesis.`) {
			t.Errorf("%s parses with %v", value, err)
		}
	}
}

// A lone reference and an unset field stay out of Bloblang.
func TestEventTimeWithoutBloblang(t *testing.T) {
	const good = "url: pulsar://localhost:6650\ntopic: orders\n"
	for yaml, want := range map[string]eventTime{
		"":      {},
		arrival: {set: true, text: text{metadata: "kinesis.arrival.timestamp"}},
		`event_time: '${! metadata("kinesis.arrival.timestamp") }'`: {set: true, text: text{metadata: "kinesis.arrival.timestamp"}},
	} {
		if c, err := parse(t, good+yaml); err != nil || c.eventTime != want {
			t.Errorf("%q: %+v, %v", yaml, c.eventTime, err)
		}
	}
}
