package output

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

const smallLimit = 200 << 10

// incompressible returns n bytes that no codec makes smaller.
func incompressible(n int) string {
	b := make([]byte, n)
	x := uint64(n)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return string(b)
}

// Consumers get a record above the broker's limit whole, and in its place: there is no order between two producers, so
// what comes before it must be confirmed when it is sent, and it must be when the next is.
func TestOversizeRecordsKeepTheirPlace(t *testing.T) {
	t.Parallel()
	for _, compression := range []string{"none", "lz4", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			b := startBroker(t, pulsartest.MaxMessageSize(smallLimit), pulsartest.ReceiptDelay(5*time.Millisecond))
			if err := b.CreatePartitionedTopic("t", 2); err != nil {
				t.Fatal(err)
			}
			o := connected(t, b.URL(), "topic: t\ncompression: "+compression)
			var sizes []int
			for i := range 40 {
				sizes = append(sizes, 10+i)
			}
			// Among others, alone at both ends, one behind the other, and around the limit.
			for i, size := range map[int]int{0: 3 * smallLimit, 7: smallLimit + 1, 8: 10 * smallLimit, 20: smallLimit, 21: smallLimit - 100, 22: smallLimit - 2000, 39: 2 * smallLimit} {
				sizes[i] = size
			}
			var payloads []string
			for _, size := range sizes {
				payloads = append(payloads, incompressible(size))
			}
			batch, a := newShard().batchOf(repeat("k", len(payloads)), payloads)
			if err := o.WriteBatch(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			if replay, _ := undelivered(t, a); len(replay) > 0 {
				t.Errorf("records %v are not marked", replay)
			}
			messages := b.Messages("t")
			if len(messages) != len(payloads) {
				t.Fatalf("%d messages of %d", len(messages), len(payloads))
			}
			for i, m := range messages {
				if string(m.Payload) != payloads[i] || m.Key != "k" {
					t.Errorf("message %d has %d bytes, want %d", i, len(m.Payload), len(payloads[i]))
				}
			}
			chunked := 0
			for _, e := range b.Entries("t") {
				if e.Chunks > 1 {
					chunked++
				}
				if e.Size > smallLimit {
					t.Errorf("an entry of %d bytes, above the limit of %d", e.Size, smallLimit)
				}
			}
			if chunked < 10 {
				t.Errorf("only %d chunks", chunked)
			}
			if problems := b.Problems(); len(problems) > 0 {
				t.Errorf("the broker saw %v", problems)
			}
		})
	}
}

// What is near the limit is sent whole by the second producer if it fits, and metadata count.
func TestMessagesWithLargeProperties(t *testing.T) {
	t.Parallel()
	b := startBroker(t, pulsartest.MaxMessageSize(smallLimit))
	o := connected(t, b.URL(), "topic: t\ncompression: none")
	batch, _ := newShard().batch(repeat("k", 6)...)
	batch[1].MetaSetMut("kinesis.x", strings.Repeat("x", smallLimit/3))
	batch[2].MetaSetMut("kinesis.x", strings.Repeat("x", smallLimit/7))
	batch[3].MetaSetMut("kinesis.x", strings.Repeat("x", smallLimit/2))
	batch[3].SetBytes([]byte(strings.Repeat("y", smallLimit)))
	batch[4].MetaSetMut("kinesis.x", strings.Repeat("x", smallLimit)) // can never be sent
	failed, err := write(t, o, batch)
	if !slices.Equal(failed, []int{4}) || !errors.Is(err, pulsar.ErrMetaTooLarge) && !strings.Contains(err.Error(), "metadata") {
		t.Errorf("failed %v: %v", failed, err)
	}
	var sizes []int
	for _, m := range b.Messages("t") {
		sizes = append(sizes, len(m.Properties["kinesis.x"]))
	}
	if want := []int{0, smallLimit / 3, smallLimit / 7, smallLimit / 2, 0}; !slices.Equal(sizes, want) {
		t.Errorf("stored messages with properties of %v bytes, want %v", sizes, want)
	}
}

// onePacket sends a batch in as few packets as it fits into, however long the machine stands still between two messages.
const onePacket = "producer_batching:\n  max_publish_delay: 1h"

// Packets of small messages with large properties once came out above the limit, which the client refuses whole: the same
// packet was made again at every replay.
func TestPacketsLeaveRoomForProperties(t *testing.T) {
	t.Parallel()
	b := startBroker(t, pulsartest.MaxMessageSize(smallLimit))
	o := connected(t, b.URL(), "topic: t\ncompression: none\nproducer_batching:\n  max_size: 10000000\n  max_publish_delay: 1h")
	batch, _ := newShard().batchOf(repeat("k", 300), slices.Repeat([]string{strings.Repeat("x", 3000)}, 300))
	for _, m := range batch {
		m.MetaSetMut("kinesis.x", strings.Repeat("x", 5000))
	}
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if n := len(b.Messages("t")); n != 300 {
		t.Errorf("%d messages", n)
	}
}

// SendAsync would wait for ever for room for more chunks than the client has, with the attempt locked.
func TestMessageOfTooManyChunks(t *testing.T) {
	t.Parallel()
	b := startBroker(t, pulsartest.MaxMessageSize(8<<10))
	o := connected(t, b.URL(), "topic: t\ncompression: none")
	batch, _ := newShard().batchOf(repeat("k", 3), []string{"0", incompressible(8 << 20), "2"})
	if failed, err := write(t, o, batch); !slices.Equal(failed, []int{1}) || !strings.Contains(err.Error(), "too large to be cut") {
		t.Errorf("failed %v: %v", failed, err)
	}
	if got := payloads(b.Messages("t")); !slices.Equal(got, []string{"0", "2"}) {
		t.Errorf("stored %d", len(got))
	}
}

func TestNonPersistentTopicsHoldNoChunks(t *testing.T) {
	t.Parallel()
	b := startBroker(t, pulsartest.MaxMessageSize(smallLimit))
	const topic = "non-persistent://public/default/t"
	o := connected(t, b.URL(), "compression: none\ntopic: "+topic)
	batch, _ := newShard().batchOf(repeat("k", 3), []string{"0", incompressible(2 * smallLimit), "2"})
	if failed, err := write(t, o, batch); !slices.Equal(failed, []int{1}) || !strings.Contains(err.Error(), "MaxMessageSize") {
		t.Errorf("failed %v: %v", failed, err)
	}
	if got := payloads(b.Messages(topic)); !slices.Equal(got, []string{"0", "2"}) {
		t.Errorf("stored %d", len(got))
	}
}

// The broker's limit is read from the client's log. If a broker has a lower one than was known, the client's refusal
// tells, and the record comes again.
func TestLimitThatWasNotKnown(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"payload too large": smallLimit + 1, "payload and metadata too large": smallLimit - 2} {
		t.Run(name, func(t *testing.T) {
			b := startBroker(t, pulsartest.MaxMessageSize(smallLimit))
			o := connected(t, b.URL(), "topic: t\ncompression: none")
			if limit := o.session.Load().health.maxMessageSize(); limit != smallLimit {
				t.Fatalf("the limit is taken for %d", limit)
			}
			o.session.Load().health.limit.Store(1 << 30)
			keys, payloads := repeat("k", 3), []string{"0", incompressible(size), "2"}
			if replays := deliver(t, o, keys, payloads); replays != 1 {
				t.Errorf("%d replays", replays)
			}
			last := map[string]int{}
			for i, m := range b.Messages("t") {
				last[string(m.Payload)] = i
			}
			if len(last) != 3 || last["0"] > last[payloads[1]] || last[payloads[1]] > last["2"] {
				t.Error("out of order")
			}
		})
	}
}

func TestNothingIsLostWithOversizeRecords(t *testing.T) {
	for name, event := range map[string]func(t *testing.T, b *pulsartest.Broker){
		"connections dropped":         func(_ *testing.T, b *pulsartest.Broker) { b.DropConnections() },
		"stored, but no receipt":      func(_ *testing.T, b *pulsartest.Broker) { b.DropAfterStore("t", 5) },
		"dropped before it is stored": func(_ *testing.T, b *pulsartest.Broker) { b.DropBeforeStore("t", 5) },
		"topic unloaded":              func(_ *testing.T, b *pulsartest.Broker) { b.CloseProducers("t") },
		"write refused": func(_ *testing.T, b *pulsartest.Broker) {
			b.FailSends("t", 3, pulsartest.PersistenceError, "no bookies")
		},
		"quota exceeded": func(_ *testing.T, b *pulsartest.Broker) {
			b.RefuseProducers("t", 4, pulsartest.ProducerBlockedQuotaExceededException, "the backlog is full")
			b.DropConnections()
		},
	} {
		t.Run(name, func(t *testing.T) {
			// Unbatched producers of the client race with themselves when they reconnect.
			skipClientRace(t)
			t.Parallel()
			b := startBroker(t, pulsartest.ReceiptDelay(time.Millisecond), pulsartest.MaxMessageSize(20<<10))
			if err := b.CreatePartitionedTopic("t", 2); err != nil {
				t.Fatal(err)
			}
			o := connected(t, b.URL(), "topic: t\ncompression: none")
			const batches, size = 30, 20
			s := 0
			large := incompressible(90 << 10)
			for n := range batches {
				if n == batches/3 {
					go event(t, b)
				}
				keys, payloads := make([]string, size), make([]string, size)
				for i := range keys {
					keys[i], payloads[i] = fmt.Sprint("k", i%3), fmt.Sprint(s)
					if i%5 == 2 {
						payloads[i] += " " + large
					}
					s++
				}
				deliver(t, o, keys, payloads)
			}
			messages := b.Messages("t")
			for i := range messages {
				number, rest, cut := strings.Cut(string(messages[i].Payload), " ")
				if cut && rest != large {
					t.Errorf("record %s is torn", number)
				}
				messages[i].Payload = []byte(number)
			}
			checkDelivery(t, messages, batches*size)
		})
	}
}

// When the client tells of an exceeded quota it fails what is pending, and chunks that it cuts from then on may get through
// without those before them; the last one's receipt looks like the message's.
func TestReceiptOfATornMessageIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var chunking []*fakeProducer
		o := withFake(t, &fakeClient{create: func(opts pulsar.ProducerOptions) (pulsar.Producer, error) {
			p := &fakeProducer{}
			if opts.EnableChunking {
				if opts.SendTimeout >= 0 || !opts.DisableBatching {
					t.Errorf("options %+v", opts)
				}
				chunking = append(chunking, p)
			}
			return p, nil
		}})
		defer closeOutput(t, o)
		s := o.session.Load()
		s.health.lowerLimit(1000)
		client := &clientLog{health: s.health, refusals: s.refusals, out: o.log}
		batch, a := newShard().batchOf([]string{"k"}, []string{strings.Repeat("x", 2000)})
		done := result(o, t.Context(), batch)
		synctest.Wait()
		if len(chunking) != 1 || len(chunking[0].payloads()) != 1 {
			t.Fatalf("%d producers for chunks", len(chunking))
		}
		client.WithFields(log.Fields{"topic": "t"}).Warn("Producer was blocked by quota exceed exception, failing pending messages, will retry reconnecting")
		chunking[0].receipts(1)
		// The receipt, or the end of the producer that the same log line is about: whichever comes first.
		if err := <-done; err == nil || !strings.Contains(err.Error(), errTorn.Error()) && !strings.Contains(err.Error(), "ProducerBlockedQuotaExceeded") {
			t.Errorf("%v", err)
		}
		if replay, refused := undelivered(t, a); len(replay) != 1 || refused {
			t.Errorf("replay %v, refused %v", replay, refused)
		}
		time.Sleep(time.Minute)
		batch, _ = newShard().batchOf([]string{"k"}, []string{strings.Repeat("x", 2000)})
		done = result(o, t.Context(), batch)
		synctest.Wait()
		chunking[1].receipts(1)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The client's own timeout would forget single chunks; the watch-dog has one for the whole message.
func TestSendTimeoutOfAMessageInChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf, err := parse(t, "url: pulsar://fake:6650\ntopic: t\nsend_timeout: 10s")
		if err != nil {
			t.Fatal(err)
		}
		o := withConfig(conf, &fakeClient{create: func(pulsar.ProducerOptions) (pulsar.Producer, error) { return &fakeProducer{}, nil }})
		defer closeOutput(t, o)
		o.session.Load().health.lowerLimit(1000)
		batch, _ := newShard().batchOf([]string{"k"}, []string{strings.Repeat("x", 2000)})
		begin := time.Now()
		if err := o.WriteBatch(t.Context(), batch); !strings.Contains(fmt.Sprint(err), pulsar.ErrSendTimeout.Error()) {
			t.Errorf("%v", err)
		}
		if waited := time.Since(begin); waited < 10*time.Second || waited > 12*time.Second {
			t.Errorf("after %s", waited)
		}
	})
}
