package output

import (
	"context"
	"fmt"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// inStream runs a stream with an output and returns what writes a batch to it and waits for its ack.
func inStream(t *testing.T, output string) func(context.Context, service.MessageBatch) error {
	t.Helper()
	builder := service.NewStreamBuilder()
	if err := builder.SetYAML("http: { enabled: false }\nlogger: { level: NONE }\noutput:\n" + output); err != nil {
		t.Fatal(err)
	}
	send, err := builder.AddBatchProducerFunc()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := builder.Build()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(context.Background()) }()
	t.Cleanup(func() {
		if err := stream.StopWithin(busy); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return send
}

// Through the streams API a config comes without lint. What nobody can help, that a lease is lost or a name not free yet,
// neither stops such an output for good nor goes anywhere else.
func TestOutputsThatTryAgainOrElsewhere(t *testing.T) {
	for name, wrap := range map[string]string{
		"none":     "  %s\n",
		"retry":    "  retry:\n    backoff: { initial_interval: 10ms, max_interval: 50ms }\n    output:\n      %s\n",
		"fallback": "  fallback:\n    - %s\n    - pulsar: { url: '%s', topic: elsewhere }\n",
		"drop_on":  "  drop_on:\n    error: true\n    output:\n      %s\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := exactBroker(t, 2)
			own := fmt.Sprintf("pulsar: { url: '%s', topic: t, deduplication: true, reconnect_backoff: { initial_interval: 20ms, max_interval: 200ms } }", b.URL())
			arguments := []any{own}
			if name == "fallback" {
				arguments = append(arguments, b.URL())
			}
			send := inStream(t, fmt.Sprintf(wrap, arguments...))
			write := func(batch service.MessageBatch, a *attempt.Attempt) error {
				ctx, cancel := context.WithTimeout(t.Context(), busy)
				defer cancel()
				if err := send(ctx, batch); err != nil {
					return err
				}
				return a.Withheld()
			}

			// The lease is lost while a batch is on its way.
			c := &counter{}
			lost := c.newRun()
			lost.run.End()
			batch, a := lost.batch(0, 1)
			if err := write(batch, a); a.Withheld() == nil {
				t.Errorf("the batch of a run that is over: %v", err)
			}
			// So it is while its replay is on the way.
			s := c.newRun()
			batch, a = s.batch(0, 1)
			a.Done(true)
			if err := write(batch, a); a.Withheld() == nil {
				t.Errorf("the batch of an attempt that is over: %v", err)
			}
			batch, a = s.batch(from(0, 20)...)
			if err := write(batch, a); err != nil {
				t.Fatal(err)
			}
			s.confirm(20)
			s.run.End()
			waitFor(t, func() bool { return named(b) == 0 })

			// The last owner's producers are still known to the broker.
			zombie := connected(t, b.URL(), exactly)
			old := c.newRun()
			old.deliver(t, zombie, from(20, 20)...)
			s = c.newRun()
			records := from(40, 20)
			batch, a = s.batch(records...)
			if err := write(batch, a); a.Withheld() == nil {
				t.Errorf("the name is not free: %v", err)
			}
			a.Done(true)
			if err := old.run.CloseProducers(t.Context()); err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool {
				batch, a = s.batch(records...)
				err := write(batch, a)
				a.Done(err != nil)
				return err == nil
			})
			checkExactly(t, b, "t", 60)
			if n := len(b.Messages("elsewhere")); n != 0 {
				t.Errorf("%d messages went elsewhere", n)
			}
		})
	}
}
