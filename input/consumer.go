package input

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
)

const (
	// consumerPatience is how long a start waits for the consumer to become ACTIVE. Connect is tried again afterwards.
	consumerPatience = 30 * time.Second
	consumerPoll     = time.Second
	// consumerCheckPeriod is how long the answer to "is the consumer gone" holds. All shards ask at once when it is.
	consumerCheckPeriod = 5 * time.Second
)

// errNoConsumerYet is returned when the consumer is not ACTIVE in time.
var errNoConsumerYet = errors.New("the consumer of enhanced fan-out is not ACTIVE")

// consumerAPI is what finding and registering a consumer needs of *kinesis.Client, beside subscribing.
type consumerAPI interface {
	streamAPI
	retrieval.FanOutAPI
	DescribeStreamConsumer(context.Context, *kinesis.DescribeStreamConsumerInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamConsumerOutput, error)
	RegisterStreamConsumer(context.Context, *kinesis.RegisterStreamConsumerInput, ...func(*kinesis.Options)) (*kinesis.RegisterStreamConsumerOutput, error)
}

// consumer is the registration for enhanced fan-out, with which all shards subscribe. It is found by its name, or
// registered, as KCL does, or given by its ARN and then not looked for. It is never deregistered: another worker, or KCL,
// may be reading with it, and a new one is billed from its first second and takes half a minute to come.
type consumer struct {
	api    consumerAPI
	config Config
	stream stream
	// decoding is shared by the subscriptions of all shards.
	decoding *retrieval.Decoding

	mu struct {
		sync.Mutex
		arn string
	}
	// checking is held while one shard looks for all of them.
	checking chan struct{}
	checked  time.Time // guarded by checking
	verdict  error     // of the last check; guarded by checking
}

var _ retrieval.Subscriber = (*consumer)(nil)

func newConsumer(api consumerAPI, c Config, s stream) *consumer {
	con := &consumer{api: api, config: c, stream: s, decoding: retrieval.NewDecoding(maxDecoding), checking: make(chan struct{}, 1)}
	con.mu.arn = c.ConsumerARN
	return con
}

// find makes sure that there is an ACTIVE consumer. It waits for it, but not for ever.
func (c *consumer) find(ctx context.Context) error {
	if c.config.ConsumerARN != "" {
		return nil
	}
	name := c.config.consumerName()
	deadline := time.Now().Add(consumerPatience)
	var before types.ConsumerStatus
	for {
		status, err := c.look(ctx, name)
		if err != nil && before != "" && ctx.Err() != nil {
			status, err = before, nil // the wait was ended in the middle of a call
		}
		if err != nil {
			return err
		}
		before = status
		if status == types.ConsumerStatusActive {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("consumer %q is %s after %s: %w", name, status, consumerPatience, errNoConsumerYet)
		}
		if err := sleep(ctx, consumerPoll); err != nil {
			return fmt.Errorf("waiting for consumer %q, which is %s: %w", name, status, err)
		}
	}
}

// test tells whether the consumer can be looked for, and registers nothing.
func (c *consumer) test(ctx context.Context) error {
	in, name := &kinesis.DescribeStreamConsumerInput{}, c.config.ConsumerARN
	if name != "" {
		in.ConsumerARN = &name
	} else {
		name = c.config.consumerName()
		in.StreamARN, in.ConsumerName = &c.stream.identity.ARN, &name
	}
	_, err := c.api.DescribeStreamConsumer(ctx, in)
	switch {
	case err == nil, c.config.ConsumerARN == "" && isResourceNotFound(err), c.config.ConsumerARN != "" && isAccessDenied(err):
		return nil // there is one, or one will be registered, or it is used as it is
	case isResourceNotFound(err):
		return fmt.Errorf("consumerArn: there is no consumer %s: %w", name, err)
	}
	return c.explain("DescribeStreamConsumer", name, err)
}

// look describes the consumer, and registers it if there is none.
func (c *consumer) look(ctx context.Context, name string) (types.ConsumerStatus, error) {
	described, err := c.api.DescribeStreamConsumer(ctx, &kinesis.DescribeStreamConsumerInput{StreamARN: &c.stream.identity.ARN, ConsumerName: &name})
	if err == nil {
		if d := described.ConsumerDescription; d != nil && aws.ToString(d.ConsumerARN) != "" {
			c.setARN(*d.ConsumerARN)
			return d.ConsumerStatus, nil
		}
		return "", fmt.Errorf("describing consumer %q: kinesis answered without a description", name)
	}
	if !isResourceNotFound(err) {
		return "", c.explain("DescribeStreamConsumer", name, err)
	}
	registered, err := c.api.RegisterStreamConsumer(ctx, &kinesis.RegisterStreamConsumerInput{StreamARN: &c.stream.identity.ARN, ConsumerName: &name})
	if inUse := new(types.ResourceInUseException); errors.As(err, &inUse) {
		return types.ConsumerStatusCreating, nil // somebody else was quicker, or the stream is changing: look again
	}
	if err != nil {
		return "", c.explain("RegisterStreamConsumer", name, err)
	}
	if r := registered.Consumer; r != nil && aws.ToString(r.ConsumerARN) != "" {
		c.setARN(*r.ConsumerARN)
		return r.ConsumerStatus, nil
	}
	return types.ConsumerStatusCreating, nil
}

// explain says what a person can do about an error.
func (c *consumer) explain(action, name string, err error) error {
	limit := new(types.LimitExceededException)
	switch {
	case errors.As(err, &limit):
		return fmt.Errorf("consumerName %q: the stream has as many consumers of enhanced fan-out as it may have, or too many are being made: deregister one that is not used, write the consumerArn of one that this application may have, or set useEnhancedFanOut: false: %w", name, err)
	case isAccessDenied(err):
		return fmt.Errorf("consumerName %q: the credentials do not permit kinesis:%s on the stream and its consumers (%s and %s/consumer/*): permit it, write the consumerArn of a consumer that is registered already, or set useEnhancedFanOut: false: %w",
			name, action, c.stream.identity.ARN, c.stream.identity.ARN, err)
	}
	return fmt.Errorf("%s of consumer %q: %w", action, name, err)
}

func (c *consumer) setARN(arn string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.arn = arn
}

func (c *consumer) arn() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.arn
}

// Subscribe implements retrieval.Subscriber.
func (c *consumer) Subscribe(ctx context.Context, shard string, start *types.StartingPosition) (retrieval.Subscription, error) {
	arn := c.arn()
	s, err := retrieval.Subscribe(ctx, c.api, c.decoding, arn, shard, start)
	if isAccessDenied(err) {
		err = fmt.Errorf("the credentials do not permit kinesis:SubscribeToShard on %s: permit it, or set useEnhancedFanOut: false: %w", arn, err)
	}
	return s, err
}

// Missing implements retrieval.Subscriber: a consumer that was found by its name is looked for again, and registered
// again, as a restart would do. One that was given by its ARN is somebody else's to mend.
func (c *consumer) Missing(ctx context.Context) error {
	select {
	case c.checking <- struct{}{}:
		defer func() { <-c.checking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if time.Since(c.checked) < consumerCheckPeriod {
		return c.verdict
	}
	c.verdict = c.check(ctx)
	c.checked = time.Now()
	return c.verdict
}

// check must be called with checking held.
func (c *consumer) check(ctx context.Context) error {
	arn := c.arn()
	_, err := c.api.DescribeStreamConsumer(ctx, &kinesis.DescribeStreamConsumerInput{ConsumerARN: &arn})
	if err == nil || !isResourceNotFound(err) {
		// It is there; or we can't know, and then have to take the exception for what the shard's own check makes of it.
		return nil
	}
	// A stream takes its consumers along. One that was created again in its place has shards of the same ids, and must not
	// be read with a new consumer under the old leases (r7.3): the run looks at the stream when the shard is not found.
	s, err := describe(ctx, c.api, c.config)
	if isResourceNotFound(err) || err == nil && s.identity.Brand() != c.stream.identity.Brand() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s; looking for its stream: %w", retrieval.ErrNoConsumer, arn, err)
	}
	gone := fmt.Errorf("%w: %s was deregistered", retrieval.ErrNoConsumer, arn)
	if c.config.ConsumerARN != "" {
		return fmt.Errorf("consumerArn: %w; write the ARN of a registered consumer, or leave the field out to have one registered", gone)
	}
	if _, err := c.look(ctx, c.config.consumerName()); err != nil {
		return fmt.Errorf("%w; registering it again: %w", gone, err)
	}
	return fmt.Errorf("%w, and is being registered again", gone)
}

func isResourceNotFound(err error) bool {
	notFound := new(types.ResourceNotFoundException)
	return errors.As(err, &notFound)
}

func isAccessDenied(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && (api.ErrorCode() == "AccessDeniedException" || api.ErrorCode() == "AccessDenied")
}
