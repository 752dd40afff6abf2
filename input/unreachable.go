package input

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
)

// unreachable names the field by which an address was chosen when nobody is found there. The AWS SDK tells of a host and a port,
// which a reader of a config may never have written: most come from awsRegion.
type unreachable struct {
	next http.RoundTripper
	// field is the endpoint's field; "" when the region has chosen the address.
	field string
}

// RoundTrip implements http.RoundTripper. The cause stays in the chain: the SDK looks there for what is worth another try.
func (u unreachable) RoundTrip(req *http.Request) (*http.Response, error) {
	response, err := u.next.RoundTrip(req)
	if err == nil {
		return response, nil
	}
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound && u.field != "":
		err = fmt.Errorf("%w: no host is known by this name: %s must be another one", err, u.field)
	case errors.As(err, &dns) && dns.IsNotFound:
		err = fmt.Errorf("%w: the host is made of awsRegion, which must be a region of AWS, such as us-east-1", err)
	case errors.Is(err, syscall.ECONNREFUSED) && u.field != "":
		err = fmt.Errorf("%w: nothing listens at this address: %s must be another one, or its service started", err, u.field)
	}
	return response, err
}
