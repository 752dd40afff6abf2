package input

import (
	"io"
	"net/http"
	"sync"

	"golang.org/x/sync/semaphore"
)

const (
	// maxDecoding is how many bytes of large responses are read and decoded at one time. The SDK reads a body into a
	// buffer that grows by doubling, and copies each text out of it twice, so a response takes some four times its size
	// until it is decoded, none of which the byte budget knows: all shards of a stream at once would take several times
	// what they may hold. A dozen reads of a megabyte at a time keep more processors busy than reading ever needs.
	maxDecoding = 16 << 20

	// smallResponse is what never waits.
	smallResponse = 64 << 10
)

// boundedResponses hands a large response on when there is room to decode it. Until then it waits in the connection. The
// room is given back when the body is closed, which the SDK does when it has decoded it.
//
// Responses of unknown length pass: those of event streams, which do not end. Their events are bounded one by one.
type boundedResponses struct {
	next http.RoundTripper
	room *semaphore.Weighted
}

func newBoundedResponses(next http.RoundTripper) *boundedResponses {
	return &boundedResponses{next: next, room: semaphore.NewWeighted(maxDecoding)}
}

func (b *boundedResponses) RoundTrip(req *http.Request) (*http.Response, error) {
	response, err := b.next.RoundTrip(req)
	if err != nil || response.ContentLength <= smallResponse {
		return response, err
	}
	size := min(response.ContentLength, maxDecoding)
	if err := b.room.Acquire(req.Context(), size); err != nil {
		_ = response.Body.Close()
		return nil, err
	}
	response.Body = &boundedBody{ReadCloser: response.Body, release: sync.OnceFunc(func() { b.room.Release(size) })}
	return response, nil
}

// boundedBody is a body that gives its room back when it is closed.
type boundedBody struct {
	io.ReadCloser
	release func()
}

func (b *boundedBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}
