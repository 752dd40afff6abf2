package kinesistest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

func register(t *testing.T, s *Server, c *kinesis.Client, name string) (*types.Consumer, error) {
	t.Helper()
	out, err := c.RegisterStreamConsumer(t.Context(), &kinesis.RegisterStreamConsumerInput{StreamARN: aws.String(s.streamARN("orders")), ConsumerName: &name})
	if err != nil {
		return nil, err
	}
	return out.Consumer, nil
}

func TestAConsumerIsCreatedThenActiveThenDeletedThenGone(t *testing.T) {
	s, c, clock := start(t, 1, WithConsumerDelay(10*time.Second))
	created, err := register(t, s, c, "reader")
	must(t, err)
	want := fmt.Sprintf("arn:aws:kinesis:us-east-1:000000000000:stream/orders/consumer/reader:%d", noon.Unix())
	if *created.ConsumerARN != want || *created.ConsumerName != "reader" || created.ConsumerStatus != types.ConsumerStatusCreating || !created.ConsumerCreationTimestamp.Equal(noon) {
		t.Errorf("registered as %+v, %s", created, *created.ConsumerARN)
	}
	byARN := &kinesis.DescribeStreamConsumerInput{ConsumerARN: created.ConsumerARN}
	byName := &kinesis.DescribeStreamConsumerInput{StreamARN: aws.String(s.streamARN("orders")), ConsumerName: aws.String("reader")}
	byAll := &kinesis.DescribeStreamConsumerInput{ConsumerARN: created.ConsumerARN, StreamARN: byName.StreamARN, ConsumerName: byName.ConsumerName}
	status := func(want types.ConsumerStatus) {
		t.Helper()
		for _, in := range []*kinesis.DescribeStreamConsumerInput{byARN, byName, byAll} {
			out, err := c.DescribeStreamConsumer(t.Context(), in)
			must(t, err)
			if d := out.ConsumerDescription; d.ConsumerStatus != want || *d.ConsumerARN != *created.ConsumerARN || *d.StreamARN != *byName.StreamARN {
				t.Errorf("described as %+v", d)
			}
		}
	}
	subscribing := func() error {
		_, err := c.SubscribeToShard(t.Context(), subscribeInput(*created.ConsumerARN, shard0, "LATEST"), OwnCodec)
		return err
	}
	status(types.ConsumerStatusCreating)
	wantError[*types.ResourceInUseException](t, subscribing())
	_, err = register(t, s, c, "reader")
	wantError[*types.ResourceInUseException](t, err)
	clock.Advance(10 * time.Second)
	status(types.ConsumerStatusActive)
	sub := subscribe(t, c, subscribeInput(*created.ConsumerARN, shard0, "LATEST"))
	clock.Advance(10 * time.Second)
	for range 2 {
		_, err = c.DeregisterStreamConsumer(t.Context(), &kinesis.DeregisterStreamConsumerInput{ConsumerARN: created.ConsumerARN})
		must(t, err)
	}
	status(types.ConsumerStatusDeleting)
	wantError[*types.ResourceInUseException](t, subscribing())
	_, _, err = sub.end() // a consumer that is DELETING can't read
	wantError[*types.ResourceNotFoundException](t, err)
	clock.Advance(10 * time.Second)
	wantError[*types.ResourceNotFoundException](t, subscribing())
	for _, in := range []*kinesis.DescribeStreamConsumerInput{byARN, byName, byAll} {
		_, err = c.DescribeStreamConsumer(t.Context(), in)
		wantError[*types.ResourceNotFoundException](t, err)
	}
}

func TestAConsumerRegisteredAgainIsAnotherOne(t *testing.T) {
	s, c, _ := start(t, 1)
	seen := map[string]bool{}
	for range 3 { // within one second of the clock
		created, err := register(t, s, c, "reader")
		must(t, err)
		arn := *created.ConsumerARN
		if seen[arn] {
			t.Errorf("%s again", arn)
		}
		for old := range seen {
			_, err := c.DescribeStreamConsumer(t.Context(), &kinesis.DescribeStreamConsumerInput{ConsumerARN: &old})
			wantError[*types.ResourceNotFoundException](t, err)
		}
		seen[arn] = true
		_, err = c.DeregisterStreamConsumer(t.Context(), &kinesis.DeregisterStreamConsumerInput{StreamARN: aws.String(s.streamARN("orders")), ConsumerName: aws.String("reader")})
		must(t, err)
	}
}

func TestAStreamHasTwentyConsumersOfWhichFiveAreCreated(t *testing.T) {
	s, c, clock := start(t, 1, WithConsumerDelay(time.Second))
	var names []string
	for i := range 20 {
		if i > 0 && i%5 == 0 {
			_, err := register(t, s, c, "one-too-many")
			wantError[*types.LimitExceededException](t, err)
			clock.Advance(time.Second)
		}
		names = append(names, fmt.Sprintf("reader-%02d", i))
		_, err := register(t, s, c, names[i])
		must(t, err)
	}
	clock.Advance(time.Second)
	_, err := register(t, s, c, "one-too-many")
	wantError[*types.LimitExceededException](t, err)

	for _, size := range []int32{1, 7, 20, 100} {
		in := &kinesis.ListStreamConsumersInput{StreamARN: aws.String(s.streamARN("orders")), MaxResults: &size}
		var got []string
		for pages := kinesis.NewListStreamConsumersPaginator(c, in); pages.HasMorePages(); {
			page, err := pages.NextPage(t.Context())
			must(t, err)
			for _, consumer := range page.Consumers {
				got = append(got, *consumer.ConsumerName)
			}
		}
		if !slices.Equal(got, names) {
			t.Errorf("by %d: %q", size, got)
		}
	}
	summary, err := c.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String("orders")})
	must(t, err)
	if n := *summary.StreamDescriptionSummary.ConsumerCount; n != 20 {
		t.Errorf("%d consumers", n)
	}
	// A stream with consumers is deleted by force only.
	_, err = c.DeleteStream(t.Context(), &kinesis.DeleteStreamInput{StreamName: aws.String("orders")})
	wantError[*types.ResourceInUseException](t, err)
	_, err = c.DeleteStream(t.Context(), &kinesis.DeleteStreamInput{StreamName: aws.String("orders"), EnforceConsumerDeletion: aws.Bool(true)})
	must(t, err)
}

func TestWhatNamesNoConsumerIsRefused(t *testing.T) {
	s, c, _, arn := fanOut(t, 1)
	must(t, s.CreateStream("other", 1))
	describe := func(in kinesis.DescribeStreamConsumerInput) error {
		_, err := c.DescribeStreamConsumer(t.Context(), &in)
		return err
	}
	stream, name := aws.String(s.streamARN("orders")), aws.String("reader")
	wantError[*types.InvalidArgumentException](t, describe(kinesis.DescribeStreamConsumerInput{StreamARN: stream}))
	wantError[*types.InvalidArgumentException](t, describe(kinesis.DescribeStreamConsumerInput{ConsumerName: name}))
	wantError[*types.InvalidArgumentException](t, describe(kinesis.DescribeStreamConsumerInput{ConsumerARN: &arn, ConsumerName: aws.String("writer")}))
	wantError[*types.InvalidArgumentException](t, describe(kinesis.DescribeStreamConsumerInput{ConsumerARN: &arn, StreamARN: aws.String(s.streamARN("other"))}))
	wantError[*types.ResourceNotFoundException](t, describe(kinesis.DescribeStreamConsumerInput{ConsumerName: name, StreamARN: aws.String(s.streamARN("other"))}))
	wantError[*types.ResourceNotFoundException](t, describe(kinesis.DescribeStreamConsumerInput{ConsumerARN: aws.String(arn + "0")}))
	wantError[*types.ResourceNotFoundException](t, describe(kinesis.DescribeStreamConsumerInput{ConsumerARN: aws.String(strings.Replace(arn, "orders", "nothing", 1))}))
	for _, bad := range []string{s.streamARN("orders"), s.streamARN("orders") + "/consumer/", s.streamARN("orders") + "/consumer/x", s.streamARN("orders") + "/consumer/x:y", "x"} {
		wantCode(t, describe(kinesis.DescribeStreamConsumerInput{ConsumerARN: &bad}), Validation)
	}
	_, err := register(t, s, c, "a name")
	wantCode(t, err, Validation)
	// Without a request:
	if again, err := s.RegisterConsumer("orders", "reader"); err != nil || again != arn {
		t.Errorf("registered again as %s: %v", again, err)
	}
	must(t, s.DeregisterConsumer(arn))
	if s.DeregisterConsumer(arn) == nil {
		t.Error("deregistered twice")
	}
	if _, err := s.RegisterConsumer("nothing", "reader"); err == nil {
		t.Error("registered with no stream")
	}
}

func FuzzConsumerARN(f *testing.F) {
	f.Add("arn:aws:kinesis:us-east-1:000000000000:stream/orders/consumer/reader:1700000000")
	f.Add("stream/consumer/:")
	f.Fuzz(func(t *testing.T, arn string) {
		stream, name, ok := splitConsumerARN(arn)
		if !ok {
			return
		}
		if rest, found := strings.CutPrefix(arn, stream+"/consumer/"+name+":"); !found || rest == "" || name == "" {
			t.Errorf("%q is split into %q and %q", arn, stream, name)
		}
	})
}
