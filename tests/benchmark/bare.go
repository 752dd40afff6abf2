package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof" // the pipeline has it too, and it gives the measurements
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
	api := kinesis.New(kinesis.Options{
		Region: "us-east-1", BaseEndpoint: kinesisURL,
		Credentials: credentials.NewStaticCredentialsProvider("benchmark", "benchmark", ""),
		HTTPClient:  &http.Client{Transport: kinesistest.WholeBodies(transport)},
	})
	shards, err := api.ListShards(ctx, &kinesis.ListShardsInput{StreamName: aws.String(streamName)})
	if err != nil {
		return err
	}
	failed := make(chan error, len(shards.Shards))
	for _, shard := range shards.Shards {
		go func() {
			if err := bareShard(ctx, api, *shard.ShardId, producer, *properties); err != nil {
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

func bareShard(ctx context.Context, api *kinesis.Client, shard string, producer pulsar.Producer, properties bool) error {
	start, err := api.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
		StreamName: aws.String(streamName), ShardId: &shard, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})
	if err != nil {
		return err
	}
	var failure atomic.Pointer[error]
	receive := func(_ pulsar.MessageID, _ *pulsar.ProducerMessage, err error) {
		if err != nil {
			failure.Store(&err)
		}
	}
	for iterator := start.ShardIterator; iterator != nil && ctx.Err() == nil; {
		read, err := api.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator})
		if err != nil {
			return err
		}
		for i := range read.Records {
			r := &read.Records[i]
			m := &pulsar.ProducerMessage{Key: *r.PartitionKey, Payload: r.Data}
			if properties {
				m.Properties = map[string]string{
					"kinesis.arrival.timestamp": r.ApproximateArrivalTimestamp.UTC().Format(time.RFC3339Nano),
					"kinesis.encryption.type":   "NONE",
					"kinesis.partition.key":     *r.PartitionKey,
					"kinesis.sequence.number":   *r.SequenceNumber,
				}
			}
			producer.SendAsync(context.Background(), m, receive)
		}
		if err := failure.Load(); err != nil {
			return fmt.Errorf("sending: %w", *err)
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
