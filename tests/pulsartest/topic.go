package pulsartest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Counters counts since the broker was made. A SEND that is sent again counts again.
type Counters struct {
	Frames      int // SENDs received
	Stored      int // SENDs stored
	Batches     int // SENDs stored that hold a batch, even one of a single message
	Messages    int // messages stored; a chunked one counts once
	Bytes       int // payload bytes stored, decompressed
	Receipts    int // SENDs confirmed, duplicates included
	SendErrors  int // SENDs answered with an error
	Duplicates  int // SENDs recognised by de-duplication
	BadChecksum int // SENDs refused for their checksum
	Ignored     int // SENDs of a producer that was already closed at the broker
	Readers     int // made
	Deliveries  int // entries sent to readers
}

func (c *Counters) add(d Counters) {
	c.Frames += d.Frames
	c.Stored += d.Stored
	c.Batches += d.Batches
	c.Messages += d.Messages
	c.Bytes += d.Bytes
	c.Receipts += d.Receipts
	c.SendErrors += d.SendErrors
	c.Duplicates += d.Duplicates
	c.BadChecksum += d.BadChecksum
	c.Ignored += d.Ignored
	c.Readers += d.Readers
	c.Deliveries += d.Deliveries
}

// topic is a topic and its partitions; guarded by the broker's lock.
type topic struct {
	base       string
	partitions int // 0: not partitioned
	terminated bool
	messages   []Message // in the order of storing, over all partitions
	entries    []Entry
	logs       map[int]*partitionLog // by partition, -1 for a topic without
}

// partitionLog is one unit of order: a topic without partitions, or one partition.
type partitionLog struct {
	name       topicName
	terminated bool
	ledger     int64
	nextEntry  int64
	counters   Counters
	producers  map[string]*producer
	// lastSequence is the highest sequence id stored by producer name, for de-duplication.
	lastSequence map[string]int64
	chunks       map[string][]byte // unfinished chunked messages by uuid
	frames       []storedFrame     // for readers, in their order
	readers      []*reader
}

// producer is a producer as the broker sees it; guarded by the broker's lock.
type producer struct {
	id               uint64
	name             string
	userProvidedName bool
	epoch            uint64
	properties       map[string]string
	conn             *connection
	log              *partitionLog
	topic            *topic
	closed           bool
}

// ProducerInfo is a producer that is connected now.
type ProducerInfo struct {
	Topic     string
	Partition int
	Name      string
	// NameAssigned says that the broker made the name.
	NameAssigned bool
	ID           uint64
	Epoch        uint64
	Properties   map[string]string
	RemoteAddr   string
}

var (
	// ErrTopicExists is returned when a topic to be created is there already.
	ErrTopicExists = errors.New("topic exists")
	// ErrTopicMissing is returned when a topic is named that does not exist.
	ErrTopicMissing = errors.New("no such topic")
)

// CreateTopic creates a topic without partitions.
func (b *Broker) CreateTopic(name string) error { return b.create(name, 0) }

// CreatePartitionedTopic creates a topic with n partitions, n ≥ 1.
func (b *Broker) CreatePartitionedTopic(name string, n int) error {
	if n < 1 {
		return fmt.Errorf("creating topic %s: %d partitions; at least 1 is needed", name, n)
	}
	return b.create(name, n)
}

func (b *Broker) create(name string, partitions int) error {
	t, err := parseTopic(name)
	if err != nil {
		return fmt.Errorf("creating topic: %w", err)
	}
	if t.partition >= 0 {
		return fmt.Errorf("creating topic %s: name the topic, not a partition of it", name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.topics[t.base] != nil {
		return fmt.Errorf("creating %s: %w", t, ErrTopicExists)
	}
	b.addTopic(t.base, partitions)
	return nil
}

// GrowPartitions raises the number of partitions of a partitioned topic to n. Clients notice by asking again.
func (b *Broker) GrowPartitions(name string, n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.mu.topics[mustParse(name).base]
	switch {
	case t == nil:
		return fmt.Errorf("growing %s: %w", name, ErrTopicMissing)
	case t.partitions == 0:
		return fmt.Errorf("growing %s: it is not a partitioned topic", name)
	case n <= t.partitions:
		return fmt.Errorf("growing %s: it has %d partitions, %d are not more", name, t.partitions, n)
	}
	t.partitions = n
	return nil
}

// DeleteTopic removes a topic with everything stored in it and disconnects its producers, which make it again when they
// reconnect unless the broker has NoAutoCreation.
func (b *Broker) DeleteTopic(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	base := mustParse(name).base
	t := b.mu.topics[base]
	if t == nil {
		return fmt.Errorf("deleting %s: %w", name, ErrTopicMissing)
	}
	for _, log := range t.logs {
		b.disconnectProducers(log)
		b.disconnectReaders(log)
	}
	delete(b.mu.topics, base)
	b.notify()
	return nil
}

// TerminateTopic ends a topic, or one partition of it, for good: its producers are disconnected, and every attempt to
// produce to it is refused with TopicTerminatedError. What it holds stays readable.
func (b *Broker) TerminateTopic(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	parsed := mustParse(name)
	t := b.mu.topics[parsed.base]
	if t == nil {
		return fmt.Errorf("terminating %s: %w", name, ErrTopicMissing)
	}
	if parsed.partition < 0 {
		t.terminated = true
	} else {
		b.partitionLog(t, parsed).terminated = true
	}
	b.eachLog(parsed, b.disconnectProducers)
	return nil
}

// CloseProducers closes the producers of a topic from the broker's side, and its readers, as an unload does: the client is
// told by CLOSE_PRODUCER and comes back on the same connection. It returns how many producers there were.
func (b *Broker) CloseProducers(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	b.eachLog(parseOrAll(name), func(log *partitionLog) {
		n += len(log.producers)
		b.disconnectProducers(log)
		b.disconnectReaders(log)
		b.newLedger(log)
	})
	return n
}

// Topics lists the full names of all topics, sorted; a partitioned topic once.
func (b *Broker) Topics() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.mu.topics))
}

// Partitions is the number of partitions of a topic; 0 if it has none, or does not exist.
func (b *Broker) Partitions(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.mu.topics[mustParse(name).base]; t != nil {
		return t.partitions
	}
	return 0
}

// Messages returns what a topic holds, or one partition of it, in the order in which it was stored. The messages are shared:
// they must not be changed.
func (b *Broker) Messages(name string) []Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.messages(mustParse(name))
}

func (b *Broker) messages(name topicName) []Message {
	t := b.mu.topics[name.base]
	if t == nil {
		return nil
	}
	if name.partition < 0 {
		return slices.Clone(t.messages)
	}
	var out []Message
	for _, m := range t.messages {
		if m.Partition == name.partition {
			out = append(out, m)
		}
	}
	return out
}

// Entries returns the SENDs that a topic holds, or one partition of it, in the order in which they were stored.
func (b *Broker) Entries(name string) []Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	parsed := mustParse(name)
	t := b.mu.topics[parsed.base]
	if t == nil {
		return nil
	}
	var out []Entry
	for _, e := range t.entries {
		if parsed.partition < 0 || e.Partition == parsed.partition {
			out = append(out, e)
		}
	}
	return out
}

// Producers lists the producers that are connected to a topic, or to one partition of it, or ("") to any, by topic,
// partition and name.
func (b *Broker) Producers(name string) []ProducerInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []ProducerInfo
	b.eachLog(parseOrAll(name), func(log *partitionLog) {
		for _, key := range slices.Sorted(maps.Keys(log.producers)) {
			p := log.producers[key]
			out = append(out, ProducerInfo{
				Topic: log.name.base, Partition: log.name.partition,
				Name: p.name, NameAssigned: !p.userProvidedName, ID: p.id, Epoch: p.epoch,
				Properties: p.properties, RemoteAddr: p.conn.conn.RemoteAddr().String(),
			})
		}
	})
	return out
}

// Counters sums up a topic, or one partition of it, or ("") all of them.
func (b *Broker) Counters(name string) Counters {
	b.mu.Lock()
	defer b.mu.Unlock()
	var sum Counters
	b.eachLog(parseOrAll(name), func(log *partitionLog) { sum.add(log.counters) })
	return sum
}

// LastSequenceID is the highest sequence id that a producer name has stored in a topic or a partition, -1 if none.
func (b *Broker) LastSequenceID(name, producer string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := int64(-1)
	b.eachLog(mustParse(name), func(log *partitionLog) {
		if id, ok := log.lastSequence[producer]; ok {
			last = max(last, id)
		}
	})
	return last
}

// The functions below are called with the broker's lock held.

func (b *Broker) addTopic(base string, partitions int) *topic {
	t := &topic{base: base, partitions: partitions, logs: map[int]*partitionLog{}}
	b.mu.topics[base] = t
	return t
}

// partitionLog returns the log of a topic or of one of its partitions, made at its first use.
func (b *Broker) partitionLog(t *topic, name topicName) *partitionLog {
	log := t.logs[name.partition]
	if log == nil {
		log = &partitionLog{
			name:         name,
			producers:    map[string]*producer{},
			lastSequence: map[string]int64{},
			chunks:       map[string][]byte{},
		}
		b.newLedger(log)
		t.logs[name.partition] = log
	}
	return log
}

// newLedger makes the ids of the entries to come differ from all before, as an unload or a restart does.
func (b *Broker) newLedger(log *partitionLog) {
	b.mu.lastLedger++
	log.ledger, log.nextEntry = b.mu.lastLedger, 0
}

// eachLog visits the logs of a topic (an empty base: of all topics), or the one of a partition, in the order of their names.
func (b *Broker) eachLog(name topicName, visit func(*partitionLog)) {
	for _, base := range slices.Sorted(maps.Keys(b.mu.topics)) {
		if name.base != "" && name.base != base {
			continue
		}
		t := b.mu.topics[base]
		for _, partition := range slices.Sorted(maps.Keys(t.logs)) {
			if name.partition < 0 || name.partition == partition {
				visit(t.logs[partition])
			}
		}
	}
}

// disconnectProducers closes all producers of a log and tells their clients.
func (b *Broker) disconnectProducers(log *partitionLog) {
	for _, p := range log.producers {
		b.expelProducer(p)
		p.conn.out.sendOrdered(closeProducerFrame(p.id))
	}
}

// expelProducer closes a producer from the broker's side: SENDs of it that are on their way are ignored. Those of a producer
// that the client closed itself, or never had, cost it the connection.
func (b *Broker) expelProducer(p *producer) {
	p.conn.former[p.id] = p.log
	b.removeProducer(p)
}

// removeProducer forgets a producer.
func (b *Broker) removeProducer(p *producer) {
	if p.closed {
		return
	}
	p.closed = true
	if p.log.producers[p.name] == p {
		delete(p.log.producers, p.name)
	}
	if p.conn.producers[p.id] == p {
		delete(p.conn.producers, p.id)
	}
	b.notify()
}

// mustParse is for names that the test wrote: a wrong one is a mistake in the test.
func mustParse(name string) topicName {
	t, err := parseTopic(name)
	if err != nil {
		panic("pulsartest: " + err.Error())
	}
	return t
}

// parseOrAll takes "" for all topics.
func parseOrAll(name string) topicName {
	if name == "" {
		return topicName{partition: -1}
	}
	return mustParse(name)
}
