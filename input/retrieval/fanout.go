package retrieval

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/kpl"
)

// Subscriber makes the subscriptions of all shards, in the name of one consumer.
type Subscriber interface {
	// Subscribe makes one SubscribeToShard call. Ctx is that of the subscription, not of the call alone.
	Subscribe(ctx context.Context, shard string, start *types.StartingPosition) (Subscription, error)
	// Missing finds out whether it is the consumer that a ResourceNotFoundException is about; the exception does not
	// say. It returns an error that wraps ErrNoConsumer then, and nil when the stream or the shard must be meant.
	Missing(ctx context.Context) error
}

// FanOutConfig is what the readers of all shards share.
type FanOutConfig struct {
	Subscriber Subscriber
	// Calls keeps the calls of each shard apart.
	Calls *CallSpacing
	// Backoff is the pause after a throttled call.
	Backoff time.Duration
	Budget  *Budget
}

const (
	// stalledAfter is how long a subscription may be silent while somebody listens. Kinesis sends an empty event about
	// every five seconds, so this one is dead, however alive its connection looks.
	stalledAfter = 35 * time.Second
	// keepRoomFor is how long room in the budget is kept for an event that is waited for; not at all when the last one was
	// empty. A shard at the tip of the stream waits for seconds, and 64 such shards would keep room for what does not come
	// from those that have a backlog.
	keepRoomFor = 200 * time.Millisecond
	// lastRenewalAfter is the longest pause between subscriptions that are accepted and die without an event.
	lastRenewalAfter = 10 * time.Second
)

// errStalled is the end of a subscription that was silent for stalledAfter.
var errStalled = fmt.Errorf("no event for %s, where an empty one comes every few seconds", stalledAfter)

// FanOut reads a shard by enhanced fan-out: Kinesis pushes events into a subscription, which lasts five minutes and is
// then renewed. Here they are pulled: each Next takes one event out of it, for which it has asked for room. Whoever does
// not call Next stops the flow, but for what fits into the connection's window. A subscription ends with the context of
// the Next that made it.
type FanOut struct {
	converter
	config FanOutConfig
	shard  string

	from         From
	continuation string // of the last event returned: behind it the next subscription starts
	live         Subscription
	lives        context.Context    // that of live
	hangUp       context.CancelFunc // ends it
	events       int                // of live
	idle         bool               // the last event was empty

	mean     int64 // running mean charge of a record, 0 before the first
	perEvent int64 // running mean of records in an event that has any, 0 before the first

	notBefore time.Time
	stillborn int // subscriptions in a row that were accepted and died without an event
}

var _ Reader = (*FanOut)(nil)

// NewFanOut returns a reader of one shard. The hash range is the shard's; it decides which user records of an
// aggregated record belong here.
func NewFanOut(config FanOutConfig, shard string, hashes kpl.HashRange, from From) *FanOut {
	return &FanOut{config: config, shard: shard, converter: converter{hashes: hashes, last: from.After}, from: from}
}

// Next implements Reader.
func (f *FanOut) Next(ctx context.Context, holdsNothing func() bool) (Read, error) {
	if err := sleepUntil(ctx, f.notBefore); err != nil {
		return Read{}, err
	}
	// Room first: a shard that has to wait for it opens no subscription that it does not read.
	grant, err := f.config.Budget.Acquire(ctx, f.request(), holdsNothing)
	if err != nil {
		return Read{}, err
	}
	room := room{budget: f.config.Budget, grant: grant}
	defer room.giveUp()
	if f.live != nil && f.lives.Err() != nil {
		f.Close()
	}
	for {
		if f.live == nil {
			if err := f.subscribe(ctx); err != nil {
				return Read{}, f.refused(ctx, err)
			}
		}
		event, err := f.event(ctx, &room)
		switch {
		case err == nil:
			return f.take(event, &room), nil
		case ctx.Err() != nil:
			return Read{}, ctx.Err()
		case errors.Is(err, io.EOF) && f.events > 0:
			// Its five minutes are over, or its connection went away without a word. It is renewed at once.
			f.Close()
		default:
			return Read{}, f.died(ctx, err)
		}
	}
}

// request is the room that one event takes, by estimate. The estimates are of records, as those of polling are: the
// budget hands out whole records.
func (f *FanOut) request() Request {
	if f.mean == 0 {
		return Request{Records: 1, MeanBytes: meanBeforeFirstRead}
	}
	return Request{Records: int(max(1, f.perEvent)), MeanBytes: f.mean}
}

// event waits for the next event of the live subscription.
func (f *FanOut) event(ctx context.Context, room *room) (*types.SubscribeToShardEvent, error) {
	patience := stalledAfter
	if !f.idle {
		event, waited, err := f.waitFor(ctx, keepRoomFor)
		if !waited {
			return event, err
		}
		patience -= keepRoomFor
	}
	room.giveUp()
	event, waited, err := f.waitFor(ctx, patience)
	if waited {
		err = errStalled
	}
	return event, err
}

// waitFor waits for an event no longer than patience; waited tells that this was over.
func (f *FanOut) waitFor(ctx context.Context, patience time.Duration) (event *types.SubscribeToShardEvent, waited bool, err error) {
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	event, err = f.live.Next(short)
	return event, err != nil && short.Err() != nil && ctx.Err() == nil, err
}

// take makes what Next returns of an event.
func (f *FanOut) take(event *types.SubscribeToShardEvent, room *room) Read {
	f.events++
	f.stillborn = 0
	read := Read{MillisBehindLatest: millisBehind(event.MillisBehindLatest)}
	charge, _ := f.convert(&read, event.Records)
	room.settle(len(read.Records), charge)
	if n := len(read.Records); n > 0 {
		f.mean = meanOf(f.mean, charge, n)
		f.perEvent = meanOf(f.perEvent, int64(n), 1)
	}
	told := len(event.Records)
	f.idle = told == 0
	continuation := aws.ToString(event.ContinuationSequenceNumber)
	switch {
	case continuation == "" && len(event.ChildShards) > 0:
		read.Ended = true
		read.Children = childrenOf(event.ChildShards)
		f.Close()
	case continuation != "":
		f.continuation = continuation
		if p, err := checkpoint.Parse(continuation, 0); told == 0 && err == nil && !p.IsSentinel() {
			read.Reached = p
		}
	case told > 0:
		f.continuation = aws.ToString(event.Records[told-1].SequenceNumber)
	}
	return read
}

// subscribe makes a call no sooner than allowed.
func (f *FanOut) subscribe(ctx context.Context) error {
	if err := f.config.Calls.wait(ctx, f.shard); err != nil {
		return err
	}
	// The SDK has no timeout of its own for the call.
	live, hangUp := context.WithCancelCause(ctx)
	timer := time.AfterFunc(requestTimeout, func() { hangUp(fmt.Errorf("no answer for %s", requestTimeout)) })
	subscription, err := f.config.Subscriber.Subscribe(live, f.shard, f.start())
	timer.Stop()
	f.config.Calls.answered(f.shard)
	if api := (smithy.APIError)(nil); err == nil || !errors.As(err, &api) {
		f.config.Calls.subscribed(f.shard) // without an answer Kinesis may have done it
	}
	if err != nil {
		if cause := context.Cause(live); cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		hangUp(nil)
		return err
	}
	f.live, f.lives, f.hangUp, f.events = subscription, live, func() { hangUp(nil) }, 0
	return nil
}

// start is where the next subscription starts.
func (f *FanOut) start() *types.StartingPosition {
	switch {
	case f.continuation != "":
		return &types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: &f.continuation}
	case f.from.Kind == checkpoint.TrimHorizon:
		return &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon}
	case f.from.Kind == checkpoint.AtTimestamp:
		return &types.StartingPosition{Type: types.ShardIteratorTypeAtTimestamp, Timestamp: &f.from.Time}
	}
	// AT, not AFTER: the checkpoint may lie inside an aggregated record whose rest is still to come.
	return &types.StartingPosition{Type: types.ShardIteratorTypeAtSequenceNumber, SequenceNumber: &f.from.After.Sequence}
}

// Close implements Reader. It ends the subscription, if there is one, and waits for its goroutines.
func (f *FanOut) Close() {
	if f.live == nil {
		return
	}
	f.hangUp()
	f.live.Close()
	f.live, f.lives, f.hangUp = nil, nil, nil
}

// refused classifies the error of a call that brought no subscription, and plans the pause before the next one.
func (f *FanOut) refused(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if isInvalidArgument(err) && f.continuation == "" && f.from.Kind == "" {
		invalid := new(types.InvalidArgumentException)
		errors.As(err, &invalid)
		return fmt.Errorf("subscribing to %s: %w: %s: %s", f.shard, ErrForeignPosition, f.from.After.Sequence, invalid.ErrorMessage())
	}
	return f.failed(ctx, fmt.Errorf("subscribing to %s: %w", f.shard, err))
}

// died does the same for a subscription that ended otherwise than by its time.
func (f *FanOut) died(ctx context.Context, err error) error {
	lived := f.events > 0
	f.Close()
	if errors.Is(err, io.EOF) {
		err = errors.New("it ended before its first event")
	}
	err = f.failed(ctx, fmt.Errorf("subscription to %s: %w", f.shard, err))
	switch {
	case isInUse(err), errors.Is(err, ErrThrottled), errors.Is(err, ErrNotFound), errors.Is(err, ErrNoConsumer):
	case lived:
		f.notBefore = time.Time{} // no sooner than a second after the last call, Calls sees to that
	default:
		f.stillborn++
		f.notBefore = time.Now().Add(renewAfter(f.stillborn, rand.Float64()))
	}
	return err
}

// failed names what callers tell apart, and plans the usual pause: what the API allows, spread. It never grows: the one
// who has the shard's lease has to wait only until Kinesis lets go of the subscription of the one before it, which is
// five seconds after that was made, and must not come late for having asked often.
func (f *FanOut) failed(ctx context.Context, err error) error {
	f.notBefore = time.Now().Add(renewAfter(1, rand.Float64()))
	switch {
	case isThrottle(err):
		f.notBefore = time.Now().Add(max(f.config.Backoff, callSpacing))
		return fmt.Errorf("%w: %w", ErrThrottled, err)
	case isNotFound(err):
		if missing := f.config.Subscriber.Missing(ctx); missing != nil {
			return fmt.Errorf("%w: %w", missing, err)
		}
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// renewAfter is the pause after so many subscriptions in a row that came to nothing: doubling from a second to ten,
// spread by up to a half so that the shards of a stream do not come back all at once.
func renewAfter(failures int, random float64) time.Duration {
	pause := lastRenewalAfter
	if failures < 5 {
		pause = min(pause, callSpacing<<(failures-1))
	}
	return pause + time.Duration(random*float64(pause)/2)
}

func isInUse(err error) bool {
	inUse := new(types.ResourceInUseException)
	return errors.As(err, &inUse)
}

// room is what a Next has got of the budget.
type room struct {
	budget *Budget
	grant  Grant
	gone   bool // given up, or settled
}

// giveUp returns what is reserved.
func (r *room) giveUp() {
	if !r.gone {
		r.settle(0, 0)
	}
}

// settle charges what an event really brought, whether room for it is still kept or not.
func (r *room) settle(records int, bytes int64) {
	if r.gone {
		r.grant = Grant{}
	}
	r.gone = true
	r.budget.Settle(r.grant, records, bytes)
}
