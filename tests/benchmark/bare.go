package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof" // the pipeline has it too, and it gives the measurements
	"os"
	"sync/atomic"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

const roleBareLoop = "bare-loop"

// runBareLoop reads each shard in a goroutine and sends what comes, with both libraries as they are. No leases, no
// checkpoints, no acks, no bounds, nothing done about failures: an error ends it. It ends with its input or with ctx.
//
// It differs from the shortest program in one thing, which is to its advantage: WholeBodies, without which the SDK loses
// connections to a server this near.
func runBareLoop(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet(roleBareLoop, flag.ContinueOnError)
	kinesisURL := flags.String("kinesis", "", "")
	pulsarURL := flags.String("pulsar", "", "")
	properties := flags.Bool("properties", false, "")
	fanOut := flags.Bool("fan-out", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	go func() { _ = http.Serve(listener, nil) }() // ends with the listener
	if err := json.NewEncoder(out).Encode("http://" + listener.Addr().String()); err != nil {
		return err
	}

	client, err := pulsar.NewClient(pulsar.ClientOptions{URL: *pulsarURL, Logger: log.DefaultNopLogger()})
	if err != nil {
		return err
	}
	producer, err := client.CreateProducer(pulsar.ProducerOptions{Topic: topicName})
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 256
	if transport.TLSClientConfig, err = trust(os.Getenv("AWS_CA_BUNDLE")); err != nil {
		return err
	}
	api := kinesis.New(kinesis.Options{
		Region: "us-east-1", BaseEndpoint: kinesisURL,
		Credentials: credentials.NewStaticCredentialsProvider("benchmark", "benchmark", ""),
		HTTPClient:  &http.Client{Transport: kinesistest.WholeBodies(transport)},
	})
	shards, err := api.ListShards(ctx, &kinesis.ListShardsInput{StreamName: aws.String(streamName)})
	if err != nil {
		return err
	}
	read := func(shard string) error { return bareShard(ctx, api, shard, producer, *properties) }
	if *fanOut {
		consumer, err := registerBare(ctx, api)
		if err != nil {
			return err
		}
		read = func(shard string) error { return bareSubscription(ctx, api, consumer, shard, producer, *properties) }
	}
	failed := make(chan error, len(shards.Shards))
	for _, shard := range shards.Shards {
		go func() {
			if err := read(*shard.ShardId); err != nil {
				failed <- err
			}
		}()
	}
	// The process just ends: the client closes a producer while there are still messages to be sent on its way, which a
	// broker takes for a fault.
	select {
	case err := <-failed:
		if ctx.Err() == nil {
			return err
		}
	case <-ctx.Done():
	}
	return nil
}

// trust is what the certificates in a file vouch for; without one, what the system trusts.
func trust(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return &tls.Config{RootCAs: pool}, nil
}

// bareSender sends records; it is one shard's.
type bareSender struct {
	producer   pulsar.Producer
	properties bool
	failure    atomic.Pointer[error]
}

func (s *bareSender) received(_ pulsar.MessageID, _ *pulsar.ProducerMessage, err error) {
	if err != nil {
		s.failure.Store(&err)
	}
}

// send returns the error of an earlier record, if one could not be sent.
func (s *bareSender) send(records []types.Record) error {
	for i := range records {
		r := &records[i]
		m := &pulsar.ProducerMessage{Key: *r.PartitionKey, Payload: r.Data}
		if s.properties {
			m.Properties = map[string]string{
				"kinesis.arrival.timestamp": r.ApproximateArrivalTimestamp.UTC().Format(time.RFC3339Nano),
				"kinesis.encryption.type":   "NONE",
				"kinesis.partition.key":     *r.PartitionKey,
				"kinesis.sequence.number":   *r.SequenceNumber,
			}
		}
		s.producer.SendAsync(context.Background(), m, s.received)
	}
	if err := s.failure.Load(); err != nil {
		return fmt.Errorf("sending: %w", *err)
	}
	return nil
}

// bareShard polls.
func bareShard(ctx context.Context, api *kinesis.Client, shard string, producer pulsar.Producer, properties bool) error {
	start, err := api.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
		StreamName: aws.String(streamName), ShardId: &shard, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})
	if err != nil {
		return err
	}
	s := &bareSender{producer: producer, properties: properties}
	for iterator := start.ShardIterator; iterator != nil && ctx.Err() == nil; {
		read, err := api.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator})
		if err != nil {
			return err
		}
		if err := s.send(read.Records); err != nil {
			return err
		}
		if len(read.Records) == 0 {
			// The end of a short stream: not worth a busy loop.
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
		iterator = read.NextShardIterator
	}
	return nil
}

// registerBare returns the ARN of a consumer. The stand-in's is ACTIVE at once.
func registerBare(ctx context.Context, api *kinesis.Client) (string, error) {
	stream, err := api.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: aws.String(streamName)})
	if err != nil {
		return "", err
	}
	registered, err := api.RegisterStreamConsumer(ctx, &kinesis.RegisterStreamConsumerInput{
		StreamARN: stream.StreamDescriptionSummary.StreamARN, ConsumerName: aws.String(tableName),
	})
	if err != nil {
		return "", err
	}
	return *registered.Consumer.ConsumerARN, nil
}

// bareSubscription reads a shard with enhanced fan-out, and subscribes again whenever a subscription ends. It differs from
// the shortest program in OwnCodec: subscriptions of one client else decode into each other's buffer.
func bareSubscription(ctx context.Context, api *kinesis.Client, consumer, shard string, producer pulsar.Producer, properties bool) error {
	s := &bareSender{producer: producer, properties: properties}
	start := &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon}
	for ctx.Err() == nil {
		out, err := api.SubscribeToShard(ctx, &kinesis.SubscribeToShardInput{
			ConsumerARN: &consumer, ShardId: &shard, StartingPosition: start,
		}, kinesistest.OwnCodec)
		if err != nil {
			return err
		}
		stream := out.GetStream()
		for member := range stream.Events() {
			event, ok := member.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent)
			if !ok {
				continue
			}
			if err := s.send(event.Value.Records); err != nil {
				return err
			}
			start = &types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: event.Value.ContinuationSequenceNumber}
		}
		if err := stream.Err(); err != nil {
			return err
		}
		// One call a second for a shard is allowed.
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}
