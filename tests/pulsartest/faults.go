package pulsartest

import (
	"slices"
	"sync"
)

// Forever as a count keeps a fault until ClearFaults.
const Forever = -1

// sendFault is what happens to one SEND.
type sendFault int

const (
	faultNone        sendFault = iota
	faultError                 // answer SEND_ERROR, do not store
	faultDropBefore            // drop the connection, do not store
	faultDropAfter             // store, then drop the connection without a receipt
	faultSwallow               // store, no receipt, the connection stays
	faultCorruptSums           // treat the checksum as wrong
)

// planned is a fault with what is left of its count.
type planned struct {
	left int // Forever, or SENDs (or PRODUCERs, lookups) to come
	kind sendFault
	code ServerError
	text string
}

// plan holds faults by topic, each list in the order in which it was set. The key is a full name, a base name, or "".
type plan map[string][]*planned

func (p plan) add(key string, f planned) {
	if f.left != 0 {
		p[key] = append(p[key], &f)
	}
}

// take consumes one count of the fault that is due for a topic: the partition's own plan goes before its topic's, and that
// before the one for every topic.
func (p plan) take(name topicName) (planned, bool) {
	for _, key := range [...]string{name.String(), name.base, ""} {
		list := p[key]
		if len(list) == 0 {
			continue
		}
		f := list[0]
		if f.left > 0 {
			f.left--
			if f.left == 0 {
				p[key] = list[1:]
			}
		}
		return *f, true
	}
	return planned{}, false
}

// gate holds answers back by topic. All that is held lies in one list, so that what is released stays in order whichever
// of several overlapping holds ends first.
type gate struct {
	closed  map[string]int // holds by topic key
	waiting []heldAnswer
}

type heldAnswer struct {
	name topicName
	send func()
}

func newGate() *gate { return &gate{closed: map[string]int{}} }

func (g *gate) isClosed(name topicName) bool {
	return g.closed[name.String()] > 0 || g.closed[name.base] > 0 || g.closed[""] > 0
}

// hold keeps an answer if the topic's gate is closed and reports whether it did.
func (g *gate) hold(name topicName, send func()) bool {
	if len(g.closed) == 0 || !g.isClosed(name) {
		return false
	}
	g.waiting = append(g.waiting, heldAnswer{name, send})
	return true
}

// open ends one hold and sends what nothing else holds.
func (g *gate) open(key string) {
	if g.closed[key]--; g.closed[key] == 0 {
		delete(g.closed, key)
	}
	g.waiting = slices.DeleteFunc(g.waiting, func(h heldAnswer) bool {
		if g.isClosed(h.name) {
			return false
		}
		h.send()
		return true
	})
}

// FailSends answers the next n SENDs of a topic with a server error and does not store them. A SEND is one frame: a whole
// batch. For codes that stand for a broken topic (all but ChecksumError and NotAllowedError) the producer is closed at the
// broker, as the real one does, so that frames which the client has already sent behind it are not stored either.
func (b *Broker) FailSends(topic string, n int, code ServerError, text string) {
	b.planSends(topic, planned{left: n, kind: faultError, code: code, text: text})
}

// PassSends lets the next n SENDs of a topic through, so that the faults set after it strike later ones.
func (b *Broker) PassSends(topic string, n int) {
	b.planSends(topic, planned{left: n, kind: faultNone})
}

// SwallowReceipts stores the next n SENDs of a topic but never confirms them; the connection stays.
func (b *Broker) SwallowReceipts(topic string, n int) {
	b.planSends(topic, planned{left: n, kind: faultSwallow})
}

// DropBeforeStore drops the connection when each of the next n SENDs of a topic arrives, and does not store it.
func (b *Broker) DropBeforeStore(topic string, n int) {
	b.planSends(topic, planned{left: n, kind: faultDropBefore})
}

// DropAfterStore stores each of the next n SENDs of a topic, then drops the connection without confirming it: the client
// sends it again, and it is stored twice unless de-duplication is on.
func (b *Broker) DropAfterStore(topic string, n int) {
	b.planSends(topic, planned{left: n, kind: faultDropAfter})
}

// CorruptSends takes the checksum of the next n SENDs of a topic for wrong, as if a bit had flipped on the way.
func (b *Broker) CorruptSends(topic string, n int) {
	b.planSends(topic, planned{left: n, kind: faultCorruptSums})
}

// RefuseProducers answers the next n PRODUCER commands of a topic with a server error: ProducerBusy,
// ProducerBlockedQuotaExceededException, AuthorizationError, whatever a test is about.
func (b *Broker) RefuseProducers(topic string, n int, code ServerError, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.producerPlan.add(faultKey(topic), planned{left: n, code: code, text: text})
}

// RefuseReaders answers the next n SUBSCRIBE commands of a topic with a server error.
func (b *Broker) RefuseReaders(topic string, n int, code ServerError, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.readerPlan.add(faultKey(topic), planned{left: n, code: code, text: text})
}

// KeepProducers confirms the next n CLOSE_PRODUCER commands of a topic without closing anything, so that the producer holds its
// name until its connection ends. So it is with a real broker when the client gives a producer up that it is just connecting.
func (b *Broker) KeepProducers(topic string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.closePlan.add(faultKey(topic), planned{left: n})
}

// FailLookups answers the next n lookups and partition queries of a topic with a server error. ServiceNotReady makes the Go
// client close the connection.
func (b *Broker) FailLookups(topic string, n int, code ServerError, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.lookupPlan.add(faultKey(topic), planned{left: n, code: code, text: text})
}

// HangLookups leaves lookups and partition queries of a topic unanswered until the returned function is called, which
// answers those that wait.
func (b *Broker) HangLookups(topic string) (release func()) {
	return b.closeGate(b.lookupGate, topic)
}

// StallReceipts goes on storing a topic's messages but holds the answers back, in order, until the returned function is
// called. A producer's CLOSE waits behind its receipts, as at the real broker.
func (b *Broker) StallReceipts(topic string) (release func()) {
	return b.closeGate(b.receiptGate, topic)
}

// SlowReads makes the broker read at most this many bytes a second from each connection, so that clients feel it
// through TCP (behind what the kernel buffers, which is megabytes on a loopback). 0 reads as fast as possible.
func (b *Broker) SlowReads(bytesPerSecond int) { b.readRate.Store(int64(bytesPerSecond)) }

// ClearFaults forgets every fault that was set by count, of all topics. What is stalled or hangs stays so.
func (b *Broker) ClearFaults() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.mu.sendPlan)
	clear(b.mu.producerPlan)
	clear(b.mu.readerPlan)
	clear(b.mu.closePlan)
	clear(b.mu.lookupPlan)
	clear(b.mu.deliveryPlan)
}

func (b *Broker) planSends(topic string, f planned) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.sendPlan.add(faultKey(topic), f)
}

func (b *Broker) closeGate(g *gate, topic string) (release func()) {
	key := faultKey(topic)
	b.mu.Lock()
	defer b.mu.Unlock()
	g.closed[key]++
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		g.open(key)
	})
}

// faultKey is the key of a plan for a topic as the caller wrote it.
func faultKey(topic string) string {
	if topic == "" {
		return ""
	}
	return mustParse(topic).String()
}
