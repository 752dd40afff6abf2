package input

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

// A service that is not there was told as "dial tcp 127.0.0.1:4566: connect: connection refused", which names no field.
func TestAnUnreachableServiceIsToldWithItsField(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	unknown := &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}
	busy := &net.OpError{Op: "dial", Err: &net.DNSError{Err: "server misbehaving", IsTemporary: true}}
	for _, tc := range []struct {
		err         error
		field, want string
	}{
		{refused, "awsEndpoint", "awsEndpoint must be another one"},
		{unknown, "dynamoEndpoint", "dynamoEndpoint must be another one"},
		{unknown, "", "awsRegion"},
		{refused, "", ""},
		{busy, "awsEndpoint", ""},
	} {
		response, err := unreachable{next: failing{tc.err}, field: tc.field}.RoundTrip(&http.Request{})
		if response != nil {
			_ = response.Body.Close()
		}
		if !errors.Is(err, tc.err) || tc.want == "" && err.Error() != tc.err.Error() || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q, field %q: %v", tc.err, tc.field, err)
		}
	}
}
