// Package wholebody mends a trap between the AWS SDK and net/http on HTTP/1.1.
//
// The SDK closes a request's body as soon as the answer is there, and its body then reports io.EOF from WriteTo. When the
// answer of a quick server comes before net/http has noted that the body is sent, net/http takes that for a failed write
// and closes the connection under the reader of the answer: "use of closed network connection".
package wholebody

import (
	"io"
	"net/http"
)

// Transport hides WriterTo of request bodies from the next transport, which reads them to their end like any other.
func Transport(next http.RoundTripper) http.RoundTripper { return transport{next} }

type transport struct{ next http.RoundTripper }

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil && req.Body != http.NoBody {
		clone := *req
		clone.Body = struct{ io.ReadCloser }{req.Body}
		req = &clone
	}
	return t.next.RoundTrip(req)
}
