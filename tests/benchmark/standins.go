package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"strings"

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
type addresses struct {
	Kinesis, DynamoDB, Pulsar string
	Authority                 string // the certificate to trust, PEM; empty without TLS
}

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
	flags.BoolVar(&c.fanOut, "fan-out", false, "")
	properties := flags.Bool("properties", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var options []kinesistest.Option
	if c.fanOut {
		options = append(options, kinesistest.WithTLS())
	}
	k := kinesistest.NewServer(options...)
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
	at := addresses{Kinesis: k.URL(), DynamoDB: d.URL(), Pulsar: p.URL()}
	if c.fanOut {
		if at.Authority, err = authority(k); err != nil {
			return err
		}
	}
	if err := answer.Encode(at); err != nil {
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

// authority is the certificate of a server with TLS, which is its own authority.
func authority(k *kinesistest.Server) (string, error) {
	conn, err := tls.Dial("tcp", strings.TrimPrefix(k.URL(), "https://"), &tls.Config{RootCAs: k.CertPool()})
	if err != nil {
		return "", fmt.Errorf("asking for the certificate: %w", err)
	}
	defer conn.Close()
	certificate := conn.ConnectionState().PeerCertificates[0]
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})), nil
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
