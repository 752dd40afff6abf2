package pulsartest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

// subject is a broker that the table is held against: the fake, and the real one where it can run.
type subject struct {
	name   string
	url    string
	client pulsar.Client
	// namespace is where the row's topics are; deduplication is on in the second one.
	namespace, deduplicating string

	createPartitioned func(t *testing.T, topic string, n int)
	terminate         func(t *testing.T, topic string)
	unload            func(t *testing.T, topic string)
	// read returns the messages of a topic without partitions, or of one partition.
	read func(t *testing.T, topic string) []string
}

func (s *subject) topic(name string) string { return "persistent://" + s.namespace + "/" + name }

func (s *subject) deduplicated(name string) string {
	return "persistent://" + s.deduplicating + "/" + name
}

// behaviours is what both brokers must do alike. Each row returns what it has seen, line by line.
var behaviours = []struct {
	name string
	run  func(t *testing.T, s *subject) []string
	want []string
}{
	{
		"a topic's partitions",
		func(t *testing.T, s *subject) []string {
			s.createPartitioned(t, s.topic("p"), 3)
			c := pulsartest.DialRaw(t, s.url)
			var seen []string
			for _, topic := range []string{"missing", "missing-partition-2", "p", "p-partition-1", "p-partition-7"} {
				c.Partitions(s.topic(topic))
				seen = append(seen, topic+": "+c.Answer())
			}
			return seen
		},
		[]string{
			"missing: 0 partitions", "missing-partition-2: 0 partitions", "p: 3 partitions",
			"p-partition-1: 0 partitions", "p-partition-7: no partitions: TopicNotFound",
		},
	},
	{
		"who may produce where",
		func(t *testing.T, s *subject) []string {
			s.createPartitioned(t, s.topic("where"), 3)
			c := pulsartest.DialRaw(t, s.url)
			var seen []string
			for i, topic := range []string{"where-partition-1", "where-partition-7", "where", "nowhere", "nowhere-else-partition-2"} {
				c.CreateProducer(s.topic(topic), uint64(i+1), "", 0)
				seen = append(seen, topic+": "+c.Answer())
			}
			return seen
		},
		[]string{
			"where-partition-1: PRODUCER_SUCCESS named, last sequence id -1",
			"where-partition-7: ERROR TopicNotFound",
			"where: ERROR NotAllowedError",
			"nowhere: PRODUCER_SUCCESS named, last sequence id -1",
			"nowhere-else-partition-2: ERROR NotAllowedError",
		},
	},
	{
		"producer names",
		func(t *testing.T, s *subject) []string {
			one, other := pulsartest.DialRaw(t, s.url), pulsartest.DialRaw(t, s.url)
			var seen []string
			note := func(what string, c *pulsartest.RawClient) { seen = append(seen, what+": "+c.Answer()) }
			one.CreateProducer(s.topic("names"), 1, "n", 0)
			note("first", one)
			one.CreateProducer(s.topic("names"), 1, "n", 0)
			note("asked again", one)
			one.CreateProducer(s.topic("names"), 2, "n", 5)
			note("same connection, another id", one)
			other.CreateProducer(s.topic("names"), 1, "n", 5)
			note("another connection", other)
			one.CreateProducer(s.topic("other-names"), 3, "n", 0)
			note("another topic", one)
			one.CloseProducer(1)
			note("closed", one)
			one.CloseProducer(1)
			note("closed again", one)
			other.CreateProducer(s.topic("names"), 1, "n", 5)
			note("another connection, after that", other)
			return seen
		},
		[]string{
			"first: PRODUCER_SUCCESS named, last sequence id -1",
			"asked again: PRODUCER_SUCCESS named, last sequence id -1",
			"same connection, another id: ERROR ProducerBusy",
			"another connection: ERROR ProducerBusy",
			"another topic: PRODUCER_SUCCESS named, last sequence id -1",
			"closed: SUCCESS",
			"closed again: SUCCESS",
			"another connection, after that: PRODUCER_SUCCESS named, last sequence id -1",
		},
	},
	{
		"producer names through the client",
		func(t *testing.T, s *subject) []string {
			var seen []string
			a := newProducer(t, s.client, pulsar.ProducerOptions{Topic: s.topic("client-names")})
			b := newProducer(t, s.client, pulsar.ProducerOptions{Topic: s.topic("client-names")})
			seen = append(seen, fmt.Sprint("assigned and distinct: ", a.Name() != "" && a.Name() != b.Name()))
			_, err := createProducer(s.client, pulsar.ProducerOptions{Topic: s.topic("client-names"), Name: a.Name()})
			return append(seen, fmt.Sprint(err != nil && regexp.MustCompile(
				`^server error: ProducerBusy: .*NamingException: Producer with name '`+a.Name()+`' is already connected to topic '`+
					s.topic("client-names")+`'$`).MatchString(err.Error())))
		},
		[]string{"assigned and distinct: true", "true"},
	},
	{
		"what a consumer sees",
		func(t *testing.T, s *subject) []string {
			for i, compression := range []pulsar.CompressionType{
				pulsar.NoCompression, pulsar.LZ4, pulsar.ZLib, pulsar.ZSTD, pulsar.SNAPPY,
			} {
				for _, batching := range []bool{true, false} {
					p := newProducer(t, s.client, pulsar.ProducerOptions{
						Topic: s.topic("seen"), Name: fmt.Sprintf("p%d-%t", i, batching), CompressionType: compression,
						DisableBatching: !batching, BatchingMaxPublishDelay: time.Hour,
					})
					messages := []*pulsar.ProducerMessage{
						{Payload: allBytes, Key: "k", Properties: map[string]string{"a": "1", "b": ""}, EventTime: time.UnixMilli(1700000000123)},
						{Payload: []byte("ordered"), OrderingKey: "o"},
						{Payload: nil, Key: "tombstone"},
					}
					if batching {
						// Outside a batch a Go consumer does not see what is stored: a compressed message of no bytes is
						// not decompressed for it, an uncompressed one is dropped.
						messages = append(messages, &pulsar.ProducerMessage{Payload: []byte{}})
					}
					r := newResults(len(messages))
					for j, m := range messages {
						p.SendAsync(context.Background(), m, r.callback(j))
					}
					if err := p.FlushWithCtx(testContext(t)); err != nil {
						t.Fatal(err)
					}
					r.wait(t)
				}
			}
			return s.read(t, s.topic("seen"))
		},
		func() []string {
			var want []string
			for i := range 5 {
				for _, batching := range []bool{true, false} {
					at := func(index int) string {
						if !batching {
							index = 0
						}
						return fmt.Sprintf("p%d-%t[%d]", i, batching, index)
					}
					want = append(want,
						fmt.Sprintf(`%s key "k" order "" %q map["a":"1" "b":""] at 1700000000123`, at(0), allBytes),
						fmt.Sprintf(`%s key "" order "o" "ordered" map[] at 0`, at(1)),
						fmt.Sprintf(`%s key "tombstone" order "" null map[] at 0`, at(2)))
					if batching {
						want = append(want, fmt.Sprintf(`%s key "" order "" "" map[] at 0`, at(3)))
					}
				}
			}
			return want
		}(),
	},
	{
		"receipts name what a consumer reads, entry by entry",
		func(t *testing.T, s *subject) []string {
			p := newProducer(t, s.client, pulsar.ProducerOptions{Topic: s.topic("ids"), BatchingMaxPublishDelay: time.Hour, BatchingMaxMessages: 3})
			r := sendAll(t, p, 0, 7)
			if err := p.FlushWithCtx(testContext(t)); err != nil {
				t.Fatal(err)
			}
			ids := r.wait(t)
			var seen []string
			for _, id := range ids {
				seen = append(seen, fmt.Sprintf("%d.%d", id.EntryID()-ids[0].EntryID(), id.BatchIdx()))
			}
			return seen
		},
		[]string{"0.0", "0.1", "0.2", "1.0", "1.1", "1.2", "2.0"},
	},
	{
		"order, also over an unload",
		func(t *testing.T, s *subject) []string {
			p := newProducer(t, s.client, pulsar.ProducerOptions{Topic: s.topic("order"), BatchingMaxMessages: 10})
			r := sendAll(t, p, 0, 200)
			before := r.wait(t)
			s.unload(t, s.topic("order"))
			after := sendAll(t, p, 200, 400).wait(t)
			ordered := true
			for i, line := range s.read(t, s.topic("order")) {
				ordered = ordered && strings.Contains(line, fmt.Sprintf(` "%d" `, i))
			}
			return []string{
				fmt.Sprint("in order: ", ordered),
				fmt.Sprint("a new ledger: ", before[0].LedgerID() != after[0].LedgerID()),
			}
		},
		[]string{"in order: true", "a new ledger: true"},
	},
	{
		"a terminated topic",
		func(t *testing.T, s *subject) []string {
			c := pulsartest.DialRaw(t, s.url)
			c.CreateProducer(s.topic("ended"), 7, "", 0)
			seen := []string{c.Answer()}
			c.Send(pulsartest.RawSend{Producer: 7, Sequence: 1, Name: "p", Payload: []byte("stays")})
			seen = append(seen, c.Answer())
			p := newProducer(t, s.client, pulsar.ProducerOptions{Topic: s.topic("ended")})
			s.terminate(t, s.topic("ended"))
			seen = append(seen, c.Answer())
			c.Send(pulsartest.RawSend{Producer: 7, Sequence: 2, Name: "p", Payload: []byte("too late")})
			c.CreateProducer(s.topic("ended"), 8, "", 0)
			seen = append(seen, c.Answer())
			_, err := p.Send(testContext(t), &pulsar.ProducerMessage{Payload: []byte("too late")})
			seen = append(seen, fmt.Sprint("client: ", errors.Is(err, pulsar.ErrTopicTerminated) || errors.Is(err, pulsar.ErrProducerClosed)))
			return append(seen, s.read(t, s.topic("ended"))...)
		},
		[]string{
			"PRODUCER_SUCCESS named, last sequence id -1",
			"SEND_RECEIPT 1, stored",
			"CLOSE_PRODUCER 7",
			"ERROR TopicTerminatedError",
			"client: true",
			`p[0] key "" order "" "stays" map[] at 0`,
		},
	},
	{
		"checksums",
		func(t *testing.T, s *subject) []string {
			c := pulsartest.DialRaw(t, s.url)
			c.CreateProducer(s.topic("sums"), 1, "", 0)
			seen := []string{c.Answer()}
			for i, send := range []pulsartest.RawSend{{}, {BadChecksum: true}, {NoChecksum: true}} {
				send.Producer, send.Sequence, send.Name, send.Payload = 1, uint64(i), "p", []byte{byte('a' + i)}
				c.Send(send)
				seen = append(seen, c.Answer())
			}
			return seen // not read back: the Go client can't read what has no checksum
		},
		[]string{
			"PRODUCER_SUCCESS named, last sequence id -1",
			"SEND_RECEIPT 0, stored", "SEND_ERROR 1 ChecksumError", "SEND_RECEIPT 2, stored",
		},
	},
	{
		"a SEND for a producer that never was closes the connection",
		func(t *testing.T, s *subject) []string {
			c := pulsartest.DialRaw(t, s.url)
			c.Send(pulsartest.RawSend{Producer: 99, Name: "p", Payload: []byte("x")})
			return []string{c.Answer()}
		},
		[]string{"connection closed"},
	},
	{
		"a SEND for a producer that the client closed closes the connection",
		func(t *testing.T, s *subject) []string {
			c := pulsartest.DialRaw(t, s.url)
			c.CreateProducer(s.topic("closed-by-client"), 1, "", 0)
			seen := []string{c.Answer()}
			c.CloseProducer(1)
			seen = append(seen, c.Answer())
			c.Send(pulsartest.RawSend{Producer: 1, Name: "p", Payload: []byte("x")})
			return append(seen, c.Answer())
		},
		[]string{"PRODUCER_SUCCESS named, last sequence id -1", "SUCCESS", "connection closed"},
	},
	{
		"a SEND for a producer that the broker closed is ignored",
		func(t *testing.T, s *subject) []string {
			c := pulsartest.DialRaw(t, s.url)
			c.CreateProducer(s.topic("closed-by-broker"), 1, "", 0)
			seen := []string{c.Answer()}
			s.unload(t, s.topic("closed-by-broker"))
			seen = append(seen, c.Answer())
			c.Send(pulsartest.RawSend{Producer: 1, Name: "p", Payload: []byte("x")})
			c.Ping()
			return append(seen, c.Answer())
		},
		[]string{"PRODUCER_SUCCESS named, last sequence id -1", "CLOSE_PRODUCER 1", "PONG"},
	},
	{
		"a frame above the limit closes the connection",
		func(t *testing.T, s *subject) []string {
			c := pulsartest.DialRaw(t, s.url)
			c.CreateProducer(s.topic("large"), 1, "", 0)
			seen := []string{c.Answer()}
			// The frame's size alone decides: nothing of it needs to be sent.
			size := pulsartest.DefaultMaxMessageSize + 10*1024 + 1
			c.Write([]byte{byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size), 0, 0, 0, 0, 0, 0})
			seen = append(seen, c.Answer())
			for _, disable := range []bool{false, true} {
				p := newProducer(t, s.client, pulsar.ProducerOptions{Topic: s.topic("large"), DisableBatching: disable})
				_, err := p.Send(testContext(t), &pulsar.ProducerMessage{Payload: make([]byte, pulsartest.DefaultMaxMessageSize+1)})
				seen = append(seen, fmt.Sprint("client: ", errors.Is(err, pulsar.ErrMessageTooLarge)))
				_, err = p.Send(testContext(t), &pulsar.ProducerMessage{Payload: make([]byte, pulsartest.DefaultMaxMessageSize-10*1024)})
				seen = append(seen, fmt.Sprint("just below: ", err))
			}
			return seen
		},
		[]string{
			"PRODUCER_SUCCESS named, last sequence id -1", "connection closed",
			"client: true", "just below: <nil>", "client: true", "just below: <nil>",
		},
	},
	{
		"keys that are absent and keys that are empty",
		func(t *testing.T, s *subject) []string {
			c := pulsartest.DialRaw(t, s.url)
			c.CreateProducer(s.topic("keys"), 1, "", 0)
			seen := []string{c.Answer()}
			empty := ""
			for i, send := range []pulsartest.RawSend{{}, {Key: &empty}, {Key: &empty, NullKey: true}} {
				// Not empty: a Go consumer drops an unbatched, uncompressed message of no bytes without properties.
				send.Producer, send.Sequence, send.Name, send.Payload = 1, uint64(i), "p", []byte("v")
				c.Send(send)
				seen = append(seen, c.Answer())
			}
			return append(seen, s.read(t, s.topic("keys"))...)
		},
		[]string{
			"PRODUCER_SUCCESS named, last sequence id -1",
			"SEND_RECEIPT 0, stored", "SEND_RECEIPT 1, stored", "SEND_RECEIPT 2, stored",
			`p[0] key "" order "" "v" map[] at 0`, `p[0] key "" order "" "v" map[] at 0`, `p[0] key "" order "" "v" map[] at 0`,
		},
	},
	{
		"a batch that holds less than it says is confirmed all the same",
		func(t *testing.T, s *subject) []string {
			c := pulsartest.DialRaw(t, s.url)
			c.CreateProducer(s.topic("broken"), 1, "", 0)
			seen := []string{c.Answer()}
			c.Send(pulsartest.RawSend{Producer: 1, Sequence: 5, Highest: 9, Name: "p", Batch: []string{"a", "b"}, Claim: 3})
			return append(seen, c.Answer())
		},
		[]string{"PRODUCER_SUCCESS named, last sequence id -1", "SEND_RECEIPT 5 to 9, stored"},
	},
	{
		"no de-duplication unless asked for",
		func(t *testing.T, s *subject) []string {
			c := pulsartest.DialRaw(t, s.url)
			c.CreateProducer(s.topic("plain"), 1, "d", 0)
			seen := []string{c.Answer()}
			for _, sequence := range []uint64{5, 5, 3} {
				c.Send(pulsartest.RawSend{Producer: 1, Sequence: sequence, Name: "d", Payload: []byte("x")})
				seen = append(seen, c.Answer())
			}
			c.CloseProducer(1)
			seen = append(seen, c.Answer())
			c.CreateProducer(s.topic("plain"), 2, "d", 0)
			return append(seen, c.Answer())
		},
		[]string{
			"PRODUCER_SUCCESS named, last sequence id -1",
			"SEND_RECEIPT 5, stored", "SEND_RECEIPT 5, stored", "SEND_RECEIPT 3, stored",
			"SUCCESS", "PRODUCER_SUCCESS named, last sequence id -1",
		},
	},
	{
		"de-duplication",
		func(t *testing.T, s *subject) []string {
			c := pulsartest.DialRaw(t, s.url)
			c.CreateProducer(s.deduplicated("d"), 1, "d", 0)
			seen := []string{c.Answer()}
			for _, send := range []pulsartest.RawSend{
				{Sequence: 5}, {Sequence: 5}, {Sequence: 3}, {Sequence: 8},
				{Sequence: 10, Batch: []string{"a", "b", "c"}},              // known by its first id alone
				{Sequence: 11, Batch: []string{"b", "c"}},                   // so this is stored again
				{Sequence: 20, Highest: 24, Batch: []string{"u", "v", "w"}}, // as the Java client does it
				{Sequence: 22}, {Sequence: 25},
			} {
				send.Producer, send.Name = 1, "d"
				if send.Batch == nil {
					send.Payload = fmt.Append(nil, send.Sequence)
				}
				c.Send(send)
				seen = append(seen, c.Answer())
			}
			c.CloseProducer(1)
			seen = append(seen, c.Answer())
			c.CreateProducer(s.deduplicated("d"), 2, "d", 0)
			seen = append(seen, c.Answer())
			c.CreateProducer(s.deduplicated("d"), 3, "another", 0)
			return append(seen, c.Answer())
		},
		[]string{
			"PRODUCER_SUCCESS named, last sequence id -1",
			"SEND_RECEIPT 5, stored", "SEND_RECEIPT 5, duplicate", "SEND_RECEIPT 3, duplicate",
			"SEND_RECEIPT 8, stored",
			"SEND_RECEIPT 10, stored", "SEND_RECEIPT 11, stored",
			"SEND_RECEIPT 20 to 24, stored", "SEND_RECEIPT 22, duplicate", "SEND_RECEIPT 25, stored",
			"SUCCESS", "PRODUCER_SUCCESS named, last sequence id 25", "PRODUCER_SUCCESS named, last sequence id -1",
		},
	},
}

func TestTheFakeBehavesAsTheTableSays(t *testing.T) {
	for _, row := range behaviours {
		t.Run(row.name, func(t *testing.T) { compare(t, row.run(t, fakeSubject(t)), row.want) })
	}
}

func TestTheRealBrokerBehavesAsTheTableSays(t *testing.T) {
	real := realSubject(t)
	for _, row := range behaviours {
		t.Run(row.name, func(t *testing.T) { compare(t, row.run(t, real), row.want) })
	}
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	for i := range max(len(got), len(want)) {
		g, w := "(nothing)", "(nothing)"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("line %d:\n got  %s\n want %s", i, g, w)
		}
	}
}

// seenMessage renders a message as far as a consumer can see it. A message outside a batch has index 0 for it.
func seenMessage(producer string, batchIndex int, key, orderingKey string, payload []byte, null bool, properties map[string]string, eventTime time.Time) string {
	value := fmt.Sprintf("%q", payload)
	if null {
		value = "null"
	}
	at := int64(0)
	if eventTime.Unix() > 0 {
		at = eventTime.UnixMilli()
	}
	return fmt.Sprintf("%s[%d] key %q order %q %s %q at %d", producer, batchIndex, key, orderingKey, value, properties, at)
}

func fakeSubject(t *testing.T) *subject {
	// The real broker sets de-duplication by namespace, the fake as a whole.
	var options []pulsartest.Option
	if strings.HasSuffix(t.Name(), "/de-duplication") {
		options = append(options, pulsartest.Deduplication())
	}
	b := newBroker(t, options...)
	check := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	return &subject{
		name: "fake", url: b.URL(), client: newClient(t, b.URL()),
		namespace: "public/default", deduplicating: "public/default",
		createPartitioned: func(t *testing.T, topic string, n int) { check(t, b.CreatePartitionedTopic(topic, n)) },
		terminate:         func(t *testing.T, topic string) { check(t, b.TerminateTopic(topic)) },
		unload:            func(_ *testing.T, topic string) { b.CloseProducers(topic) },
		read: func(_ *testing.T, topic string) []string {
			var seen []string
			for _, m := range b.Messages(topic) {
				seen = append(seen, seenMessage(m.ProducerName, max(0, m.BatchIndex), m.Key, string(m.OrderingKey), m.Payload, m.Null, m.Properties, m.EventTime))
			}
			return seen
		},
	}
}

var namespaces atomic.Int64

func realSubject(t *testing.T) *subject {
	broker := stack.SharedPulsar(t)
	admin := func(t *testing.T, method, path string, body any) {
		t.Helper()
		if _, err := broker.Admin(testContext(t), method, path, body); err != nil {
			t.Fatal(err)
		}
	}
	n := namespaces.Add(1) // -count above 1 meets the same broker
	s := &subject{
		name: "real", url: broker.ServiceURL(), client: newClient(t, broker.ServiceURL()),
		namespace: fmt.Sprintf("public/table-%d", n), deduplicating: fmt.Sprintf("public/table-deduplicating-%d", n),
	}
	for _, namespace := range []string{s.namespace, s.deduplicating} {
		if err := broker.CreateNamespace(testContext(t), namespace); err != nil {
			t.Fatal(err)
		}
	}
	admin(t, http.MethodPost, "/admin/v2/namespaces/"+s.deduplicating+"/deduplication", true)
	path := func(topic string) string { return "/admin/v2/persistent/" + strings.TrimPrefix(topic, "persistent://") }
	s.createPartitioned = func(t *testing.T, topic string, n int) {
		if err := broker.CreatePartitionedTopic(testContext(t), topic, n); err != nil {
			t.Fatal(err)
		}
	}
	s.terminate = func(t *testing.T, topic string) { admin(t, http.MethodPost, path(topic)+"/terminate", nil) }
	s.unload = func(t *testing.T, topic string) { admin(t, http.MethodPut, path(topic)+"/unload", nil) }
	s.read = func(t *testing.T, topic string) []string {
		reader, err := s.client.CreateReader(pulsar.ReaderOptions{Topic: topic, StartMessageID: pulsar.EarliestMessageID()})
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		var seen []string
		for reader.HasNext() {
			m, err := reader.Next(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, seenMessage(m.ProducerName(), int(m.ID().BatchIdx()), m.Key(), m.OrderingKey(), m.Payload(), m.IsNullValue(), m.Properties(), m.EventTime()))
		}
		return seen
	}
	return s
}
