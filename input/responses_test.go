package input

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
)

// responseOf answers every request with a body of that length, which counts its closings.
type responseOf struct {
	length int64
	closed int
}

func (r *responseOf) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, ContentLength: r.length, Body: r}, nil
}

func (r *responseOf) Read([]byte) (int, error) { return 0, io.EOF }

func (r *responseOf) Close() error {
	r.closed++
	return nil
}

// getting asks in the background.
func getting(t *testing.T, ctx context.Context, transport http.RoundTripper) <-chan *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://kinesis", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *http.Response, 1)
	go func() {
		response, err := transport.RoundTrip(request)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		got <- response
	}()
	return got
}

func arrived(got <-chan *http.Response) bool {
	synctest.Wait()
	return len(got) == 1
}

func TestI8LargeResponsesAreDecodedAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := &responseOf{length: maxDecoding / 2}
		b := newBoundedResponses(transport)
		first, second := getting(t, t.Context(), b), getting(t, t.Context(), b)
		if !arrived(first) || !arrived(second) {
			t.Fatal("what fits was held back")
		}
		third := getting(t, t.Context(), b)
		if arrived(third) {
			t.Fatal("three halves passed at once")
		}
		one := <-first
		one.Body.Close()
		one.Body.Close() // gives its room back once
		if !arrived(third) {
			t.Fatal("room that was given back is not used")
		}
		if fourth := getting(t, t.Context(), b); arrived(fourth) {
			t.Fatal("the second closing gave room back")
		} else {
			(<-second).Body.Close()
			(<-fourth).Body.Close()
		}
		if transport.closed != 4 {
			t.Errorf("%d closings reached the bodies, want 4", transport.closed)
		}
	})
}

func TestAResponseBeyondAllRoomPassesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoundedResponses(&responseOf{length: 3 * maxDecoding})
		first, second := getting(t, t.Context(), b), getting(t, t.Context(), b)
		synctest.Wait()
		if len(first)+len(second) != 1 {
			t.Fatalf("%d passed, want one", len(first)+len(second))
		}
		select {
		case r := <-first:
			r.Body.Close()
			(<-second).Body.Close()
		case r := <-second:
			r.Body.Close()
			(<-first).Body.Close()
		}
	})
}

// Subscriptions have no length and do not end; small answers are all that is not a read of records.
func TestResponsesThatAreSmallOrEndlessNeverWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := &responseOf{length: maxDecoding}
		b := newBoundedResponses(transport)
		if !arrived(getting(t, t.Context(), b)) {
			t.Fatal("held back")
		}
		for _, length := range []int64{-1, 0, smallResponse} {
			transport.length = length
			if !arrived(getting(t, t.Context(), b)) {
				t.Errorf("a response of %d bytes waits", length)
			}
		}
	})
}

func TestAReadThatEndsWhileItWaitsClosesItsResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := &responseOf{length: maxDecoding}
		b := newBoundedResponses(transport)
		first := getting(t, t.Context(), b)
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		second := getting(t, ctx, b)
		synctest.Wait()
		cancel()
		if response := <-second; response != nil || transport.closed != 1 {
			t.Fatalf("response %v, %d closings", response, transport.closed)
		}
		(<-first).Body.Close()
		third := getting(t, t.Context(), b)
		if !arrived(third) {
			t.Error("the room is not there again")
		}
	})
}
