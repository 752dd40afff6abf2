package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

const (
	roleStandIns = "stand-ins"

	keysPerShard = 64
	// perResponse is how many records the stand-in gives at most: a busy stream's answer, well below the API's bounds.
	// The bare loops, which set no limit, would otherwise decode 10 MiB at a time.
	perResponse = 1000
)

// addresses is the first line that the stand-ins write.
type addresses struct{ Kinesis, DynamoDB, Pulsar string }

// Requests to the stand-ins, one a line; each is answered with a line of JSON.
const (
	askTally  = "tally"  // a tally
	askLeases = "leases" // map[string]string: checkpoints by lease key
)

// serveStandIns is the process of the stand-ins. It lives until its input ends, so it never outlives its parent.
func serveStandIns(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet(roleStandIns, flag.ContinueOnError)
	c := testCase{}
	flags.IntVar(&c.shards, "shards", 4, "")
	flags.IntVar(&c.recordSize, "record-size", 1024, "")
	flags.IntVar(&c.partitions, "partitions", 4, "")
	flags.Uint64Var(&c.perShard, "per-shard", 0, "")
	flags.IntVar(&c.sinkRate, "sink-rate", 0, "")
	properties := flags.Bool("properties", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	k := kinesistest.NewServer()
	defer k.Close()
	replay, err := k.CreateReplay(streamName, kinesistest.ReplayOptions{
		Shards: c.shards, RecordSize: c.recordSize, PerShard: c.perShard, PerResponse: perResponse, Keys: keysPerShard,
	})
	if err != nil {
		return err
	}
	d := dynamotest.NewServer()
	defer d.Close()
	check := newChecker(replay, c.shards, keysPerShard, *properties)
	p := pulsartest.NewBroker(pulsartest.Sink(check.visit))
	defer p.Close()
	if err := p.CreatePartitionedTopic(topicName, c.partitions); err != nil {
		return err
	}
	p.SlowReads(c.sinkRate)

	answer := json.NewEncoder(out)
	if err := answer.Encode(addresses{Kinesis: k.URL(), DynamoDB: d.URL(), Pulsar: p.URL()}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		switch lines.Text() {
		case askTally:
			t := check.tally()
			for _, err := range p.Problems() {
				if len(t.Problems) < maxProblems {
					t.Problems = append(t.Problems, err.Error())
				}
			}
			err = answer.Encode(t)
		case askLeases:
			var leases map[string]string
			if leases, err = checkpoints(d); err == nil {
				err = answer.Encode(leases)
			}
		default:
			err = fmt.Errorf("%s: unknown request %q", roleStandIns, lines.Text())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkpoints reads the lease table.
func checkpoints(d *dynamotest.Server) (map[string]string, error) {
	page, err := d.Client().Scan(context.Background(), &dynamodb.ScanInput{TableName: aws.String(tableName)})
	if err != nil {
		return nil, fmt.Errorf("reading the lease table: %w", err)
	}
	found := map[string]string{}
	for _, item := range page.Items {
		key, isLease := item["leaseKey"].(*types.AttributeValueMemberS)
		checkpoint, ok := item["checkpoint"].(*types.AttributeValueMemberS)
		if isLease && ok {
			found[key.Value] = checkpoint.Value
		}
	}
	return found, nil
}
