// Package output is the Benthos output "pulsar": it writes batches to Apache Pulsar, in order, and tells the kinesis_pulsar
// input which records Pulsar has confirmed. Importing the package registers the output.
//
// Invariants:
//   - A batch is given to the client as a whole and waited for as a whole; the messages of a partition are sent in the
//     order of the batch.
//   - What was given to the client is settled before WriteBatch returns: confirmed by the broker, failed by the client, or
//     failed because its producer can send nothing any more. Only the end of the context cuts that short.
//   - At the first failure that is not a record's own fault nothing more of the batch is sent, and the producer's life ends.
//   - ErrNotConnected is returned only for a batch of which nothing was given to the client: the engine sends such a batch
//     again by itself, all of it.
//   - A record is marked as confirmed only by a receipt with a place in the topic.
package output

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// Name is the output's name in configurations.
const Name = "pulsar"

func init() {
	if err := Register(service.GlobalEnvironment()); err != nil {
		panic(err)
	}
}

// Register adds the output to an environment. Importing the package does it for the global one.
func Register(env *service.Environment) error {
	return env.RegisterBatchOutput(Name, Spec(), func(p *service.ParsedConfig, res *service.Resources) (
		service.BatchOutput, service.BatchPolicy, int, error,
	) {
		conf, err := parseConfig(p)
		if err != nil {
			return nil, service.BatchPolicy{}, 0, err
		}
		return newOutput(conf, res), service.BatchPolicy{}, conf.maxInFlight, nil
	})
}

// output is one pulsar output of a stream.
type output struct {
	conf    *config
	log     *service.Logger
	metrics *metrics
	cargos  sync.Pool // of *cargo

	gravedigger gravedigger
	early       sync.Once // of the warning that records are acknowledged too early

	session  atomic.Pointer[session] // nil before the first Connect, and while it is renewed
	renewals sync.WaitGroup          // sessions that were replaced and are closing
	mu       struct {
		sync.Mutex
		closed  bool
		renewed time.Time // when last
	}
}

var (
	_ service.BatchOutput        = (*output)(nil)
	_ service.ConnectionTestable = (*output)(nil)
)

func newOutput(conf *config, res *service.Resources) *output {
	o := &output{conf: conf, log: res.Logger(), metrics: newMetrics(res.Metrics())}
	if conf.sendTimeout > 0 {
		o.log.Warnf("%s is %s: a message that times out may be stored nevertheless, and later ones are stored before its repetition", fieldSendTimeout, conf.sendTimeout)
	}
	return o
}

// Connect returns when the broker can be reached and, for a topic without interpolation, has taken a producer. Its error
// is the cause, within seconds. It is called again on the same output whenever WriteBatch returned ErrNotConnected.
func (o *output) Connect(ctx context.Context) error {
	s, err := o.open()
	if err != nil {
		return err
	}
	return s.verify(ctx, false)
}

// open returns the session, which is made at the first call.
func (o *output) open() (*session, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.closed {
		return nil, errClosed
	}
	if s := o.session.Load(); s != nil {
		return s, nil
	}
	s, err := openSession(o.conf, o.log, o.metrics)
	if err != nil {
		return nil, err
	}
	o.session.Store(s)
	return s, nil
}

// ConnectionTest does what Connect does, with a connection of its own.
func (o *output) ConnectionTest(ctx context.Context) service.ConnectionTestResults {
	s, err := openSession(o.conf, o.log, o.metrics)
	if err != nil {
		return service.ConnectionTestFailed(err).AsList()
	}
	defer s.close(context.WithoutCancel(ctx))
	if err := s.verify(ctx, true); err != nil {
		return service.ConnectionTestFailed(err).AsList()
	}
	return service.ConnectionTestSucceeded().AsList()
}

// Close flushes what is on its way and closes the producers. It takes some seconds at most, may be called more than once,
// without a Connect before, and while WriteBatch runs: what is not confirmed by then fails.
func (o *output) Close(ctx context.Context) error {
	o.mu.Lock()
	o.mu.closed = true
	s := o.session.Load()
	o.mu.Unlock()
	if s != nil {
		s.close(ctx)
	}
	o.renewals.Wait() // for seconds, as for the session
	return nil
}

// notConnected is the error for a batch that was not sent because the broker is out of reach. The engine then calls
// Connect, whose error it shows as the cause, so the cause itself is only worth a debug line here.
func (o *output) notConnected(cause error) error {
	o.log.Debugf("Not connected: %v", cause)
	return service.ErrNotConnected
}
