package kinesistest

import (
	"context"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
)

// Client is an SDK client of the server, with made-up credentials and without retries, so that a test sees each answer;
// options can change that. Its connections end with the server.
func (s *Server) Client(options ...func(*kinesis.Options)) *kinesis.Client {
	base := kinesis.Options{
		BaseEndpoint: aws.String(s.URL()),
		Region:       s.region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret", Source: "kinesistest"}, nil
		}),
		HTTPClient: &http.Client{Transport: WholeBodies(s.transport)},
		Retryer:    aws.NopRetryer{},
	}
	return kinesis.New(base, options...)
}

func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	t.MaxIdleConnsPerHost = 256
	return t
}

// WholeBodies is a transport for SDK clients that talk HTTP/1.1 to a server as near as this one. The SDK closes a request's
// body as soon as the answer is there, and its body then reports io.EOF from WriteTo; when the answer comes before net/http
// has noted that the body is sent, net/http takes that for a failed write and closes the connection under the answer's reader.
// Without WriteTo the body is read to its end like any other.
func WholeBodies(transport http.RoundTripper) http.RoundTripper { return wholeBodies{transport} }

type wholeBodies struct{ next http.RoundTripper }

func (t wholeBodies) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		clone := *r
		clone.Body = struct{ io.ReadCloser }{r.Body}
		r = &clone
	}
	return t.next.RoundTrip(r)
}
