package pulsartest

import "strconv"

// ServerError is the code of a refusal, with the numbers and names of Pulsar's protocol.
type ServerError int

// The server errors of the protocol. What the Go client makes of them:
//   - in answer to SEND: NotAllowedError and TopicTerminatedError only silence the producer, every other closes the
//     connection, and the pending messages are sent again on the next one;
//   - in answer to PRODUCER while reconnecting: TopicNotFound, TopicTerminatedError and ProducerFenced close the producer,
//     ProducerBlockedQuotaExceededException fails what is pending, everything else is tried again for ever.
const (
	UnknownError                          ServerError = 0
	MetadataError                         ServerError = 1
	PersistenceError                      ServerError = 2
	AuthenticationError                   ServerError = 3
	AuthorizationError                    ServerError = 4
	ConsumerBusy                          ServerError = 5
	ServiceNotReady                       ServerError = 6
	ProducerBlockedQuotaExceededError     ServerError = 7
	ProducerBlockedQuotaExceededException ServerError = 8
	ChecksumError                         ServerError = 9
	UnsupportedVersionError               ServerError = 10
	TopicNotFound                         ServerError = 11
	SubscriptionNotFound                  ServerError = 12
	ConsumerNotFound                      ServerError = 13
	TooManyRequests                       ServerError = 14
	TopicTerminatedError                  ServerError = 15
	ProducerBusy                          ServerError = 16
	InvalidTopicName                      ServerError = 17
	IncompatibleSchema                    ServerError = 18
	ConsumerAssignError                   ServerError = 19
	TransactionCoordinatorNotFound        ServerError = 20
	InvalidTxnStatus                      ServerError = 21
	NotAllowedError                       ServerError = 22
	TransactionConflict                   ServerError = 23
	TransactionNotFound                   ServerError = 24
	ProducerFenced                        ServerError = 25
)

var serverErrorNames = [...]string{
	"UnknownError", "MetadataError", "PersistenceError", "AuthenticationError", "AuthorizationError", "ConsumerBusy",
	"ServiceNotReady", "ProducerBlockedQuotaExceededError", "ProducerBlockedQuotaExceededException", "ChecksumError",
	"UnsupportedVersionError", "TopicNotFound", "SubscriptionNotFound", "ConsumerNotFound", "TooManyRequests",
	"TopicTerminatedError", "ProducerBusy", "InvalidTopicName", "IncompatibleSchema", "ConsumerAssignError",
	"TransactionCoordinatorNotFound", "InvalidTxnStatus", "NotAllowedError", "TransactionConflict", "TransactionNotFound",
	"ProducerFenced",
}

// String is the protocol's name of the code.
func (e ServerError) String() string {
	if e >= 0 && int(e) < len(serverErrorNames) {
		return serverErrorNames[e]
	}
	return "ServerError(" + strconv.Itoa(int(e)) + ")"
}

// closesProducer says whether the broker, having answered a SEND with this code, closes the producer, so that frames
// which are already on their way are not stored behind the refused one. A failed write fences the topic and disconnects
// its producers; a bad checksum or a forbidden message concerns that frame alone.
func (e ServerError) closesProducer() bool {
	return e != ChecksumError && e != NotAllowedError
}
