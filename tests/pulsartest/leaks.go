package pulsartest

import (
	"go.uber.org/goleak"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/leaktest"
)

// knownLeaks are the goroutines which pulsar-client-go v0.21.0 leaves behind. All else that is left is a leak.
func knownLeaks() []goleak.Option {
	const client = "github.com/apache/pulsar-client-go/pulsar."
	return []goleak.Option{
		// When the broker ends a producer for good (its topic was terminated or deleted) Close returns early, and only Close
		// cancels the context that this goroutine waits for. That of a producer closed while it reconnects stays until its
		// lookup times out.
		goleak.IgnoreAnyFunction(client + "(*partitionProducer).runEventsLoop.func1"),
		// Consumers and readers sleep a minute for every message in chunks, whatever becomes of it or them.
		goleak.IgnoreAnyFunction(client + "(*chunkedMsgCtxMap).discardChunkIfExpire"),
	}
}

// VerifyTestMain runs the tests of a package that uses the Pulsar client, against this broker or a real one, and looks for
// goroutines that are left. It does not return.
func VerifyTestMain(m goleak.TestingM) { leaktest.VerifyTestMain(m, knownLeaks()...) }
