package leases

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
)

// Consumer is a registered consumer of enhanced fan-out. AWS charges for each by the hour and shard, used or not, and a stream
// has a limited number of them.
type Consumer struct {
	Name    string    `json:"name"`
	ARN     string    `json:"arn"`
	Status  string    `json:"status"`
	Created time.Time `json:"created"`
}

// Consumers lists all consumers of the stream, whoever registered them.
func (s Source) Consumers(ctx context.Context) (all []Consumer, err error) {
	arn, _, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	in := &kinesis.ListStreamConsumersInput{StreamARN: &arn}
	for {
		out, err := s.Kinesis.ListStreamConsumers(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("listing the consumers of %s: %w", s.Stream, err)
		}
		for _, c := range out.Consumers {
			all = append(all, Consumer{
				Name: aws.ToString(c.ConsumerName), ARN: aws.ToString(c.ConsumerARN), Status: string(c.ConsumerStatus),
				Created: aws.ToTime(c.ConsumerCreationTimestamp),
			})
		}
		if in.NextToken = out.NextToken; aws.ToString(in.NextToken) == "" {
			return all, nil
		}
	}
}

// Deregister removes a consumer. Whoever is subscribed by it is cut off.
func (s Source) Deregister(ctx context.Context, c Consumer) error {
	if _, err := s.Kinesis.DeregisterStreamConsumer(ctx, &kinesis.DeregisterStreamConsumerInput{ConsumerARN: &c.ARN}); err != nil {
		return fmt.Errorf("deregistering consumer %s: %w", c.Name, err)
	}
	return nil
}
