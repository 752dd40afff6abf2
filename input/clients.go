package input

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/smithy-go/logging"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/credentials"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/wholebody"
)

// fallbackRegion signs requests when every endpoint is given and no region is known anywhere: emulators do not care,
// and the SDK refuses to sign without one.
const fallbackRegion = "us-east-1"

// clients are the AWS clients of one input, over one transport.
type clients struct {
	kinesis   *kinesis.Client
	dynamodb  *dynamodb.Client
	transport *http.Transport
	region    string
}

// newClients makes no request, except that the default credentials chain may look at files.
func newClients(ctx context.Context, c Config, log *service.Logger) (*clients, error) {
	// The SDK's own kind of client first: it adds the certificates of AWS_CA_BUNDLE to that, and refuses any other.
	buildable := newBuildable()
	options := []func(*awsconfig.LoadOptions) error{awsconfig.WithHTTPClient(buildable), awsconfig.WithLogger(sdkLog{log})}
	if c.Region != "" {
		options = append(options, awsconfig.WithRegion(c.Region))
	}
	provider, err := credentials.New(credentials.Options{
		PluginName: c.CredentialPluginName, PluginParam: c.CredentialPluginParam, Region: c.Region, HTTPClient: buildable, Logger: sdkLog{log},
	})
	if err != nil {
		return nil, err
	}
	options = append(options, awsconfig.WithCredentialsProvider(provider))
	shared, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	if shared.Region == "" {
		shared.Region = fallbackRegion
	}
	if completed, ok := shared.HTTPClient.(*awshttp.BuildableClient); ok {
		buildable = completed
	}
	transport := buildable.GetTransport()
	shared.HTTPClient = &http.Client{Transport: wholebody.Transport(transport)}
	shared.Credentials = credentials.Explained(shared.Credentials)
	return &clients{
		kinesis: kinesis.NewFromConfig(shared, func(o *kinesis.Options) {
			// Only Kinesis': a lease must never wait for records to be decoded (I9).
			o.HTTPClient = &http.Client{Transport: unreachable{newBoundedResponses(wholebody.Transport(transport)), fieldOf(c.Endpoint, "awsEndpoint")}}
			if c.Endpoint != "" {
				o.BaseEndpoint = aws.String(c.Endpoint)
			}
		}),
		dynamodb: dynamodb.NewFromConfig(shared, func(o *dynamodb.Options) {
			o.HTTPClient = &http.Client{Transport: unreachable{wholebody.Transport(transport), fieldOf(c.DynamoEndpoint, "dynamoEndpoint")}}
			if c.DynamoEndpoint != "" {
				o.BaseEndpoint = aws.String(c.DynamoEndpoint)
			}
		}),
		transport: transport,
		region:    shared.Region,
	}, nil
}

// fieldOf is the field of an endpoint that is set.
func fieldOf(endpoint, field string) string {
	if endpoint == "" {
		return ""
	}
	return field
}

func (c *clients) close() { c.transport.CloseIdleConnections() }

// answerTimeout bounds the wait for the beginning of an answer. The SDK has no limit of its own: a start against an
// endpoint that takes connections and says nothing (a wrong port, a broken proxy) would hang without a word.
const answerTimeout = 10 * time.Second

// subscriptionWindow is how many bytes a subscription may bring before they are read, and how large a frame of HTTP/2 may be.
// A subscription that waits for the pipeline holds a full window, beside the byte budget: with Go's 4 MiB, 64 shards of large
// records would pile up 256 MiB, with 1 MiB they still cost some 70 MiB more. It is enough for the 2 MB a second that
// Kinesis gives a shard up to a round trip of 125 ms. Larger frames than Go's 16 KiB save some processor time.
const subscriptionWindow = 256 << 10

// newBuildable starts from the SDK's defaults. Their ten idle connections per host would make every shard beyond the
// tenth dial for each read.
func newBuildable() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost = 256
		t.MaxIdleConns = 512
		t.ResponseHeaderTimeout = answerTimeout
		// Subscriptions are streams of a few HTTP/2 connections. Nothing else notices that such a connection is dead.
		t.ForceAttemptHTTP2 = true
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second, MaxReceiveBufferPerStream: subscriptionWindow, MaxReadFrameSize: subscriptionWindow}
	}).WithDialerOptions(func(d *net.Dialer) {
		d.Timeout = 5 * time.Second
	})
}

// sdkLog takes what the SDK says beside its errors, which would go to standard error otherwise. All of it is about single
// requests, which are tried again.
type sdkLog struct{ log *service.Logger }

// Logf implements logging.Logger.
func (l sdkLog) Logf(_ logging.Classification, format string, args ...any) {
	l.log.Debugf("AWS SDK: "+format, args...)
}

// noRetries switches the SDK's own retries off for a client. The readers pace and back off themselves.
func noRetries(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} }

// quietKinesis is the data plane of Kinesis without the SDK's retries.
type quietKinesis struct{ client *kinesis.Client }

func (q quietKinesis) GetShardIterator(ctx context.Context, in *kinesis.GetShardIteratorInput, _ ...func(*kinesis.Options)) (*kinesis.GetShardIteratorOutput, error) {
	return q.client.GetShardIterator(ctx, in, noRetries)
}

func (q quietKinesis) GetRecords(ctx context.Context, in *kinesis.GetRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error) {
	return q.client.GetRecords(ctx, in, noRetries)
}
