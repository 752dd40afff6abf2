package kinesistest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

func TestEveryDocumentedExceptionArrivesAsTheSDKsOwnType(t *testing.T) {
	s, c, _ := start(t, 1)
	iterator := getIterator(t, c, iteratorInput(shard0, "LATEST"))
	fails := func(code string) error {
		s.Inject(Fault{Operation: "GetRecords", Code: code, Message: "because of " + code})
		_, err := c.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: iterator})
		wantCode(t, err, code)
		var response *awshttp.ResponseError
		if want := statusOf(code); !errors.As(err, &response) || response.HTTPStatusCode() != want || response.RequestID == "" {
			t.Errorf("%s does not come with status %d and a request ID: %v", code, want, err)
		}
		return err
	}
	wantError[*types.AccessDeniedException](t, fails(AccessDenied))
	wantError[*types.ExpiredIteratorException](t, fails(ExpiredIterator))
	wantError[*types.InvalidArgumentException](t, fails(InvalidArgument))
	wantError[*types.KMSAccessDeniedException](t, fails(KMSAccessDenied))
	wantError[*types.KMSDisabledException](t, fails(KMSDisabled))
	wantError[*types.KMSInvalidStateException](t, fails(KMSInvalidState))
	wantError[*types.KMSNotFoundException](t, fails(KMSNotFound))
	wantError[*types.KMSOptInRequired](t, fails(KMSOptInRequired))
	wantError[*types.KMSThrottlingException](t, fails(KMSThrottling))
	wantError[*types.ProvisionedThroughputExceededException](t, fails(ProvisionedThroughputExceeded))
	wantError[*types.ResourceNotFoundException](t, fails(ResourceNotFound))
	// These have no type in the SDK for this call, or in general: they are told by their code.
	for _, code := range []string{ExpiredNextToken, ExpiredToken, InternalFailure, LimitExceeded, ResourceInUse, ServiceUnavailable, Throttling, UnknownOperation, UnrecognizedClient, Validation} {
		fails(code)
	}
	s.Inject(Fault{Operation: "ListShards", Code: LimitExceeded})
	_, err := c.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("orders")})
	wantError[*types.LimitExceededException](t, err)
	get(t, c, iterator, 0) // nothing is left of it
}

func TestAnUnknownOperationIsRefused(t *testing.T) {
	_, c, _ := start(t, 0)
	_, err := c.ListTagsForStream(t.Context(), &kinesis.ListTagsForStreamInput{StreamName: aws.String("orders")})
	wantCode(t, err, UnknownOperation)
}

func TestTheSDKRetriesWhatItMay(t *testing.T) {
	s, _, _ := start(t, 1)
	c := s.Client(func(o *kinesis.Options) { o.Retryer = fast{aws.NopRetryer{}} })
	in := s.Inject(Fault{Operation: "DescribeStreamSummary", Code: InternalFailure, Count: 2})
	_, err := c.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String("orders")})
	must(t, err)
	if in.Hits() != 2 || s.Count("DescribeStreamSummary") != 3 {
		t.Errorf("%d hits, %d calls", in.Hits(), s.Count("DescribeStreamSummary"))
	}
}

// fast retries without a pause.
type fast struct{ aws.NopRetryer }

func (fast) IsErrorRetryable(error) bool                  { return true }
func (fast) MaxAttempts() int                             { return 3 }
func (fast) RetryDelay(int, error) (time.Duration, error) { return 0, nil }
func (fast) GetRetryToken(context.Context, error) (func(error) error, error) {
	return func(error) error { return nil }, nil
}

func TestAFaultHitsTheCallsItNamesAndNoOthers(t *testing.T) {
	s, c, _ := start(t, 2)
	must(t, s.CreateStream("other", 2))
	iterators := map[string]*string{}
	for _, shard := range []string{shard0, shard1} {
		iterators[shard] = getIterator(t, c, iteratorInput(shard, "LATEST"))
	}
	in := iteratorInput(shard1, "LATEST")
	in.StreamName = aws.String("other")
	elsewhere := getIterator(t, c, in)

	fault := s.Inject(Fault{Operation: "GetRecords", Stream: "orders", Shard: shard1, Skip: 1, Count: 2})
	call := func(iterator *string) bool {
		_, err := c.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: iterator})
		return err != nil
	}
	select {
	case <-fault.Hit():
		t.Error("hit before any call")
	default:
	}
	for i, want := range []bool{false, true, true, false} {
		if call(iterators[shard0]) || call(elsewhere) {
			t.Error("another shard's call is hit")
		}
		if got := call(iterators[shard1]); got != want {
			t.Errorf("call %d fails: %v", i, got)
		}
	}
	<-fault.Hit()
	counts := s.Counts()
	if counts[Call{"GetRecords", "orders", shard1}] != 4 || counts[Call{"GetRecords", "other", shard1}] != 4 || counts[Call{"GetShardIterator", "orders", shard0}] != 1 {
		t.Errorf("counted %v", counts)
	}

	forever := s.Inject(Fault{Operation: "GetRecords", Count: -1})
	for range 5 {
		if !call(elsewhere) {
			t.Error("a call passes")
		}
	}
	forever.Remove()
	if call(elsewhere) {
		t.Error("a removed fault hits")
	}
	s.Inject(Fault{Count: -1})
	s.Inject(Fault{Count: -1, Code: AccessDenied})
	s.ClearFaults()
	if call(elsewhere) {
		t.Error("a cleared fault hits")
	}
}

func TestAHangingCallEndsWithItsClientItsFaultOrItsServer(t *testing.T) {
	s, c, _ := start(t, 1)
	call := func(ctx context.Context) error {
		_, err := c.ListStreams(ctx, nil)
		return err
	}
	// by its client
	fault := s.Inject(Fault{Kind: Hang})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-fault.Hit()
		cancel()
	}()
	if err := call(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// by its fault: the answer comes late
	fault = s.Inject(Fault{Kind: Hang})
	go func() {
		<-fault.Hit()
		fault.Remove()
	}()
	must(t, call(t.Context()))
	// by its server
	fault = s.Inject(Fault{Kind: Hang})
	var stopped sync.WaitGroup
	stopped.Go(func() {
		<-fault.Hit()
		s.Stop()
	})
	if call(t.Context()) == nil {
		t.Error("a stopped server has answered")
	}
	stopped.Wait()
}

func TestACutAnswerIsDoneButLost(t *testing.T) {
	s, c, _ := start(t, 1)
	for _, bytes := range []int{0, 1, 40} {
		before := len(s.Records("orders")[shard0])
		s.Inject(Fault{Operation: "PutRecord", Kind: Cut, Bytes: bytes})
		_, err := c.PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: aws.String("orders"), PartitionKey: aws.String("k"), Data: []byte("x")})
		if err == nil {
			t.Errorf("cut after %d bytes: no error", bytes)
		}
		if got := len(s.Records("orders")[shard0]); got != before+1 {
			t.Errorf("cut after %d bytes: %d records are stored", bytes, got-before)
		}
	}
}

func TestSlowBytesArriveWhole(t *testing.T) {
	s, c, _ := start(t, 1)
	put(t, s, "k", "a", "b")
	iterator := getIterator(t, c, iteratorInput(shard0, "TRIM_HORIZON"))
	s.Inject(Fault{Operation: "GetRecords", Kind: Trickle, Bytes: 16, Delay: 100 * time.Microsecond})
	if got := texts(get(t, c, iterator, 0).Records); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("read %q", got)
	}
	// A client that gives up in the middle leaves nothing behind.
	fault := s.Inject(Fault{Operation: "GetRecords", Kind: Trickle, Delay: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-fault.Hit()
		cancel()
	}()
	_, err := c.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator})
	if err == nil {
		t.Error("no error")
	}
	s.Inject(Fault{Operation: "GetRecords", Kind: Slow, Delay: time.Millisecond})
	get(t, c, iterator, 0)
}

func TestTheExpireFaultHitsAllIteratorsHandedOutBefore(t *testing.T) {
	s, c, _ := start(t, 2)
	a := getIterator(t, c, iteratorInput(shard0, "LATEST"))
	b := getIterator(t, c, iteratorInput(shard1, "LATEST"))
	s.Inject(Fault{Operation: "GetRecords", Shard: shard0, Kind: Expire})
	for _, iterator := range []*string{a, b} {
		_, err := c.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: iterator})
		wantError[*types.ExpiredIteratorException](t, err)
	}
	get(t, c, getIterator(t, c, iteratorInput(shard0, "LATEST")), 0)
}

func TestARestartedServerHasItsAddressItsStreamsAndItsIterators(t *testing.T) {
	s, c, _ := start(t, 1)
	put(t, s, "k", "before")
	iterator := getIterator(t, c, iteratorInput(shard0, "TRIM_HORIZON"))
	url := s.URL()
	for range 3 {
		s.Stop()
		s.Stop()
		if _, err := c.ListStreams(t.Context(), nil); err == nil {
			t.Fatal("a stopped server has answered")
		}
		must(t, s.Restart())
		must(t, s.Restart())
		if got := texts(get(t, c, iterator, 0).Records); !slices.Equal(got, []string{"before"}) || s.URL() != url {
			t.Fatalf("after the restart: %q from %s", got, s.URL())
		}
	}
	s.Close()
	s.Close()
	if s.Restart() == nil {
		t.Error("a closed server has restarted")
	}
}

func TestCallsUnderWayDoNotOutliveStop(t *testing.T) {
	s, c, _ := start(t, 1)
	for range 5 {
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for {
					if _, err := c.ListStreams(t.Context(), nil); err != nil {
						return
					}
				}
			})
		}
		s.Stop()
		callers.Wait()
		must(t, s.Restart())
	}
}

func TestHTTP2WithPriorKnowledge(t *testing.T) {
	s, _, _ := start(t, 1)
	put(t, s, "k", "a")
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	c := s.Client(func(o *kinesis.Options) { o.HTTPClient = &http.Client{Transport: transport} })
	if got := read(t, c, iteratorInput(shard0, "TRIM_HORIZON")); !slices.Equal(got, []string{"a"}) {
		t.Errorf("read %q", got)
	}
	s.Inject(Fault{Operation: "ListStreams", Kind: Cut, Bytes: 3})
	if _, err := c.ListStreams(t.Context(), nil); err == nil {
		t.Error("cut: no error")
	}
}
