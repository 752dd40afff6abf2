package pulsartest

import (
	"net/http"
	"time"

	"go.uber.org/goleak"
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
func VerifyTestMain(m goleak.TestingM) { goleak.VerifyTestMain(patient{m}, knownLeaks()...) }

// patient gives the client's calls, which cannot be cancelled, the time in which they end by themselves: those to a broker
// that is away end within the operation timeout, half a minute. What is there after that is a leak.
type patient struct{ m goleak.TestingM }

func (p patient) Run() int {
	code := p.m.Run()
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(90 * time.Second); goleak.Find(knownLeaks()...) != nil && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
	return code
}
