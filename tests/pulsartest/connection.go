package pulsartest

import (
	"bufio"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// schemaVersion is the version of every schema: they are accepted and forgotten.
var schemaVersion = make([]byte, 8)

// connection is one client connection: its reader goroutine decodes and answers, its outbox writes.
type connection struct {
	broker *Broker
	conn   net.Conn
	out    *outbox
	gone   chan struct{} // closed when the broker has forgotten the connection

	producers map[uint64]*producer     // guarded by the broker's lock
	former    map[uint64]*partitionLog // of producers that the broker closed; guarded by the broker's lock
	readers   map[uint64]*reader       // guarded by the broker's lock

	connected bool // the reader's own
}

// run reads commands until the connection ends or is dropped. It leaves the closing to the writer, which has answers to
// write first.
func (c *connection) run() {
	b := c.broker
	defer func() {
		b.mu.Lock()
		b.forget(c)
		b.mu.Unlock()
	}()
	r := bufio.NewReaderSize(pacedReader{c}, 64<<10)
	limit := b.settings.maxMessageSize + framePadding
	var buf []byte
	for {
		frame, err := readFrame(r, buf, limit)
		if err != nil {
			if errors.Is(err, errFrameTooLong) {
				c.problem(err)
			}
			return
		}
		cmd, rest, keep, err := c.decode(frame)
		if err != nil {
			c.problem(err)
			return
		}
		if !c.handle(&cmd, rest) {
			return
		}
		if buf = frame; keep {
			buf = nil
		}
	}
}

// decode reads a frame. keep says that what it leads to may go on using the frame's memory.
func (c *connection) decode(frame []byte) (cmd command, rest []byte, keep bool, err error) {
	raw, rest, err := splitFrame(frame)
	if err != nil {
		return cmd, nil, false, err
	}
	cmd, err = decodeCommand(raw)
	if err != nil {
		return cmd, nil, false, fmt.Errorf("reading command %d: %w", cmd.kind, err)
	}
	return cmd, rest, cmd.kind == cmdSend && c.broker.settings.sink == nil, nil
}

func (c *connection) problem(err error) {
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	c.broker.problem(fmt.Errorf("client %s: %w", c.conn.RemoteAddr(), err))
}

// handle answers one command and reports whether the connection goes on.
func (c *connection) handle(cmd *command, rest []byte) bool {
	if !c.connected && cmd.kind != cmdConnect {
		c.problem(fmt.Errorf("command %d before CONNECT", cmd.kind))
		return false
	}
	switch cmd.kind {
	case cmdConnect:
		return c.connect(cmd)
	case cmdPing:
		c.out.send(frame(cmdPong, nil))
	case cmdPong:
	case cmdAuthResponse:
		return c.authenticate(cmd)
	case cmdPartitionedMetadata:
		c.lookup(cmd, c.partitions, partitionsErrorFrame)
	case cmdLookup:
		c.lookup(cmd, c.broker.place, lookupErrorFrame)
	case cmdProducer:
		c.createProducer(cmd)
	case cmdSend:
		return c.send(cmd, rest)
	case cmdCloseProducer:
		c.closeProducer(cmd)
	case cmdGetOrCreateSchema:
		c.out.send(schemaFrame(cmd.requestID, schemaVersion))
	case cmdSubscribe:
		c.subscribe(cmd)
	case cmdFlow:
		c.flow(cmd)
	case cmdGetLastMessageID:
		c.lastMessage(cmd)
	case cmdCloseConsumer:
		c.closeReader(cmd)
	case cmdAck: // a reader's place is its client's
	default:
		c.problem(fmt.Errorf("command %d, which is none of a producer or a reader", cmd.kind))
		return false
	}
	return true
}

func (c *connection) connect(cmd *command) bool {
	if !c.authenticate(cmd) {
		return false
	}
	c.connected = true
	c.out.send(connectedFrame(cmd.protocolVersion, c.broker.settings.maxMessageSize))
	return true
}

// authenticate reports whether the client has shown the token that is required; otherwise it is told.
func (c *connection) authenticate(cmd *command) bool {
	want := *c.broker.token.Load()
	if want == "" || cmd.authMethod == "token" && subtle.ConstantTimeCompare(cmd.authData, []byte(want)) == 1 {
		return true
	}
	// The broker answers no particular request here: its id is -1.
	c.out.send(errorFrame(^uint64(0), AuthenticationError, "Failed to authenticate"))
	return false
}

// lookup answers a partition query or a lookup, with the faults and the gate that both share.
func (c *connection) lookup(cmd *command, answer func(*command, topicName) []byte, refuse func(uint64, ServerError, string) []byte) {
	b := c.broker
	name, err := parseTopic(cmd.topic)
	if err != nil {
		c.out.send(refuse(cmd.requestID, InvalidTopicName, err.Error()))
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f, ok := b.mu.lookupPlan.take(name); ok {
		c.out.send(refuse(cmd.requestID, f.code, f.text))
		return
	}
	asked := *cmd // the reader goes on while the answer is held
	reply := func() { c.out.send(answer(&asked, name)) }
	if !b.lookupGate.hold(name, reply) {
		reply()
	}
}

// partitions answers how many partitions a topic has; called with the broker's lock held.
func (c *connection) partitions(cmd *command, name topicName) []byte {
	b := c.broker
	t := b.mu.topics[name.base]
	switch {
	case name.partition >= 0 && t != nil && name.partition >= t.partitions:
		return partitionsErrorFrame(cmd.requestID, TopicNotFound, "Topic not found: "+name.String())
	case name.partition >= 0 && t != nil:
		return partitionsFrame(cmd.requestID, 0)
	case t != nil:
		return partitionsFrame(cmd.requestID, t.partitions)
	case b.settings.noAutoCreation:
		return partitionsErrorFrame(cmd.requestID, TopicNotFound, "Topic not found: "+name.String())
	case b.settings.autoPartitions > 0 && name.partition < 0:
		b.addTopic(name.base, b.settings.autoPartitions)
		return partitionsFrame(cmd.requestID, b.settings.autoPartitions)
	}
	return partitionsFrame(cmd.requestID, 0)
}

// place answers where a topic is served: here.
func (b *Broker) place(cmd *command, _ topicName) []byte {
	return lookupFrame(cmd.requestID, b.URL())
}

// reloadTime is how long a producer that the broker closed waits for its next incarnation on the same connection.
//
// The real broker takes that long, or longer, to load a topic again after an unload. It matters for more than looks: the Go
// client (v0.21.0) hands SENDs and PRODUCER to its writer by different channels, so SENDs of the old incarnation may follow
// the new PRODUCER on the wire, and only the load makes the broker still ignore them. A fake that is ready at once stores
// them ahead of what the client sends again.
const reloadTime = 20 * time.Millisecond

func (c *connection) createProducer(cmd *command) {
	b := c.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.forgotten(c) {
		return // or a producer would be left that nothing removes
	}
	if c.former[cmd.producerID] == nil {
		c.openProducer(cmd)
		return
	}
	again := *cmd
	b.tasks.Go(func() {
		timer := time.NewTimer(reloadTime)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.gone:
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.forgotten(c) {
			return
		}
		if c.former[again.producerID] == nil {
			c.out.send(errorFrame(again.requestID, ServiceNotReady, "producer was closed before it was ready"))
			return
		}
		c.openProducer(&again)
	})
}

// openProducer makes a producer and answers; called with the broker's lock held.
func (c *connection) openProducer(cmd *command) {
	b := c.broker
	p, code, text := c.newProducer(cmd)
	if p == nil {
		c.out.send(errorFrame(cmd.requestID, code, text))
		return
	}
	last := int64(-1)
	if b.settings.deduplication {
		if id, ok := p.log.lastSequence[p.name]; ok {
			last = id
		}
	}
	var version []byte
	if cmd.schemaType != 0 {
		version = schemaVersion
	}
	c.out.send(producerSuccessFrame(cmd.requestID, p.name, last, version))
}

// newProducer makes a producer, or tells why not; called with the broker's lock held.
func (c *connection) newProducer(cmd *command) (p *producer, code ServerError, text string) {
	b := c.broker
	name, err := parseTopic(cmd.topic)
	if err != nil {
		return nil, InvalidTopicName, err.Error()
	}
	if p := c.producers[cmd.producerID]; p != nil && p.epoch == cmd.epoch {
		return p, 0, "" // asked again, on the same connection: the broker says yes again
	}
	if f, ok := b.mu.producerPlan.take(name); ok {
		return nil, f.code, f.text
	}
	if cmd.accessMode != 0 || cmd.transactional {
		return nil, NotAllowedError, "pulsartest knows the access mode Shared only, and no transactions"
	}
	t := b.mu.topics[name.base]
	if t == nil {
		if b.settings.noAutoCreation {
			return nil, TopicNotFound, "Topic " + name.String() + " not found"
		}
		if name.partition >= 0 {
			return nil, NotAllowedError, "partition " + name.String() + " of a topic that does not exist"
		}
		t = b.addTopic(name.base, b.settings.autoPartitions)
	}
	switch {
	case name.partition >= 0 && name.partition >= t.partitions:
		return nil, TopicNotFound, "Topic " + name.String() + " not found"
	case name.partition < 0 && t.partitions > 0:
		return nil, NotAllowedError, name.String() + " is partitioned: produce to its partitions"
	}
	log := b.partitionLog(t, name)
	if t.terminated || log.terminated {
		return nil, TopicTerminatedError, "Topic was already terminated"
	}
	producerName := cmd.producerName
	if producerName == "" {
		b.mu.lastProducer++
		producerName = fmt.Sprintf("pulsartest-0-%d", b.mu.lastProducer)
	}
	if old := log.producers[producerName]; old != nil {
		// Only a later incarnation of the very same producer may take its place.
		if old.conn != c || old.id != cmd.producerID || old.epoch >= cmd.epoch {
			return nil, ProducerBusy, fmt.Sprintf("org.apache.pulsar.broker.service.BrokerServiceException$NamingException: "+
				"Producer with name '%s' is already connected to topic '%s'", producerName, name)
		}
		b.removeProducer(old)
	}
	p = &producer{
		id: cmd.producerID, name: producerName, epoch: cmd.epoch,
		userProvidedName: cmd.userProvidedName && cmd.producerName != "",
		properties:       cmd.properties,
		conn:             c, log: log, topic: t,
	}
	log.producers[producerName] = p
	c.producers[cmd.producerID] = p
	delete(c.former, cmd.producerID)
	b.notify()
	return p, 0, ""
}

// closeProducer answers behind the receipts of the producer, which the client counts on.
func (c *connection) closeProducer(cmd *command) {
	b := c.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	done := successFrame(cmd.requestID)
	p := c.producers[cmd.producerID]
	if p == nil {
		delete(c.former, cmd.producerID)
		// It was closed before, from here: that is what the client wanted, and there is nothing left to wait for.
		c.out.send(done)
		return
	}
	if _, kept := b.mu.closePlan.take(p.log.name); !kept {
		b.removeProducer(p)
	}
	c.answer(p.log, done)
}

// answer sends a frame in the order of receipts, or holds it back while the topic's receipts are stalled; called with
// the broker's lock held.
func (c *connection) answer(log *partitionLog, frame []byte) {
	if c.broker.receiptGate.hold(log.name, func() { c.out.sendOrdered(frame) }) {
		return
	}
	c.out.sendOrdered(frame)
}

// paceStep is how often a paced reader looks whether its rate has changed.
const paceStep = 100 * time.Millisecond

// pacedReader reads from a connection no faster than Broker.SlowReads allows.
type pacedReader struct{ c *connection }

func (r pacedReader) Read(p []byte) (int, error) {
	rate := &r.c.broker.readRate
	if now := rate.Load(); now > 0 {
		// Small reads, so that slow means a trickle and not bursts.
		p = p[:min(len(p), max(1, int(now/10)))]
	}
	n, err := r.c.conn.Read(p)
	// Paid for afterwards and by the rate of now: the read may have begun, and waited, long before SlowReads was called.
	for left := float64(n); left > 0 && rate.Load() > 0; {
		now := float64(rate.Load())
		wait := min(paceStep, time.Duration(left/now*float64(time.Second)))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-r.c.gone:
			timer.Stop()
			return n, io.ErrClosedPipe
		}
		if wait < paceStep {
			break
		}
		left -= now * paceStep.Seconds()
	}
	return n, err
}
