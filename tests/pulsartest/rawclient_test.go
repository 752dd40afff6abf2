package pulsartest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"strings"
	"testing"
	"time"
)

// RawClient speaks the protocol frame by frame, to say what no well-behaved client says.
type RawClient struct {
	t         *testing.T
	conn      net.Conn
	answers   chan string // closed with the connection
	requestID uint64
}

// RawSend is a SEND as the test wants it.
type RawSend struct {
	Producer, Sequence, Highest uint64
	Name                        string
	Payload                     []byte
	Key                         *string
	NullKey                     bool
	Batch                       []string // the payloads of a batch instead of one message
	Claim                       int      // how many messages the batch claims to hold, if not 0
	NoChecksum, BadChecksum     bool
}

// DialRaw connects and shakes hands.
func DialRaw(t *testing.T, url string) *RawClient {
	t.Helper()
	_, address, _ := strings.Cut(url, "://")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	c := &RawClient{t: t, conn: conn, answers: make(chan string, 100)}
	// Reading in the background, because a broker that asks whether a connection is alive wants its PONG at any time.
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(c.answers)
		c.read(bufio.NewReader(conn))
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	c.write(frame(cmdConnect, message{}.string(1, "raw").int(4, 19)))
	if got := c.Answer(); got != "CONNECTED" {
		t.Fatalf("the answer to CONNECT is %s", got)
	}
	return c
}

func (c *RawClient) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// Ping sends PING: its PONG tells that everything before it was handled.
func (c *RawClient) Ping() { c.t.Helper(); c.write(frame(cmdPing, nil)) }

// CreateProducer sends LOOKUP, without which the real broker does not load a topic, and PRODUCER; an empty name asks for one.
func (c *RawClient) CreateProducer(topic string, id uint64, name string, epoch uint64) {
	c.t.Helper()
	c.requestID++
	c.write(frame(cmdLookup, message{}.string(1, topic).uint(2, c.requestID)))
	if got := c.Answer(); got != "LOOKUP_RESPONSE" {
		c.t.Fatalf("the answer to LOOKUP of %s is %s", topic, got)
	}
	c.requestID++
	m := message{}.string(1, topic).uint(2, id).uint(3, c.requestID).uint(8, epoch)
	if name != "" {
		m = m.string(4, name)
	}
	c.write(frame(cmdProducer, m))
}

// CloseProducer sends CLOSE_PRODUCER.
func (c *RawClient) CloseProducer(id uint64) {
	c.t.Helper()
	c.requestID++
	c.write(frame(cmdCloseProducer, message{}.uint(1, id).uint(2, c.requestID)))
}

// Partitions sends PARTITIONED_METADATA.
func (c *RawClient) Partitions(topic string) {
	c.t.Helper()
	c.requestID++
	c.write(frame(cmdPartitionedMetadata, message{}.string(1, topic).uint(2, c.requestID)))
}

// Send sends SEND.
func (c *RawClient) Send(s RawSend) { c.t.Helper(); c.write(s.Frame()) }

// Write sends bytes as they are.
func (c *RawClient) Write(b []byte) { c.t.Helper(); c.write(b) }

// Frame is the whole frame of a SEND.
func (s RawSend) Frame() []byte {
	meta := message{}.string(1, s.Name).uint(2, s.Sequence).uint(3, 1700000000000)
	if s.Key != nil {
		meta = meta.string(6, *s.Key)
	}
	if s.NullKey {
		meta = meta.bool(30, true)
	}
	payload, count := s.Payload, 1
	if s.Batch != nil {
		payload, count = nil, len(s.Batch)
		for _, p := range s.Batch {
			single := message{}.int(3, int64(len(p)))
			payload = append(append(binary.BigEndian.AppendUint32(payload, uint32(len(single))), single...), p...)
		}
		if s.Claim != 0 {
			count = s.Claim
		}
		meta = meta.int(11, int64(count))
	}
	meta = meta.uint(9, uint64(len(payload)))
	body := binary.BigEndian.AppendUint32(nil, uint32(len(meta)))
	body = append(append(body, meta...), payload...)
	if !s.NoChecksum {
		sum := crc32.Checksum(body, castagnoli)
		if s.BadChecksum {
			sum++
		}
		head := binary.BigEndian.AppendUint32([]byte{magicChecksum >> 8, magicChecksum & 0xff}, sum)
		body = append(head, body...)
	}
	send := message{}.uint(1, s.Producer).uint(2, s.Sequence).int(3, int64(count))
	if s.Highest != 0 {
		send = send.uint(6, s.Highest)
	}
	f := append(frame(cmdSend, send), body...)
	binary.BigEndian.PutUint32(f, uint32(len(f)-4))
	return f
}

// Answer returns the next command of the broker, PING aside, rendered as far as it is comparable between brokers: not ids
// that they choose, and not their prose.
func (c *RawClient) Answer() string {
	c.t.Helper()
	select {
	case answer, ok := <-c.answers:
		if !ok {
			return "connection closed"
		}
		return answer
	case <-time.After(20 * time.Second):
		c.t.Fatal("no answer")
		return ""
	}
}

func (c *RawClient) read(r *bufio.Reader) {
	for {
		f, err := readFrame(r, nil, 1<<20)
		if err != nil {
			return
		}
		raw, _, err := splitFrame(f)
		if err != nil {
			c.answers <- err.Error()
			return
		}
		if kind, values, texts := fields(raw); kind == cmdPing {
			_, _ = c.conn.Write(frame(cmdPong, nil))
		} else {
			c.answers <- render(kind, values, texts)
		}
	}
}

func render(kind commandType, values map[int]uint64, texts map[int][]byte) string {
	switch kind {
	case cmdPong:
		return "PONG"
	case cmdConnected:
		return "CONNECTED"
	case cmdLookupResponse:
		return "LOOKUP_RESPONSE"
	case cmdProducerSuccess:
		name := "named"
		if len(texts[2]) == 0 {
			name = "without a name"
		}
		return fmt.Sprintf("PRODUCER_SUCCESS %s, last sequence id %d", name, int64(values[3]))
	case cmdSuccess:
		return "SUCCESS"
	case cmdError:
		return "ERROR " + ServerError(values[2]).String()
	case cmdSendReceipt:
		r := fieldReader{rest: texts[3]}
		stored := "stored"
		for r.next() {
			if r.number == 1 && int64(r.uint()) == -1 {
				stored = "duplicate"
			}
		}
		// To a client that names no highest id the real broker answers -1 or 0, by what it used the object for before.
		highest := ""
		if int64(values[4]) > 0 {
			highest = fmt.Sprintf(" to %d", values[4])
		}
		return fmt.Sprintf("SEND_RECEIPT %d%s, %s", values[2], highest, stored)
	case cmdSendError:
		return fmt.Sprintf("SEND_ERROR %d %s", values[2], ServerError(values[3]))
	case cmdCloseProducer:
		return fmt.Sprintf("CLOSE_PRODUCER %d", values[1])
	case cmdPartitionedMetadataResp:
		if values[3] == 1 {
			return "no partitions: " + ServerError(values[4]).String()
		}
		return fmt.Sprintf("%d partitions", values[1])
	}
	return fmt.Sprintf("command %d", kind)
}

func fields(raw []byte) (kind commandType, values map[int]uint64, texts map[int][]byte) {
	values, texts = map[int]uint64{}, map[int][]byte{}
	r := fieldReader{rest: raw}
	for r.next() {
		if r.number == 1 {
			kind = commandType(r.uint())
			continue
		}
		body := fieldReader{rest: r.bytes()}
		for body.next() {
			values[int(body.number)] = body.value
			texts[int(body.number)] = body.data
		}
	}
	return kind, values, texts
}
