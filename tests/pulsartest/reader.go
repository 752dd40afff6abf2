package pulsartest

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// reader is a subscription of a client's reader: it keeps no place at the broker, which hands out everything from the place
// that the client names, as far as the client permits. Guarded by the broker's lock.
type reader struct {
	id      uint64
	conn    *connection
	log     *partitionLog
	topic   *topic
	next    int // of log.frames
	permits int // messages
}

// storedFrame is a SEND as it was stored. One without a body is a marker.
type storedFrame struct {
	ledger, entry int64
	messages      int
	body          []byte // metadata and payload
}

// DropDelivery drops the connection of a reader of the topic instead of delivering the next n entries to it.
func (b *Broker) DropDelivery(topic string, n int) {
	b.planDeliveries(topic, planned{left: n, kind: faultDropBefore})
}

// PassDeliveries delivers the next n entries of a topic before the faults set after it strike. What is delivered again
// counts again.
func (b *Broker) PassDeliveries(topic string, n int) {
	b.planDeliveries(topic, planned{left: n, kind: faultNone})
}

func (b *Broker) planDeliveries(topic string, f planned) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.deliveryPlan.add(faultKey(topic), f)
}

// StallDeliveries delivers nothing of a topic to its readers until the returned function is called.
func (b *Broker) StallDeliveries(topic string) (release func()) {
	return b.closeGate(b.deliveryGate, topic)
}

// AppendMarker stores an entry in a topic, or a partition of it, that is the last one for those who ask and that no reader is
// ever given, as the marks of replicated subscriptions and of aborted transactions are at older brokers.
func (b *Broker) AppendMarker(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	parsed := mustParse(name)
	t := b.mu.topics[parsed.base]
	if t == nil {
		panic("pulsartest: a marker for " + name + ", which does not exist")
	}
	log := b.partitionLog(t, parsed)
	log.frames = append(log.frames, storedFrame{ledger: log.ledger, entry: log.nextEntry})
	log.nextEntry++
}

// RollLedgers begins a new ledger in a topic, or a partition of it: as a broker does from time to time, and when it takes a
// topic over. The numbers in between are of other topics' ledgers.
func (b *Broker) RollLedgers(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.eachLog(parseOrAll(name), func(log *partitionLog) {
		log.ledger += 5
		log.nextEntry = 0
	})
}

// DeleteLedgers deletes all ledgers of a topic, or a partition of it, but the last one, as a broker does when consumers have
// acknowledged what is in them. Messages still returns what was there.
func (b *Broker) DeleteLedgers(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.eachLog(parseOrAll(name), func(log *partitionLog) {
		k := len(log.frames)
		for k > 0 && log.frames[k-1].ledger == log.ledger {
			k--
		}
		log.frames = slices.Delete(log.frames, 0, k)
		for _, r := range log.readers {
			r.next = max(0, r.next-k)
		}
	})
}

// Readers is the number of readers that are connected to a topic, or to one partition of it, or ("") to any.
func (b *Broker) Readers(name string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.eachLog(parseOrAll(name), func(log *partitionLog) { n += len(log.readers) })
	return n
}

func (c *connection) subscribe(cmd *command) {
	b := c.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.forgotten(c) {
		return
	}
	name, err := parseTopic(cmd.topic)
	if err != nil {
		c.out.send(errorFrame(cmd.requestID, InvalidTopicName, err.Error()))
		return
	}
	t := b.mu.topics[name.base]
	switch {
	case cmd.durable || cmd.start == nil:
		c.out.send(errorFrame(cmd.requestID, NotAllowedError, "pulsartest has readers, but no consumers that keep their place"))
		return
	case b.settings.sink != nil:
		c.out.send(errorFrame(cmd.requestID, NotAllowedError, "pulsartest keeps no messages here: there is a sink"))
		return
	case t == nil || name.partition >= 0 && name.partition >= t.partitions || name.partition < 0 && t.partitions > 0:
		c.out.send(errorFrame(cmd.requestID, TopicNotFound, "Topic "+name.String()+" not found"))
		return
	}
	if f, ok := b.mu.readerPlan.take(name); ok {
		c.out.send(errorFrame(cmd.requestID, f.code, f.text))
		return
	}
	r := &reader{id: cmd.consumerID, conn: c, log: b.partitionLog(t, name), topic: t}
	// The entry that is named is delivered, too: of a batch, the client may have got a part. It leaves out what it has.
	r.next, _ = slices.BinarySearchFunc(r.log.frames, *cmd.start, func(f storedFrame, start place) int {
		if f.ledger < start.ledger || f.ledger == start.ledger && f.entry < start.entry {
			return -1
		}
		return 1
	})
	c.readers[r.id] = r
	r.log.readers = append(r.log.readers, r)
	r.log.counters.Readers++
	c.out.send(successFrame(cmd.requestID))
	b.notify()
}

func (c *connection) flow(cmd *command) {
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	if r := c.readers[cmd.consumerID]; r != nil {
		r.permits += cmd.permits
		r.deliver()
	}
}

func (c *connection) closeReader(cmd *command) {
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	if r := c.readers[cmd.consumerID]; r != nil {
		c.broker.removeReader(r)
	}
	c.out.send(successFrame(cmd.requestID))
}

// lastMessage answers with the last entry of the reader's topic, -1:-1 if there is none.
func (c *connection) lastMessage(cmd *command) {
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	r := c.readers[cmd.consumerID]
	if r == nil {
		c.out.send(errorFrame(cmd.requestID, MetadataError, "Consumer not found"))
		return
	}
	last := place{-1, -1}
	if n := len(r.log.frames); n > 0 {
		last = place{r.log.frames[n-1].ledger, r.log.frames[n-1].entry}
	}
	c.out.send(frame(cmdGetLastMessageIDResponse, message{}.bytes(1, last.message(r.log.name.partition)).uint(2, cmd.requestID)))
}

// deliver sends what the reader may get; called with the broker's lock held.
func (r *reader) deliver() {
	b := r.conn.broker
	for r.permits > 0 && r.next < len(r.log.frames) && !b.forgotten(r.conn) {
		if b.deliveryGate.hold(r.log.name, r.deliver) {
			return
		}
		f := &r.log.frames[r.next]
		if f.body == nil {
			r.next++
			continue
		}
		if fault, _ := b.mu.deliveryPlan.take(r.log.name); fault.kind != faultNone {
			b.forget(r.conn)
			return
		}
		r.log.counters.Deliveries++
		r.conn.out.send(deliveryFrame(r.id, r.log.name.partition, f))
		r.permits -= f.messages
		r.next++
	}
}

// removeReader forgets a reader; called with the broker's lock held.
func (b *Broker) removeReader(r *reader) {
	r.permits = 0 // what is still held back for it is not delivered
	r.log.readers = slices.DeleteFunc(r.log.readers, func(other *reader) bool { return other == r })
	delete(r.conn.readers, r.id)
	b.notify()
}

// disconnectReaders closes all readers of a log and tells their clients; called with the broker's lock held.
func (b *Broker) disconnectReaders(log *partitionLog) {
	for _, r := range slices.Clone(log.readers) {
		b.removeReader(r)
		r.conn.out.sendOrdered(frame(cmdCloseConsumer, message{}.uint(1, r.id).int(2, -1)))
	}
}

// place is a place in a partition. Both numbers are -1 for its beginning.
type place struct{ ledger, entry int64 }

func (p place) message(partition int) message {
	return message{}.int(1, p.ledger).int(2, p.entry).int(3, int64(int32(partition)))
}

// decodePlace reads a MessageIdData.
func decodePlace(b []byte) (*place, error) {
	p := &place{-1, -1}
	r := fieldReader{rest: b}
	for r.next() {
		switch r.number {
		case 1:
			p.ledger = int64(r.uint())
		case 2:
			p.entry = int64(r.uint())
		}
	}
	if r.err != nil {
		return nil, fmt.Errorf("reading a message id: %w", r.err)
	}
	return p, nil
}

// deliveryFrame is the whole frame of a MESSAGE.
func deliveryFrame(readerID uint64, partition int, f *storedFrame) []byte {
	body := message{}.uint(1, readerID).bytes(2, place{f.ledger, f.entry}.message(partition)).uint(3, 0)
	command := message{}.uint(1, uint64(cmdMessage)).bytes(protowire.Number(cmdMessage), body)
	out := make([]byte, 0, 14+len(command)+len(f.body))
	out = binary.BigEndian.AppendUint32(out, uint32(min(4+len(command)+6+len(f.body), math.MaxUint32)))
	out = binary.BigEndian.AppendUint32(out, uint32(len(command)))
	out = append(out, command...)
	out = binary.BigEndian.AppendUint16(out, magicChecksum)
	out = binary.BigEndian.AppendUint32(out, crc32.Checksum(f.body, castagnoli))
	return append(out, f.body...)
}
