package pulsartest

import (
	"errors"
	"fmt"
	"slices"
)

// send handles one SEND and reports whether the connection goes on.
func (c *connection) send(cmd *command, rest []byte) bool {
	b := c.broker
	b.mu.Lock()
	p := c.producers[cmd.producerID]
	if p == nil {
		defer b.mu.Unlock()
		if b.forgotten(c) {
			return false
		}
		log := c.former[cmd.producerID]
		if log == nil {
			b.problem(fmt.Errorf("client %s: SEND for the producer %d, %w", c.conn.RemoteAddr(), cmd.producerID, errNoProducer))
			return false
		}
		// The broker closed the producer while this was on its way. Silence makes the client send it again.
		log.counters.Frames++
		log.counters.Ignored++
		return true
	}
	p.log.counters.Frames++
	fault, _ := b.mu.sendPlan.take(p.log.name)
	b.mu.Unlock()

	body, err := verifyChecksum(rest)
	switch {
	case fault.kind == faultError:
		c.refuse(p, cmd, fault.code, fault.text)
		return true
	case fault.kind == faultDropBefore:
		return false
	case err != nil, fault.kind == faultCorruptSums:
		c.refuse(p, cmd, ChecksumError, "Checksum failed on the broker")
		return true
	}

	e := sent{cmd: cmd, size: len(body), body: body}
	e.decode(body, b.settings.sink == nil)
	ledger, entry, ok := b.store(p, &e)
	if !ok {
		return true
	}
	if b.settings.sink != nil && entry >= 0 {
		b.drain(p, &e, ledger, entry)
	}
	switch fault.kind {
	case faultDropAfter:
		return false
	case faultSwallow:
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p.log.counters.Receipts++
	highest := int64(-1) // as the broker says it when the client has named none
	if cmd.highestSequenceID != 0 {
		highest = int64(cmd.highestSequenceID)
	}
	c.answer(p.log, receiptFrame(cmd.producerID, cmd.sequenceID, highest, ledger, entry))
	return true
}

// refuse answers SEND_ERROR, and closes the producer if the code stands for a broken topic.
func (c *connection) refuse(p *producer, cmd *command, code ServerError, text string) {
	b := c.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	p.log.counters.SendErrors++
	if code == ChecksumError {
		p.log.counters.BadChecksum++
	}
	c.answer(p.log, sendErrorFrame(cmd.producerID, max(cmd.sequenceID, cmd.highestSequenceID), code, text))
	if code.closesProducer() {
		b.expelProducer(p)
	}
	b.notify()
}

// sent is a SEND on its way into a topic.
type sent struct {
	cmd      *command
	size     int
	body     []byte // as it came: metadata and payload
	meta     metadata
	payload  []byte // decompressed; of a chunk: as it came
	messages []Message
	err      error
}

// decode reads the entry, and its messages if they are to be kept. An error is kept for store: the broker does not look
// into what it stores, so the SEND is confirmed all the same; only no consumer could read it.
func (e *sent) decode(body []byte, keep bool) {
	if e.meta, e.payload, e.err = decodeMetadata(body); e.err != nil || e.meta.chunks > 1 {
		return
	}
	if e.payload, e.err = decompress(e.meta.compression, e.payload, e.meta.uncompressedSize); e.err != nil {
		return
	}
	if keep {
		e.messages = make([]Message, 0, min(max(e.meta.numMessages, 1), 1<<16))
		e.err = decodeMessages(&e.meta, e.payload, func(v *View) { e.messages = append(e.messages, v.message()) })
	}
	if e.err == nil && e.cmd.numMessages != e.meta.numMessages {
		e.err = fmt.Errorf("SEND names %d messages, its metadata %d", e.cmd.numMessages, e.meta.numMessages)
	}
}

var errChunk = errors.New("chunk out of order")

// store puts a SEND into the producer's topic. entry is -1 if it is a duplicate. It reports false if the producer was
// closed meanwhile, so that nothing was stored and nothing is to be answered.
func (b *Broker) store(p *producer, e *sent) (ledger, entry int64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.notify()
	log, t := p.log, p.topic
	if p.closed {
		log.counters.Ignored++
		return 0, 0, false
	}
	sequence := int64(e.cmd.sequenceID)
	last, known := log.lastSequence[p.name]
	if b.settings.deduplication && known && sequence <= last {
		log.counters.Duplicates++
		return -1, -1, true
	}
	ledger, entry = log.ledger, log.nextEntry
	log.nextEntry++
	if e.meta.chunks > 1 {
		b.chunk(log, e)
	}
	// All chunks of a message carry its sequence id: only the last may count, or the others would be duplicates.
	if e.meta.chunks <= 1 || e.meta.chunkID == e.meta.chunks-1 {
		if highest := max(sequence, int64(e.cmd.highestSequenceID)); !known || highest > last {
			log.lastSequence[p.name] = highest
		}
	}
	if e.err != nil {
		b.problem(fmt.Errorf("producer %q of %s, sequence id %d: %w", p.name, log.name, sequence, e.err))
		e.messages = nil
	}
	log.counters.Stored++
	if e.meta.batched {
		log.counters.Batches++
	}
	if b.settings.sink != nil {
		return ledger, entry, true
	}
	log.frames = append(log.frames, storedFrame{ledger: ledger, entry: entry, messages: max(1, e.meta.numMessages), body: e.body})
	for _, r := range slices.Clone(log.readers) {
		r.deliver()
	}
	t.entries = append(t.entries, Entry{
		Topic: log.name.base, Partition: log.name.partition, LedgerID: ledger, EntryID: entry,
		ProducerName: p.name, SequenceID: e.cmd.sequenceID,
		Messages: e.meta.numMessages, Batched: e.meta.batched, Compression: e.meta.compression,
		Size: e.size, UncompressedSize: int(e.meta.uncompressedSize),
		Chunks: e.meta.chunks, ChunkID: e.meta.chunkID,
	})
	for _, m := range e.messages {
		m.Topic, m.Partition, m.LedgerID, m.EntryID = log.name.base, log.name.partition, ledger, entry
		log.counters.Bytes += len(m.Payload)
		t.messages = append(t.messages, m)
	}
	log.counters.Messages += len(e.messages)
	return ledger, entry, true
}

// chunk collects the chunks of a message; at the last, the whole message is in e. Called with the lock held.
func (b *Broker) chunk(log *partitionLog, e *sent) {
	id := string(e.meta.uuid)
	if e.meta.chunkID == 0 {
		log.chunks[id] = nil // a re-sent first chunk starts anew
	} else if _, ok := log.chunks[id]; !ok {
		e.err = fmt.Errorf("%w: %d of %d of %q", errChunk, e.meta.chunkID, e.meta.chunks, id)
		return
	}
	log.chunks[id] = append(log.chunks[id], e.payload...)
	if e.meta.chunkID < e.meta.chunks-1 {
		return
	}
	whole := log.chunks[id]
	delete(log.chunks, id)
	if e.payload, e.err = decompress(e.meta.compression, whole, e.meta.uncompressedSize); e.err != nil {
		return
	}
	if b.settings.sink == nil {
		e.err = decodeMessages(&e.meta, e.payload, func(v *View) { e.messages = append(e.messages, v.message()) })
	}
}

// drain hands the messages of a SEND to the sink, outside the lock.
func (b *Broker) drain(p *producer, e *sent, ledger, entry int64) {
	if e.err != nil || e.meta.chunks > 1 && e.meta.chunkID < e.meta.chunks-1 {
		return
	}
	n, bytes := 0, 0
	err := decodeMessages(&e.meta, e.payload, func(v *View) {
		v.Topic, v.Partition, v.LedgerID, v.EntryID = p.log.name.base, p.log.name.partition, ledger, entry
		n++
		bytes += len(v.Payload)
		b.settings.sink(v)
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	p.log.counters.Messages += n
	p.log.counters.Bytes += bytes
	if err != nil {
		b.problem(fmt.Errorf("producer %q of %s, sequence id %d: %w", p.name, p.log.name, e.cmd.sequenceID, err))
	}
}
