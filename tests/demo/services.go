package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

// Names in config_examples/demo.yaml.
const (
	streamName = "demo"
	topicName  = "public/default/demo"
	tableName  = "kinesis-pulsar-demo"
)

// partitions is how many the topic has.
const partitions = 4

// services are what the pipeline talks to.
type services struct {
	kinesis *kinesistest.Server
	leases  *dynamodb.Client
	topic   topic

	kinesisURL, dynamodbURL, pulsarURL string
	// described says what runs, for people.
	described string

	closers []func()
}

// close ends the services, the last started first.
func (s *services) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
	s.closers = nil
}

// Values of -services.
const (
	servicesAuto     = "auto"
	servicesReal     = "real"
	servicesEmbedded = "embedded"
)

// startServices starts what -services asks for. The services end with close, not with ctx.
func startServices(ctx context.Context, which string, shards int, say func(string)) (*services, error) {
	if which == servicesAuto && stack.Required() {
		which = servicesReal
	}
	if which == servicesAuto {
		if why := stack.Unavailable(); why != "" {
			say("The real services can't run here: " + why)
			which = servicesEmbedded
		}
	}
	s := &services{}
	// The limits of a shard hold as on AWS, so that what is seen is a pace that a real stream has.
	s.kinesis = kinesistest.NewServer(kinesistest.WithReadLimits())
	s.closers = append(s.closers, s.kinesis.Close)
	s.kinesisURL = s.kinesis.URL()
	if err := s.kinesis.CreateStream(streamName, shards); err != nil {
		s.close()
		return nil, err
	}
	if which != servicesEmbedded {
		err := s.startReal(ctx, say)
		if err == nil {
			return s, nil
		}
		if which == servicesReal || !errors.Is(err, stack.ErrUnavailable) {
			s.close()
			return nil, err
		}
		say("The real services can't run here: " + err.Error())
	}
	if err := s.startEmbedded(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// startReal starts Apache Pulsar and DynamoDB Local beside each other. When one can't be had, neither stays.
func (s *services) startReal(ctx context.Context, say func(string)) error {
	var p *stack.PulsarService
	var d *stack.DynamoDBService
	starts, ctx := errgroup.WithContext(ctx)
	starts.Go(func() (err error) {
		p, err = stack.StartPulsar(ctx, stack.PulsarOptions{Progress: say})
		return err
	})
	starts.Go(func() (err error) {
		d, err = stack.StartDynamoDB(ctx, stack.DynamoDBOptions{Progress: say})
		return err
	})
	err := starts.Wait()
	closeBoth := func() {
		if d != nil {
			_ = d.Close()
		}
		if p != nil {
			_ = p.Close()
		}
	}
	var t *realTopic
	if err == nil {
		// The group's context has ended with the group.
		if err = p.CreatePartitionedTopic(context.WithoutCancel(ctx), topicName, partitions); err == nil {
			t, err = newRealTopic(p.ServiceURL())
		}
	}
	if err != nil {
		closeBoth()
		return fmt.Errorf("starting the real services: %w", err)
	}
	s.leases, s.topic = d.Client(), t
	s.dynamodbURL, s.pulsarURL = d.URL(), p.ServiceURL()
	s.described = "Apache Pulsar and DynamoDB Local, both real; Kinesis is a stand-in with the limits of AWS"
	s.closers = append(s.closers, closeBoth, t.close)
	return nil
}

// startEmbedded starts the stand-ins in this process.
func (s *services) startEmbedded() error {
	d := dynamotest.NewServer()
	s.closers = append(s.closers, d.Close)
	b := pulsartest.NewBroker()
	s.closers = append(s.closers, b.Close)
	if err := b.CreatePartitionedTopic(topicName, partitions); err != nil {
		return fmt.Errorf("creating the topic: %w", err)
	}
	s.leases, s.topic = d.Client(), &embeddedTopic{broker: b}
	s.dynamodbURL, s.pulsarURL = d.URL(), b.URL()
	s.described = "embedded stand-ins for Kinesis, DynamoDB and Pulsar, in this process"
	return nil
}

// readLeases reads the lease table as it is now, by shard; nothing when there is no table yet.
func (s *services) readLeases(ctx context.Context) (map[string]lease, error) {
	consistent, table := true, tableName
	leases := map[string]lease{}
	pages := dynamodb.NewScanPaginator(s.leases, &dynamodb.ScanInput{TableName: &table, ConsistentRead: &consistent})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		var missing *types.ResourceNotFoundException
		if errors.As(err, &missing) {
			return leases, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the lease table: %w", err)
		}
		for _, item := range page.Items {
			leases[stringOf(item["leaseKey"])] = lease{Owner: stringOf(item["leaseOwner"]), Checkpoint: stringOf(item["checkpoint"])}
		}
	}
	return leases, nil
}

func stringOf(v types.AttributeValue) string {
	if s, ok := v.(*types.AttributeValueMemberS); ok {
		return s.Value
	}
	return ""
}
