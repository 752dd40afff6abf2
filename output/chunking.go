package output

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/apache/pulsar-client-go/pulsar"
)

// A message above the broker's limit goes through a second producer of its partition, which cuts messages into chunks. The
// client cannot do both with one producer: batching and chunking exclude each other.
//
// Two producers of one partition have no order between them. So a batch is written in parts: what comes before such a
// message is confirmed before it is sent, and it is confirmed before anything that comes after it is sent. To know where
// to part the size must be known beforehand, since the client tells of a message that is too large with its metadata only
// when it cuts the packet, when what follows may have been sent: so the broker's limit is read from the client's log, and
// what comes near it counts as above it. What the chunking producer is given needlessly it sends whole.
//
// What the client (v0.21.0) does wrong with chunks, and what is done about it:
//   - It waits for room for all chunks of a message in SendAsync, with none of them sent: more chunks than its room would
//     wait for ever, with locks of ours held. So their number is bounded, and a partition has one chunked message in
//     flight at a time, which also spares consumers, who drop the oldest of too many unfinished messages.
//   - It leaves room for the metadata as it is before it adds what makes it a chunk, so each chunk exceeds the limit by up
//     to a hundred bytes. Brokers allow for that, bookies that are not set up for it drop the connection; so chunks are
//     cut smaller.
//   - A failed chunk that is not the last has no callback. When the client fails what is pending while it is still cutting
//     the message (a backlog quota; its own send timeout), the chunks after that are sent, and the receipt of the last one
//     says that all is well. Its consumers would never see the message. So the chunking producer has no send timeout of
//     the client's, and the generation is torn when the client tells of a quota: no receipt is believed from then on.
const (
	// mostChunks is the client's room for chunks, so the most chunks of a message.
	mostChunks = 1024

	// leastMetadata is more than the fixed parts of a message's metadata and of the packet around it take.
	leastMetadata = 512
	// perString is more than a string takes beside its bytes, in either metadata.
	perString = 16

	// chunkSlack is what chunks stay below the limit, unless that is a small one.
	chunkSlack = 16 << 10
)

// weigh counts a string of the message's metadata.
func (e *entry) weigh(s string) { e.overhead += len(s) + perString }

// cumbersome tells whether a message may be too large to be packed with others or to be sent whole. Metadata of more than
// an eighth of the limit count too: packets are cut at half the limit without regard to them.
func (s *session) cumbersome(e *entry) bool {
	limit := s.health.maxMessageSize()
	if limit == 0 {
		return false
	}
	// Twice: a packet repeats the key and the properties of its first message.
	metadata := leastMetadata + 2*e.overhead
	return len(e.message.Payload)+metadata > limit || metadata > limit/8
}

// inChunks tells whether a message that is cumbersome can be cut into chunks, and if not, why.
func (s *session) inChunks(e *entry) error {
	limit := s.health.maxMessageSize()
	room := min(limit-leastMetadata-e.overhead, s.chunkSize())
	if room < limit/8 {
		return fmt.Errorf("%w: key and properties leave no room for chunks within the broker's limit of %d bytes", pulsar.ErrMetaTooLarge, limit)
	}
	if chunks := (len(e.message.Payload) + room - 1) / room; chunks > mostChunks {
		return fmt.Errorf("%w: %d of them at the broker's limit of %d bytes, at most %d are possible", errTooManyChunks, chunks, limit, mostChunks)
	}
	return nil
}

// mayGoInChunks tells, of a message that the client has just refused for its size, whether the next try will cut it: the
// broker's limit was not known before, or was a higher one.
func (e *entry) mayGoInChunks() bool {
	s := e.generation.partition.topic.session
	return s.conf.chunking && !e.flight.chunked && canHoldChunks(e.topic) && s.cumbersome(e) && s.inChunks(e) == nil
}

// limitInError is how the client names the limit when it refuses a packet. The other refusal, of a payload alone, names it
// in the log only.
var limitInError = regexp.MustCompile(`exceeds MaxMessageSize, size: \d+, MaxMessageSize: (\d+)`)

// learnLimit reads the broker's limit from a failure of the client.
func (s *session) learnLimit(err error) {
	if m := limitInError.FindStringSubmatch(err.Error()); m != nil {
		if limit, err := strconv.Atoi(m[1]); err == nil {
			s.health.lowerLimit(limit)
		}
	}
}

// canHoldChunks tells whether a topic's consumers can be sent chunks.
func canHoldChunks(topic string) bool { return !strings.HasPrefix(topic, "non-persistent://") }

// batchSize is how large packets become, in bytes of payload: half the broker's limit at most, since the client cuts them
// without regard to properties and refuses the whole packet if it is too large with them, for ever again.
func (s *session) batchSize() int {
	if limit := s.health.maxMessageSize(); limit > 0 {
		return min(s.conf.batching.maxSize, limit/2)
	}
	return s.conf.batching.maxSize
}

// chunkSize is the most bytes of payload in a chunk.
func (s *session) chunkSize() int {
	limit := s.health.maxMessageSize()
	return limit - min(chunkSlack, limit/8)
}

// chunkingOptions turns the options of a partition's producer into those of the one that sends chunks.
func (s *session) chunkingOptions(o pulsar.ProducerOptions) (pulsar.ProducerOptions, producerLimits) {
	o.DisableBatching = true
	o.EnableChunking = true
	o.ChunkMaxMessageSize = uint(s.chunkSize())
	o.MaxPendingMessages = clientPending(mostChunks)
	o.SendTimeout = -1
	return o, producerLimits{chunking: true, timeout: max(s.conf.sendTimeout, 0)}
}

// tear ends the generation of a chunking producer, and from now on none of its receipts is believed.
func (g *generation) tear(cause error) {
	g.mu.Lock()
	g.mu.torn = true
	g.mu.Unlock()
	g.retire(cause)
}

func (g *generation) isTorn() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.torn
}
