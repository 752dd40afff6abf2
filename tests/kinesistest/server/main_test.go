package main

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/leaktest"
)

func TestMain(m *testing.M) { leaktest.VerifyTestMain(m) }

// A user starts it, copies what it prints, and finds streams, consumers and records there.
func TestTheServerServesWhatItPrints(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"-address", "127.0.0.1:0", "-streams", "orders:2, clicks:1", "-consumers", "clicks:reader", "-put", "1000"}, writer, io.Discard)
		writer.Close()
	}()
	var url, arn, printed string
	lines := bufio.NewScanner(reader)
	for url == "" && lines.Scan() {
		printed += lines.Text() + "\n"
		switch fields := strings.Fields(lines.Text()); fields[0] {
		case "endpoint":
			url = strings.TrimSuffix(fields[1], ",")
		case "consumer":
			arn = fields[1]
		}
	}
	if !strings.HasPrefix(url, "http://127.0.0.1:") || !strings.Contains(arn, ":stream/clicks/consumer/reader:") || !strings.Contains(printed, "orders with 2 shards") {
		t.Fatalf("printed %q", printed)
	}
	go io.Copy(io.Discard, reader)

	local := kinesistest.NewServer() // for its client alone
	defer local.Close()
	c := local.Client(func(o *kinesis.Options) { o.BaseEndpoint = &url })
	shards, err := c.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("orders")})
	if err != nil || len(shards.Shards) != 2 {
		t.Errorf("listed %v: %v", shards, err)
	}
	out, err := c.SubscribeToShard(t.Context(), &kinesis.SubscribeToShardInput{ConsumerARN: &arn, ShardId: aws.String("shardId-000000000000"),
		StartingPosition: &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon}})
	if err != nil {
		t.Fatal(err)
	}
	event := (<-out.GetStream().Events()).(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent)
	if got := string(event.Value.Records[0].Data); got != `{"number":0}` {
		t.Errorf("the first record is %s", got)
	}
	out.GetStream().Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeServedIsSaid(t *testing.T) {
	busy := kinesistest.NewServer()
	defer busy.Close()
	for _, tc := range []struct{ args, want string }{
		{"-streams orders", "-streams"},
		{"-streams orders:x", "-streams"},
		{"-streams orders:0 -address 127.0.0.1:0", "orders"},
		{"-streams orders:1,orders:1 -address 127.0.0.1:0", "already exists"},
		{"-consumers orders:a,b -address 127.0.0.1:0", "-consumers"},
		{"-consumers nothing:a -address 127.0.0.1:0", "nothing"},
		{"-address " + strings.TrimPrefix(busy.URL(), "http://"), "-address"},
		{"-account 12", "-account"},
		{"-put -1", "-put"},
		{"-state-delay -1s", "-state-delay"},
		{"orders:4", "orders:4"},
		{"-nothing", "nothing"},
	} {
		err := run(t.Context(), strings.Fields(tc.args), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.args, err)
		}
	}
	var help strings.Builder
	if err := run(t.Context(), []string{"-help"}, io.Discard, &help); err == nil || !strings.Contains(help.String(), "-streams name:shards") {
		t.Errorf("help: %s", help.String())
	}
}
