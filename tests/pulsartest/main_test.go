package pulsartest_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/backoff"
	pulsarlog "github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

func TestMain(m *testing.M) { pulsartest.VerifyTestMain(stack.StopAfter(m)) }

// testContext bounds every wait of a test: what takes longer has failed.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func newBroker(t *testing.T, options ...pulsartest.Option) *pulsartest.Broker {
	t.Helper()
	b := pulsartest.NewBroker(options...)
	t.Cleanup(b.Close)
	return b
}

func newClient(t *testing.T, url string, change ...func(*pulsar.ClientOptions)) pulsar.Client {
	t.Helper()
	options := pulsar.ClientOptions{
		URL:               url,
		ConnectionTimeout: 5 * time.Second,
		OperationTimeout:  10 * time.Second,
		Logger:            pulsarlog.NewLoggerWithSlog(slog.New(slog.NewTextHandler(io.Discard, nil))),
		MetricsRegisterer: prometheus.NewRegistry(),
	}
	for _, c := range change {
		c(&options)
	}
	client, err := pulsar.NewClient(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// quickBackoff keeps tests of reconnecting from waiting seconds.
type quickBackoff struct{}

func (quickBackoff) Next() time.Duration       { return 5 * time.Millisecond }
func (quickBackoff) IsMaxBackoffReached() bool { return false }
func (quickBackoff) Reset()                    {}

func newProducer(t *testing.T, client pulsar.Client, options pulsar.ProducerOptions) pulsar.Producer {
	t.Helper()
	p, err := createProducer(client, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func createProducer(client pulsar.Client, options pulsar.ProducerOptions) (pulsar.Producer, error) {
	options.BackOffPolicyFunc = func() backoff.Policy { return quickBackoff{} }
	if options.SendTimeout == 0 {
		options.SendTimeout = -1
	}
	if options.BatchingMaxPublishDelay == 0 {
		options.BatchingMaxPublishDelay = time.Millisecond
	}
	return client.CreateProducer(options)
}
