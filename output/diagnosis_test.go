package output

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// What is wrong with a connection is told within seconds, with the field that it is about and what to write instead.
func TestMistakesAreNamed(t *testing.T) {
	t.Parallel()
	plain := startBroker(t)
	_, expired := certificatesUntil(t, time.Now().Add(-time.Minute))
	old := startBroker(t, pulsartest.TLS(expired))
	ca, mutual := certificates(t)
	mutual.ClientAuth = tls.RequireAnyClientCert
	wantsCertificate := startBroker(t, pulsartest.TLS(mutual))
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	for name, c := range map[string]struct {
		url, yaml string
		wants     []string
	}{
		"TLS to a plain port": {"pulsar+ssl://" + plain.Addr(), "", []string{"url: connecting", "pulsar://", "TLS"}},
		"TLS to silence":      {"pulsar+ssl://" + silent.Addr().String(), "connection_timeout: 1s", []string{"url: connecting", "no answer", "TLS"}},
		// A name that is too long for one: nobody has to be asked, who might not answer.
		"no such host":             {"pulsar://" + strings.Repeat("broker", 12) + ".invalid:6650", "", []string{"url: connecting", "the host is not known"}},
		"nobody there":             {"pulsar://127.0.0.1:1", "", []string{"url: connecting", "nothing listens"}},
		"expired certificate":      {old.URL(), "", []string{"tls: connecting", "expired"}},
		"certificate of a client":  {wantsCertificate.URL(), "tls:\n  root_cas_file: " + ca, []string{"tls: ", "tls.client_certs"}},
		"interpolated topic":       {"pulsar://127.0.0.1:1", "topic: '${! @x }'", []string{"url: connecting", "nothing listens"}},
		"one host of two, nowhere": {"pulsar://127.0.0.1:1,127.0.0.1:2", "", []string{"url: connecting", "nothing listens"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			yaml := "operation_timeout: 3s\n" + c.yaml
			if !strings.Contains(yaml, "topic:") {
				yaml += "\ntopic: t"
			}
			o := makeOutput(t, c.url, yaml)
			connectFails(t, o, c.wants...)
			if strings.Contains(fmt.Sprint(o.Connect(t.Context())), "calls itself") {
				t.Error("the configured address is taken for another")
			}
		})
	}
}

// The cluster may name an address that clients can't reach: the cause is neither the url nor the network.
func TestAddressThatTheClusterNames(t *testing.T) {
	conf, err := parse(t, "url: pulsar://a.example.com,b.example.com:6650\ntopic: t")
	if err != nil {
		t.Fatal(err)
	}
	for addr, own := range map[string]bool{"pulsar://a.example.com:6650": true, "pulsar://b.example.com:6650": true, "pulsar://b.example.com:6651": false, "pulsar://broker-0.local:6650": false} {
		err := diagnose(conf, connectFailure{step: stepConnect, addr: addr, err: &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}})
		if named := strings.Contains(err.Error(), "calls itself"); named == own {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestRefusalsAreExplained(t *testing.T) {
	conf, err := parse(t, "url: pulsar://localhost\ntopic: t")
	if err != nil {
		t.Fatal(err)
	}
	for answer, want := range map[string]string{
		"server error: AuthorizationError: Client is not authorized to Produce on topic":                    "auth: ",
		"server error: TopicTerminatedError: Topic was already terminated":                                  "topic: ",
		"server error: ProducerBlockedQuotaExceededException: Cannot create producer on topic with backlog": "consumers must catch up",
		"server error: IncompatibleSchema: Producers cannot connect or send message without a schema":       "topic: ",
		"server error: TopicNotFound: Topic persistent://public/default/t not found":                        "topic: ",
		"server error: ProducerBusy: Producer with name 'x' is already connected to topic 't'":              "",
	} {
		cause := errors.New(answer)
		got := withAdvice(conf, cause)
		if !errors.Is(got, cause) || !strings.Contains(got.Error(), answer) || !strings.Contains(got.Error(), want) || want == "" && got != cause {
			t.Errorf("%v", got)
		}
	}
	if err := diagnose(conf, connectFailure{step: stepRefused}); !strings.HasPrefix(err.Error(), "auth: ") {
		t.Errorf("an answer without a text: %v", err)
	}
	if err := diagnose(conf, connectFailure{step: stepRefused, detail: "Unsupported version"}); !strings.HasPrefix(err.Error(), "url: ") {
		t.Errorf("%v", err)
	}
}

// A token in a file is taken up as it is then: when the broker asks for it again and when a connection is made.
func TestTokenFileIsReadAgain(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	put := func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token+"\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("first")
	b := startBroker(t, pulsartest.RequireToken("first"))
	o := connected(t, b.URL(), "topic: t\nauth:\n  token:\n    enabled: true\n    file: "+file)
	s := newShard()
	send := func() error {
		batch, _ := s.batch("k")
		return o.WriteBatch(t.Context(), batch)
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	put("second")
	b.ChangeToken("second")
	connections := b.Connections()
	if b.Challenge() != connections || connections == 0 {
		t.Fatal("nobody was asked")
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	if n := b.Connections(); n != connections {
		t.Errorf("%d connections, there were %d", n, connections)
	}
	put("third")
	b.ChangeToken("third")
	b.DropConnections()
	if err := send(); err != nil {
		t.Fatal(err)
	}
	// A file that was not replaced in time: the broker ends the connection, and the cause is told.
	b.ChangeToken("fourth")
	b.Challenge()
	lost := func() error {
		if _, cause := o.session.Load().health.failure(); cause == nil {
			return errors.New("the connection is not lost")
		}
		return nil
	}
	eventually(t, lost)
	connectFails(t, o, "auth.token: refused by the broker")
	put("fourth")
	eventually(t, func() error { return o.Connect(t.Context()) })
	put("")
	b.DropConnections()
	eventually(t, lost)
	connectFails(t, o, "auth.token.file", "is empty")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}
