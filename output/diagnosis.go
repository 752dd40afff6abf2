package output

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
)

// connectFailure is a connection that did not come about, as the client's log tells of it.
type connectFailure struct {
	step   connectStep
	addr   string // of the broker or proxy, as a URL; "" if it is not known
	detail string
	err    error // nil if there is only the text
}

// connectStep is how far the client came.
type connectStep string

const (
	stepConnect     connectStep = "connecting"
	stepTLS         connectStep = "configuring TLS"
	stepCredentials connectStep = "loading credentials"
	stepHandshake   connectStep = "handshake"
	stepRefused     connectStep = "refused by the broker"
	stepResolve     connectStep = "resolving the address"
)

// connectFailures are the client's log lines of a connection that did not come about. The log is the only place where the
// client tells the cause: its caller waits for the operation timeout and then gets "connection error". A new version of
// the client may word them otherwise; a test holds each of them.
var connectFailures = []struct {
	text string
	step connectStep
}{
	{"Failed to connect to broker.", stepConnect},
	{"Failed to configure TLS", stepTLS},
	{"Failed to load auth credentials", stepCredentials},
	{"Failed to perform initial handshake", stepHandshake},
	{"Failed to establish connection with broker: ", stepRefused},
	{"rpc client failed to resolve host", stepResolve},
}

// diagnose says which field a failure is about and, where that can be told, what to write instead.
func diagnose(conf *config, f connectFailure) error {
	where := string(f.step)
	if f.addr != "" {
		where = fmt.Sprintf("%s (%s)", f.step, f.addr)
	}
	field, advice := fieldURL, ""
	if conf != nil {
		field, advice = adviceOn(conf, f)
	}
	detail := f.detail
	if f.err != nil {
		detail = f.err.Error()
	}
	if advice != "" {
		advice = ": " + advice
	}
	if f.err == nil {
		return fmt.Errorf("%s: %s: %s%s", field, where, detail, advice)
	}
	return fmt.Errorf("%s: %s: %w%s", field, where, f.err, advice)
}

// adviceOn is diagnose's knowledge.
func adviceOn(conf *config, f connectFailure) (field, advice string) {
	switch f.step {
	case stepTLS:
		return fieldTLS, ""
	case stepCredentials:
		if conf.auth.oauth2.enabled {
			return fieldAuth + ".oauth2", "the authorization server must be reachable from here, and know the client of private_key_file"
		}
		return fieldAuth, ""
	case stepRefused:
		return adviceOnRefusal(conf, f.detail)
	case stepResolve:
		return fieldURL, "the host is not known here"
	}
	if field, advice := adviceOnTLS(conf, f.err); advice != "" {
		return field, advice
	}
	var dns *net.DNSError
	switch {
	case errors.As(f.err, &dns):
		advice = "the host is not known here"
	case errors.Is(f.err, syscall.ECONNREFUSED):
		advice = "nothing listens at this address"
	case isTimeout(f.err) && conf.secure():
		advice = "there is no answer from this address: a firewall, a wrong one, or a port that does not speak TLS"
	case isTimeout(f.err):
		advice = "there is no answer from this address: a firewall, or a wrong one"
	case endedEarly(f.err) && conf.secure():
		advice = "the connection was closed in the middle of the TLS handshake, as a port without TLS does: write pulsar:// or the port for TLS, usually 6651"
	case endedEarly(f.err):
		advice = "the connection was closed without an answer, as a port with TLS does: write pulsar+ssl://, or the port without TLS, usually 6650"
	}
	if advice != "" && f.addr != "" && !conf.names(f.addr) {
		advice += "; it is not the configured one, but what the cluster calls itself (advertisedAddress, or advertisedListeners)"
	}
	return fieldURL, advice
}

// adviceOnTLS knows the failures of a TLS handshake.
func adviceOnTLS(conf *config, err error) (field, advice string) {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return fieldTLS, "the broker's certificate is signed by an authority that is not trusted here: name it in " + fieldTLS + ".root_cas_file"
	case errors.As(err, &host):
		return fieldURL, "the broker's certificate is for another name: write the one that it is for"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fieldTLS, "the broker's certificate has expired or is not valid yet, or the clock here is wrong"
	case errors.As(err, &record):
		return fieldURL, "this port does not speak TLS: write pulsar:// or the port for TLS, usually 6651"
	case err != nil && strings.Contains(err.Error(), "remote error: tls:"):
		return fieldTLS, "the broker has refused our side of TLS: it may want a certificate of the client, " + fieldTLS + ".client_certs"
	}
	return "", ""
}

// adviceOnRefusal knows what it means that the broker has answered, but not with yes.
func adviceOnRefusal(conf *config, answer string) (field, advice string) {
	switch {
	case answer == "":
		// The client gives no text when the broker asks a question instead of answering.
		return fieldAuth, "the broker asks for a method of authentication that takes more than one step, which the client does not know"
	case !strings.Contains(strings.ToLower(answer), "authenticat") && !strings.Contains(strings.ToLower(answer), "authoriz"):
		return fieldURL, ""
	case conf.auth.token.enabled:
		return fieldAuth + ".token", "the broker does not accept the token: it may be expired, signed with another key, or of a role that may not connect"
	case conf.auth.oauth2.enabled:
		return fieldAuth + ".oauth2", "the broker does not accept the token of the authorization server: audience and scope may be others than it wants"
	default:
		return fieldAuth, "the broker wants to know who we are, and no method is enabled"
	}
}

// adviceOnProducer is what to do about a topic for which the broker refuses a producer, "" if its own words will do.
func adviceOnProducer(conf *config, answer string) string {
	switch {
	case strings.Contains(answer, "AuthorizationError"):
		if !conf.auth.token.enabled && !conf.auth.oauth2.enabled {
			return fieldAuth + ": no method is enabled, and anonymous clients may not produce here"
		}
		return fieldAuth + ": the role that is shown to the broker may not produce here"
	case strings.Contains(answer, "TopicTerminatedError"):
		return fieldTopic + ": a terminated topic never takes messages again, name another"
	case strings.Contains(answer, "ProducerBlockedQuotaExceeded"):
		return "the backlog of a subscription is full: consumers must catch up, or the quota be raised"
	case strings.Contains(answer, "IncompatibleSchema"):
		return fieldTopic + ": it has a schema and its namespace enforces one, but messages are written as plain bytes"
	case strings.Contains(answer, "TopicNotFound"):
		return fieldTopic + ": it does not exist, and the broker does not create topics by itself"
	}
	return ""
}

// withAdvice adds to the broker's refusal of a producer what to do about it.
func withAdvice(conf *config, err error) error {
	if advice := adviceOnProducer(conf, err.Error()); advice != "" {
		return fmt.Errorf("%w (%s)", err, advice)
	}
	return err
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// endedEarly tells whether the other side has closed the connection. The client does not wrap the error in every place.
func endedEarly(err error) bool {
	return err != nil && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) ||
		strings.HasSuffix(err.Error(), io.EOF.Error()) || strings.HasSuffix(err.Error(), syscall.ECONNRESET.Error()))
}

// secure tells whether TLS is spoken. The client goes by the URL.
func (c *config) secure() bool { return strings.HasPrefix(c.url, "pulsar+ssl://") }

// names tells whether the configured URL has this address.
func (c *config) names(addr string) bool {
	_, host, _ := strings.Cut(addr, "://")
	_, hosts, _ := strings.Cut(c.url, "://")
	for h := range strings.SplitSeq(strings.TrimSuffix(hosts, "/"), ",") {
		if host == h || strings.HasPrefix(host, h+":") {
			return true
		}
	}
	return false
}
