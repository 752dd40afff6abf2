// Package input is the Benthos input kinesis_pulsar: it reads a Kinesis stream shard by shard, hands the records out as
// batches, and moves the shards' checkpoints in DynamoDB behind what Apache Pulsar has confirmed.
//
// Importing the package registers the input with Benthos.
//
// Invariants (docs/design.md tells the whole list):
//   - I7: a shard has at most one batch in flight, so no number of threads and slots can reorder it.
//   - I9: leases are kept by goroutines of their own; nothing on the way of the records can delay them.
//   - I10: Close is bounded, idempotent, and safe in any state.
package input

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/kpl"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
)

// Name is the input's name in a Benthos config.
const Name = "kinesis_pulsar"

func init() {
	if err := Register(service.GlobalEnvironment()); err != nil {
		panic(err)
	}
}

// Register adds the input to an environment.
func Register(env *service.Environment) error {
	return env.RegisterBatchInput(Name, Spec(), func(parsed *service.ParsedConfig, res *service.Resources) (service.BatchInput, error) {
		config, err := ParseConfig(parsed)
		if err != nil {
			return nil, err
		}
		return newInput(config, res)
	})
}

// input implements service.BatchInput.
type input struct {
	config   Config
	log      *service.Logger
	once     *onceLog // the same log
	clock    attempt.Clock
	workerID string
	budget   *retrieval.Budget
	ready    *dispatcher
	metrics  *metrics
	convert  *converter

	// connecting is held by Connect. Close does not wait for it: a Connect may hang for as long as its context allows.
	connecting sync.Mutex
	failures   int       // of Connect in a row; guarded by connecting
	answered   time.Time // Kinesis' clock at its first answer; guarded by connecting
	lost       *salvage  // of the lease table, if that was deleted; guarded by connecting

	mu struct {
		sync.Mutex
		worker *worker
		leave  func()
		closed bool
	}
}

// newInput makes no request: lint, streams mode and connection tests call it and expect it to be quick.
func newInput(config Config, res *service.Resources) (*input, error) {
	log := res.Logger()
	if config.CredentialPluginName == "" && config.CredentialPluginParam == "" {
		log.Infof("No awsCredentialPluginName and no awsCredentialPluginParam: credentials come from the AWS SDK's default chain")
	}
	return &input{
		config:   config,
		log:      log,
		once:     newOnceLog(log),
		clock:    attempt.BootClock,
		workerID: newWorkerID(),
		budget:   retrieval.NewBudget(config.MaxBufferedBytes, config.ReceiveQueueSize),
		ready:    newDispatcher(),
		metrics:  newMetrics(res.Metrics(), config.StreamName),
		convert:  &converter{properties: config.RecordProperties, keyMode: config.MessageKeyMode, stream: config.StreamName},
	}, nil
}

func (in *input) table(c *clients) *lease.Table { return in.config.table(c) }

func (c Config) table(with *clients) *lease.Table {
	return lease.NewTable(with.dynamodb, c.tableName()).ForApplication(c.ApplicationName)
}

// polling makes the readers of shards that are polled.
func (in *input) polling(c *clients, s stream) func(shard string, hashes kpl.HashRange) readerFrom {
	config := retrieval.PollingConfig{
		API:        quietKinesis{c.kinesis},
		StreamARN:  s.identity.ARN,
		MaxRecords: in.config.MaxRecords,
		Spacing:    in.config.IdleTimeBetweenReads,
		Backoff:    in.config.BackoffTime,
		Budget:     in.budget,
	}
	return func(shard string, hashes kpl.HashRange) readerFrom {
		return func(from retrieval.From) retrieval.Reader { return retrieval.NewPolling(config, shard, hashes, from) }
	}
}

// fanOut makes the readers of shards that are subscribed to, and knows when another worker may subscribe to one.
func (in *input) fanOut(con *consumer) (reader func(shard string, hashes kpl.HashRange) readerFrom, calls *retrieval.CallSpacing) {
	calls = retrieval.NewCallSpacing()
	config := retrieval.FanOutConfig{
		Subscriber: con,
		Calls:      calls,
		Backoff:    in.config.BackoffTime,
		Budget:     in.budget,
	}
	return func(shard string, hashes kpl.HashRange) readerFrom {
		return func(from retrieval.From) retrieval.Reader { return retrieval.NewFanOut(config, shard, hashes, from) }
	}, calls
}

// Pauses between failed Connects, of which each is an error in the log.
const firstConnectAfter, lastConnectAfter = time.Second, 10 * time.Second

// Connect implements service.BatchInput. The first time it checks everything that can be checked and starts the worker;
// later, after ReadBatch has reported trouble, it waits until the worker has got over it. The worker itself goes on all
// the time, so nothing is lost by it.
func (in *input) Connect(ctx context.Context) error {
	in.connecting.Lock()
	defer in.connecting.Unlock()
	in.mu.Lock()
	w, closed := in.mu.worker, in.mu.closed
	in.mu.Unlock()
	switch {
	case closed:
		return service.ErrEndOfInput
	case w != nil:
		_, trouble := w.state()
		startOver := in.config.RecreatedStream == StartOver && errors.Is(trouble, lease.ErrRecreatedStream)
		if !startOver && !w.hasEnded() {
			return reconnect(ctx, w)
		}
		in.forsake(ctx, w)
		if errors.Is(trouble, lease.ErrTableGone) {
			in.lost = salvageFrom(w, time.Now())
		}
	}
	if err := in.begin(ctx); err != nil {
		in.failures++
		pause := min(lastConnectAfter, firstConnectAfter<<min(in.failures-1, 8))
		return service.NewErrBackOff(err, pause)
	}
	in.failures = 0
	return nil
}

// forsake ends a worker that is of no use any more: its stream is no more, or its lease table.
func (in *input) forsake(ctx context.Context, w *worker) {
	in.mu.Lock()
	leave := in.mu.leave
	in.mu.leave = nil
	in.mu.Unlock()
	if leave == nil {
		return // closed meanwhile
	}
	defer leave()
	if err := w.stop(ctx); err != nil {
		in.log.Debugf("Not every lease of the old worker was released: %v", err)
	}
	in.mu.Lock()
	in.mu.worker = nil
	in.mu.Unlock()
}

// reconnectPatience is how long a Connect waits for the end of trouble before it reports it (again).
const reconnectPatience = 5 * time.Second

func reconnect(ctx context.Context, w *worker) error {
	turned, trouble := w.state()
	if trouble == nil {
		return nil
	}
	timer := time.NewTimer(reconnectPatience)
	defer timer.Stop()
	select {
	case <-turned:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return service.NewErrBackOff(trouble, time.Millisecond) // it has waited already
	}
}

// begin is the first connection. It must be called with connecting held.
func (in *input) begin(ctx context.Context) error {
	c, err := newClients(ctx, in.config, in.log)
	if err != nil {
		return err
	}
	started := false
	defer func() {
		if !started {
			c.close()
		}
	}()
	s, err := describe(ctx, c.kinesis, in.config)
	if err != nil {
		return err
	}
	// LATEST is what was latest when Kinesis answered for the first time: what arrived while we waited for the lease
	// table is not to be skipped.
	if in.answered.IsZero() {
		in.answered = s.answered
	}
	s.answered = in.answered
	leave, err := tables.enter(in.config.DynamoEndpoint+"|"+c.region+"|"+in.config.tableName(), s.identity)
	if err != nil {
		return err
	}
	defer func() {
		if !started {
			leave()
		}
	}()
	if err := in.restoreTable(ctx, in.table(c)); err != nil {
		return err
	}
	start, err := bootstrap(ctx, c.kinesis, in.table(c), in.config, s, in.once)
	if err != nil {
		return err
	}
	// Last, since it costs money: a consumer is not registered for a lease table that turns out to be another stream's.
	var con *consumer
	if in.config.UseEnhancedFanOut {
		con = newConsumer(c.kinesis, in.config, s)
		if err := con.find(ctx); err != nil {
			return err
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.mu.closed {
		return service.ErrEndOfInput
	}
	w, err := newWorker(in, c, s, start, con)
	if err != nil {
		return err
	}
	w.run()
	in.mu.worker, in.mu.leave = w, leave
	started = true
	return nil
}

// ReadBatch implements service.BatchInput. It never returns an empty batch.
func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	in.mu.Lock()
	w := in.mu.worker
	in.mu.Unlock()
	if w == nil {
		return nil, nil, service.ErrNotConnected
	}
	for {
		turned, trouble := w.state()
		if r := in.ready.pop(); r != nil {
			if batch, ack := r.handOut(); batch != nil {
				return batch, ack, nil
			}
			continue
		}
		switch {
		case errors.Is(trouble, service.ErrEndOfInput):
			return nil, nil, trouble
		case trouble != nil:
			return nil, nil, service.ErrNotConnected
		}
		r := in.ready.next(ctx, turned)
		if r == nil {
			if ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
			continue
		}
		if batch, ack := r.handOut(); batch != nil {
			return batch, ack, nil
		}
	}
}

// Close implements service.BatchInput. Acks that have not come by now count as not delivered: waiting for them could
// last for ever, since the engine drops those of a forced stop.
func (in *input) Close(ctx context.Context) error {
	in.mu.Lock()
	in.mu.closed = true
	w, leave := in.mu.worker, in.mu.leave
	in.mu.leave = nil
	in.mu.Unlock()
	if leave == nil {
		return nil // never connected, or closed before
	}
	defer leave()
	if err := w.stop(ctx); err != nil {
		in.log.Warnf("Not every lease was released; others take the rest over when it expires: %v", err)
	}
	return nil
}

var (
	_ service.BatchInput         = (*input)(nil)
	_ service.ConnectionTestable = (*input)(nil)
)
