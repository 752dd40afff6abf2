package output

import (
	"errors"
	"strings"

	"github.com/apache/pulsar-client-go/pulsar"
)

// Errors of this package. The text of a failed record always says which of them it was.
var (
	// errNotStored is the failure of a message that the broker answered with the id -1:-1: it took it for a duplicate
	// and did not store it, although the client reports success.
	errNotStored = errors.New("the broker took the message for a duplicate and did not store it (message id -1:-1)")
	// errStopped is the failure of a record that was not sent because an earlier one of its batch failed.
	errStopped = errors.New("not sent, since an earlier record of the batch failed")
	// errTorn is the failure of a message of which the client may have sent the last chunk without the others.
	errTorn = errors.New("the client may have lost chunks of the message")
	// errTooManyChunks is the failure of a message that is too large even for chunks.
	errTooManyChunks = errors.New("too large to be cut into chunks")
	// errNoDeadLetterTopic is returned when a dead letter is to be written and there is no topic for it.
	errNoDeadLetterTopic = errors.New(fieldDeadLetterTopic + " is not set")
	// errClosed is returned when the output has been closed.
	errClosed = errors.New("the output is closed")
	// errNoTopic is the failure of a record whose topic is no valid topic name.
	errNoTopic = errors.New("not a valid topic name")
	// errTooManyTopics is returned when a dynamic topic would exceed the limit of topics in use at a time.
	errTooManyTopics = errors.New("too many topics in use at the same time")
	// errPanicked is the failure of a record in whose sending the client panicked: it does so when a producer is
	// closed by the broker at the same moment.
	errPanicked = errors.New("the producer was closed while sending")
)

// failureClass says what a failed record means for the others of its batch. The zero value is no class: not known yet.
type failureClass int

const (
	// confirmed is no failure.
	confirmed failureClass = iota + 1
	// permanent failures concern the record alone: it can never be published as it is. The rest of the batch goes on.
	permanent
	// transient failures may be over the next time. Nothing that comes after the record may be sent before it is tried
	// again, so the batch stops and the producer generation ends.
	transient
	// buried records were refused and are in the dead-letter topic: they count as delivered.
	buried
	// deferred records were not sent because an earlier one was refused: they are sent again when that one is buried.
	deferred
)

// classify tells the class of a failure. alone says that the message cannot have shared a batch with others, so that a
// refusal of the whole batch is a refusal of this message.
func classify(err error, alone bool) failureClass {
	switch {
	case err == nil:
		return confirmed
	case errors.Is(err, pulsar.ErrMessageTooLarge),
		errors.Is(err, pulsar.ErrMetaTooLarge),
		errors.Is(err, pulsar.ErrInvalidMessage),
		errors.Is(err, pulsar.ErrSchema):
		return permanent
	case alone && strings.Contains(err.Error(), "exceeds MaxMessageSize"):
		// The client checks the size twice: the payload in SendAsync (ErrMessageTooLarge), payload and metadata when it
		// cuts the batch. The second error is a sentinel in an internal package, so only its text can be compared.
		return permanent
	default:
		return transient
	}
}

// notStored tells the receipt of a message that the broker threw away as a duplicate.
func notStored(id pulsar.MessageID) bool {
	return id != nil && id.LedgerID() == -1 && id.EntryID() == -1
}
