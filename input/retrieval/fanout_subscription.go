package retrieval

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"
	"golang.org/x/sync/semaphore"
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

// Decoding bounds how many bytes of events are decoded at one time, over all subscriptions. The SDK takes some four times
// an event's size while it decodes it, which no budget knows of; all shards of a stream, at their first events, would take
// that at once.
type Decoding struct {
	room  *semaphore.Weighted
	bytes int64
}

// NewDecoding returns a bound of so many bytes.
func NewDecoding(bytes int64) *Decoding {
	return &Decoding{room: semaphore.NewWeighted(bytes), bytes: bytes}
}

// begin waits for room for an event of that size. A small one never waits.
func (d *Decoding) begin(ctx context.Context, size int64) (end func(), err error) {
	const small = 64 << 10
	if size <= small {
		return func() {}, nil
	}
	size = min(size, d.bytes)
	if err := d.room.Acquire(ctx, size); err != nil {
		return nil, err
	}
	return func() { d.room.Release(size) }, nil
}

// Subscribe makes one SubscribeToShard call. The subscription lives until it is closed, Kinesis ends it (after five
// minutes at the latest), or ctx ends.
func Subscribe(ctx context.Context, api FanOutAPI, decoding *Decoding, consumerARN, shard string, start *types.StartingPosition) (Subscription, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &subscription{cancel: cancel, wanted: make(chan struct{}, 1)}
	out, err := api.SubscribeToShard(ctx, &kinesis.SubscribeToShardInput{
		ConsumerARN: &consumerARN, ShardId: &shard, StartingPosition: start,
	}, func(o *kinesis.Options) {
		// A retry would be a call that the spacing does not know of.
		o.Retryer = aws.NopRetryer{}
		// A protocol per call: a client's own is shared by its subscriptions, which then decode into one buffer.
		o.Protocol = &onDemand{ClientProtocol: awsjson.New11(schemas.Kinesis_20131202), ctx: ctx, wanted: s.wanted, decoding: decoding}
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
	ctx      context.Context // the subscription's
	wanted   <-chan struct{}
	decoding *Decoding
}

// DeserializeEventMessage implements the protocol. The SDK calls it in the goroutine it has for each subscription.
func (p *onDemand) DeserializeEventMessage(schema *smithy.Schema, registry *smithy.TypeRegistry, r io.Reader) (smithy.Deserializable, error) {
	select {
	case <-p.wanted:
	case <-p.ctx.Done():
		return nil, p.ctx.Err()
	}
	// A frame begins with its length. Until it comes, which takes seconds at the tip of a stream, no room is held.
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF // as the SDK takes a frame that is cut off
		}
		return nil, err
	}
	end, err := p.decoding.begin(p.ctx, int64(binary.BigEndian.Uint32(length[:])))
	if err != nil {
		return nil, err
	}
	defer end()
	return p.ClientProtocol.DeserializeEventMessage(schema, registry, io.MultiReader(bytes.NewReader(length[:]), r))
}

// subscription is a Subscription through the SDK.
type subscription struct {
	cancel context.CancelFunc
	stream *kinesis.SubscribeToShardEventStream
	wanted chan struct{} // one token for each event to be decoded
	asked  bool          // a token was put in, and its event not taken yet
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
	s.cancel() // ends a read of the connection that is under way, before anybody waits for it
	_ = s.stream.Close()
	for range s.stream.Events() { // closed by the SDK when its goroutines are through
	}
}
