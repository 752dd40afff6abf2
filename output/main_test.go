package output

import (
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(stack.StopAfter(m),
		// When the broker ends a producer for good (topic terminated or deleted), pulsar-client-go leaves this goroutine
		// behind: Close returns early for such a producer, and only Close cancels the context that it waits for.
		goleak.IgnoreAnyFunction("github.com/apache/pulsar-client-go/pulsar.(*partitionProducer).runEventsLoop.func1"),
		// Consumers of the client (in tests only) sleep a minute for every message in chunks, whatever becomes of them.
		goleak.IgnoreAnyFunction("github.com/apache/pulsar-client-go/pulsar.(*chunkedMsgCtxMap).discardChunkIfExpire"),
	)
}
