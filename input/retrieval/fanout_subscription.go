package retrieval

import (
	"context"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"
)

// Subscription is one answered SubscribeToShard call. It is used by one goroutine.
type Subscription interface {
	// Next waits for the next event, io.EOF when the subscription ended without an error. That says nothing about the
	// shard: a connection lost over HTTP/1.1 looks the same. When ctx ends, the event may be waited for again.
	Next(ctx context.Context) (*types.SubscribeToShardEvent, error)
	// Close ends the subscription and waits for what it has running. It may be called again.
	Close()
}

// FanOutAPI is what a subscription needs of *kinesis.Client.
type FanOutAPI interface {
	SubscribeToShard(context.Context, *kinesis.SubscribeToShardInput, ...func(*kinesis.Options)) (*kinesis.SubscribeToShardOutput, error)
}

// Subscribe makes one SubscribeToShard call. The subscription lives until it is closed, Kinesis ends it (after five
// minutes at the latest), or ctx ends.
func Subscribe(ctx context.Context, api FanOutAPI, consumerARN, shard string, start *types.StartingPosition) (Subscription, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &subscription{cancel: cancel, wanted: make(chan struct{}, 1), closed: make(chan struct{})}
	out, err := api.SubscribeToShard(ctx, &kinesis.SubscribeToShardInput{
		ConsumerARN: &consumerARN, ShardId: &shard, StartingPosition: start,
	}, func(o *kinesis.Options) {
		// A retry would be a call that the spacing does not know of.
		o.Retryer = aws.NopRetryer{}
		// A protocol per call: a client's own is shared by its subscriptions, which then decode into one buffer.
		o.Protocol = &onDemand{ClientProtocol: awsjson.New11(schemas.Kinesis_20131202), wanted: s.wanted, closed: s.closed}
	})
	if err != nil {
		cancel()
		return nil, err
	}
	s.stream = out.GetStream()
	return s, nil
}

// onDemand lets the SDK decode an event when somebody asks for it. Left to itself it has two decoded events lying ready in
// each subscription, of any size, and no budget knows of them.
type onDemand struct {
	smithyhttp.ClientProtocol
	wanted, closed <-chan struct{}
}

// DeserializeEventMessage implements the protocol. The SDK calls it in the goroutine it has for each subscription.
func (p *onDemand) DeserializeEventMessage(schema *smithy.Schema, registry *smithy.TypeRegistry, r io.Reader) (smithy.Deserializable, error) {
	select {
	case <-p.wanted:
	case <-p.closed:
		return nil, io.EOF
	}
	return p.ClientProtocol.DeserializeEventMessage(schema, registry, r)
}

// subscription is a Subscription through the SDK.
type subscription struct {
	cancel context.CancelFunc
	stream *kinesis.SubscribeToShardEventStream
	wanted chan struct{} // one token for each event to be decoded
	asked  bool          // a token was put in, and its event not taken yet
	closed chan struct{} // closed by Close
	over   bool
}

func (s *subscription) Next(ctx context.Context) (*types.SubscribeToShardEvent, error) {
	for {
		if !s.asked {
			s.wanted <- struct{}{} // never blocks: it has room for one
			s.asked = true
		}
		select {
		case member, ok := <-s.stream.Events():
			if !ok {
				if err := s.stream.Err(); err != nil {
					return nil, err
				}
				return nil, io.EOF
			}
			s.asked = false
			if event, ok := member.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent); ok {
				return &event.Value, nil
			}
			// Kinesis has grown a kind of event that the SDK does not know. It carries no records of ours.
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *subscription) Close() {
	if s.over {
		return
	}
	s.over = true
	close(s.closed)
	s.cancel() // ends a read of the connection that is under way, before anybody waits for it
	_ = s.stream.Close()
	for range s.stream.Events() { // closed by the SDK when its goroutines are through
	}
}
