package pulsartest

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// commandType is BaseCommand.Type. In BaseCommand the field that holds a command has the same number as its type.
type commandType int32

const (
	cmdConnect                   commandType = 2
	cmdConnected                 commandType = 3
	cmdSubscribe                 commandType = 4
	cmdProducer                  commandType = 5
	cmdSend                      commandType = 6
	cmdSendReceipt               commandType = 7
	cmdSendError                 commandType = 8
	cmdMessage                   commandType = 9
	cmdAck                       commandType = 10
	cmdFlow                      commandType = 11
	cmdSuccess                   commandType = 13
	cmdError                     commandType = 14
	cmdCloseProducer             commandType = 15
	cmdCloseConsumer             commandType = 16
	cmdProducerSuccess           commandType = 17
	cmdPing                      commandType = 18
	cmdPong                      commandType = 19
	cmdPartitionedMetadata       commandType = 21
	cmdPartitionedMetadataResp   commandType = 22
	cmdLookup                    commandType = 23
	cmdLookupResponse            commandType = 24
	cmdGetLastMessageID          commandType = 29
	cmdGetLastMessageIDResponse  commandType = 30
	cmdAuthChallenge             commandType = 36
	cmdAuthResponse              commandType = 37
	cmdGetOrCreateSchema         commandType = 39
	cmdGetOrCreateSchemaResponse commandType = 40
)

// command is any command that a client sends; which fields count is told by kind.
type command struct {
	kind       commandType
	requestID  uint64
	producerID uint64
	topic      string

	// CONNECT and AUTH_RESPONSE
	authMethod      string
	authData        []byte
	protocolVersion int32

	// PRODUCER
	producerName     string
	epoch            uint64
	userProvidedName bool
	accessMode       int
	properties       map[string]string
	schemaType       int // 0: none, or bytes
	transactional    bool

	// SEND
	sequenceID        uint64
	numMessages       int
	highestSequenceID uint64
	isChunk           bool

	// commands of a reader
	consumerID uint64
	durable    bool
	start      *place // nil: none
	permits    int
}

// decodeCommand reads a BaseCommand. Commands it does not know come back with their kind alone.
func decodeCommand(b []byte) (command, error) {
	c := command{userProvidedName: true, numMessages: 1, durable: true}
	var body []byte
	r := fieldReader{rest: b}
	for r.next() {
		if r.number == 1 {
			c.kind = commandType(r.uint())
		} else if c.kind != 0 && int32(r.number) == int32(c.kind) {
			body = r.bytes()
		}
	}
	if r.err != nil {
		return c, r.err
	}
	if c.kind == 0 {
		return c, fmt.Errorf("%w: command without a type", errMalformed)
	}

	r = fieldReader{rest: body}
	for r.next() {
		switch c.kind {
		case cmdConnect:
			c.connectField(&r)
		case cmdAuthResponse:
			if r.number == 2 {
				c.authResponse(&r)
			}
		case cmdPartitionedMetadata, cmdLookup:
			switch r.number {
			case 1:
				c.topic = string(r.bytes())
			case 2:
				c.requestID = r.uint()
			}
		case cmdSubscribe:
			c.subscribeField(&r)
		case cmdFlow, cmdCloseConsumer, cmdGetLastMessageID:
			switch r.number {
			case 1:
				c.consumerID = r.uint()
			case 2:
				// The second field of FLOW is its permits.
				c.requestID, c.permits = r.uint(), int(uint32(r.uint()))
			}
		case cmdProducer:
			c.producerField(&r)
		case cmdSend:
			c.sendField(&r)
		case cmdCloseProducer:
			switch r.number {
			case 1:
				c.producerID = r.uint()
			case 2:
				c.requestID = r.uint()
			}
		case cmdGetOrCreateSchema:
			switch r.number {
			case 1:
				c.requestID = r.uint()
			case 2:
				c.topic = string(r.bytes())
			}
		}
	}
	return c, r.err
}

func (c *command) connectField(r *fieldReader) {
	switch r.number {
	case 3:
		c.authData = r.bytes()
	case 4:
		c.protocolVersion = int32(r.uint())
	case 5:
		c.authMethod = string(r.bytes())
	}
}

// authResponse reads the AuthData of an AUTH_RESPONSE.
func (c *command) authResponse(outer *fieldReader) {
	r := fieldReader{rest: outer.bytes()}
	for r.next() {
		switch r.number {
		case 1:
			c.authMethod = string(r.bytes())
		case 2:
			c.authData = r.bytes()
		}
	}
	if r.err != nil {
		outer.err = r.err
	}
}

func (c *command) producerField(r *fieldReader) {
	switch r.number {
	case 1:
		c.topic = string(r.bytes())
	case 2:
		c.producerID = r.uint()
	case 3:
		c.requestID = r.uint()
	case 4:
		c.producerName = string(r.bytes())
	case 6:
		key, value, err := keyValue(r.bytes())
		if err != nil {
			r.err = err
			return
		}
		if c.properties == nil {
			c.properties = map[string]string{}
		}
		c.properties[string(key)] = string(value)
	case 7:
		schema := fieldReader{rest: r.bytes()}
		for schema.next() {
			if schema.number == 4 {
				c.schemaType = int(schema.uint())
			}
		}
		if schema.err != nil {
			r.err = schema.err
		}
	case 8:
		c.epoch = r.uint()
	case 9:
		c.userProvidedName = r.uint() != 0
	case 10:
		c.accessMode = int(r.uint())
	case 12:
		c.transactional = r.uint() != 0
	}
}

func (c *command) subscribeField(r *fieldReader) {
	switch r.number {
	case 1:
		c.topic = string(r.bytes())
	case 4:
		c.consumerID = r.uint()
	case 5:
		c.requestID = r.uint()
	case 8:
		c.durable = r.uint() != 0
	case 9:
		start, err := decodePlace(r.bytes())
		if err != nil {
			r.err = err
			return
		}
		c.start = start
	}
}

func (c *command) sendField(r *fieldReader) {
	switch r.number {
	case 1:
		c.producerID = r.uint()
	case 2:
		c.sequenceID = r.uint()
	case 3:
		c.numMessages = int(int32(r.uint()))
	case 6:
		c.highestSequenceID = r.uint()
	case 7:
		c.isChunk = r.uint() != 0
	}
}

// message builds the body of an answer field by field.
type message []byte

func (m message) uint(number protowire.Number, v uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, number, protowire.VarintType), v)
}

func (m message) int(number protowire.Number, v int64) message { return m.uint(number, uint64(v)) }

func (m message) bool(number protowire.Number, v bool) message {
	return m.uint(number, protowire.EncodeBool(v))
}

func (m message) string(number protowire.Number, v string) message {
	return protowire.AppendString(protowire.AppendTag(m, number, protowire.BytesType), v)
}

func (m message) bytes(number protowire.Number, v []byte) message {
	return protowire.AppendBytes(protowire.AppendTag(m, number, protowire.BytesType), v)
}

// frame is the whole frame of a command without payload, ready to be written.
func frame(kind commandType, body message) []byte {
	number := protowire.Number(kind)
	size := protowire.SizeTag(1) + protowire.SizeVarint(uint64(kind)) + protowire.SizeTag(number) + protowire.SizeBytes(len(body))
	b := make([]byte, 0, 8+size)
	b = binary.BigEndian.AppendUint32(b, uint32(size+4))
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	return message(b).uint(1, uint64(kind)).bytes(number, body)
}

func connectedFrame(protocolVersion int32, maxMessageSize int) []byte {
	flags := message{}.bool(1, true).bool(2, true)
	return frame(cmdConnected, message{}.
		string(1, "Pulsar Server pulsartest").
		int(2, int64(protocolVersion)).
		uint(3, uint64(maxMessageSize)).
		bytes(4, flags))
}

func errorFrame(requestID uint64, code ServerError, text string) []byte {
	return frame(cmdError, message{}.uint(1, requestID).uint(2, uint64(code)).string(3, text))
}

func successFrame(requestID uint64) []byte {
	return frame(cmdSuccess, message{}.uint(1, requestID))
}

func partitionsFrame(requestID uint64, partitions int) []byte {
	return frame(cmdPartitionedMetadataResp, message{}.uint(1, uint64(partitions)).uint(2, requestID).uint(3, 0))
}

func partitionsErrorFrame(requestID uint64, code ServerError, text string) []byte {
	return frame(cmdPartitionedMetadataResp, message{}.uint(2, requestID).uint(3, 1).uint(4, uint64(code)).string(5, text))
}

// lookupFrame answers a lookup with "connect to this broker". Both addresses are given, so that a client finds the one of
// its own kind.
func lookupFrame(requestID uint64, url string) []byte {
	return frame(cmdLookupResponse, message{}.string(1, url).string(2, url).uint(3, 1).uint(4, requestID).bool(5, true))
}

func lookupErrorFrame(requestID uint64, code ServerError, text string) []byte {
	return frame(cmdLookupResponse, message{}.uint(3, 2).uint(4, requestID).uint(6, uint64(code)).string(7, text))
}

// producerSuccessFrame answers PRODUCER. schemaVersion is nil for a producer without a schema: a client that gets a
// version for a schema it has not named dereferences a nil pointer.
func producerSuccessFrame(requestID uint64, name string, lastSequenceID int64, schemaVersion []byte) []byte {
	m := message{}.uint(1, requestID).string(2, name).int(3, lastSequenceID)
	if schemaVersion != nil {
		m = m.bytes(4, schemaVersion)
	}
	return frame(cmdProducerSuccess, m.uint(5, 0).bool(6, true))
}

// receiptFrame confirms a SEND. The ids -1:-1 say that the broker recognised a duplicate and did not store it.
func receiptFrame(producerID, sequenceID uint64, highestSequenceID, ledger, entry int64) []byte {
	id := message{}.int(1, ledger).int(2, entry)
	return frame(cmdSendReceipt, message{}.uint(1, producerID).uint(2, sequenceID).bytes(3, id).int(4, highestSequenceID))
}

func sendErrorFrame(producerID, sequenceID uint64, code ServerError, text string) []byte {
	return frame(cmdSendError, message{}.uint(1, producerID).uint(2, sequenceID).uint(3, uint64(code)).string(4, text))
}

func closeProducerFrame(producerID uint64) []byte {
	// A request id of -1 tells the client that nobody waits for an answer.
	return frame(cmdCloseProducer, message{}.uint(1, producerID).int(2, -1))
}

// challengeFrame asks a client that is connected for its credentials as they are now.
func challengeFrame() []byte {
	data := message{}.string(1, "token").bytes(2, []byte("refresh"))
	return frame(cmdAuthChallenge, message{}.string(1, "Pulsar Server pulsartest").bytes(2, data))
}

func schemaFrame(requestID uint64, version []byte) []byte {
	return frame(cmdGetOrCreateSchemaResponse, message{}.uint(1, requestID).bytes(4, version))
}
