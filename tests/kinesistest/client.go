package kinesistest

import (
	"context"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/wholebody"
)

// Client is an SDK client of the server, with made-up credentials and without retries, so that a test sees each answer;
// options can change that. Its connections end with the server.
func (s *Server) Client(options ...func(*kinesis.Options)) *kinesis.Client {
	return s.client(s.transport, options)
}

// HTTP2Client is a Client that speaks HTTP/2 without TLS too, by prior knowledge. With TLS both speak HTTP/2.
func (s *Server) HTTP2Client(options ...func(*kinesis.Options)) *kinesis.Client {
	if s.identity != nil {
		return s.client(s.transport, options)
	}
	return s.client(s.transport2, options)
}

// OwnCodec gives a call its own decoder of events. Every call of SubscribeToShard needs it when its client has more than one
// subscription: the SDK shares one decoder among them all, which is a data race.
func OwnCodec(o *kinesis.Options) { o.Protocol = awsjson.New11(schemas.Kinesis_20131202) }

func (s *Server) client(transport *http.Transport, options []func(*kinesis.Options)) *kinesis.Client {
	base := kinesis.Options{
		BaseEndpoint: aws.String(s.URL()),
		Region:       s.region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret", Source: "kinesistest"}, nil
		}),
		HTTPClient: &http.Client{Transport: WholeBodies(transport)},
		Retryer:    aws.NopRetryer{},
	}
	return kinesis.New(base, options...)
}

// newTransport is for HTTPS with HTTP/2 if the server has it, and for plain HTTP/1.1; prior is for plain HTTP/2.
func newTransport(prior bool) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	t.MaxIdleConnsPerHost = 256
	if prior {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	return t
}

// WholeBodies is a transport for SDK clients that talk HTTP/1.1 to a server as near as this one: without it the SDK and
// net/http lose a connection now and then.
func WholeBodies(transport http.RoundTripper) http.RoundTripper {
	return wholebody.Transport(transport)
}
