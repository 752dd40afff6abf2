package output

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// busy is how long something may take on a busy machine.
const busy = 3 * time.Minute

// connectFails connects, which must fail and say what is wrong before the client's calls time out by default, in half a
// minute. A try that takes longer may be a machine that stood still; three of them are not.
func connectFails(t *testing.T, o *output, wants ...string) {
	t.Helper()
	var err error
	for try := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err = o.Connect(ctx)
		late := ctx.Err() != nil
		cancel()
		if err == nil {
			t.Fatal("connected")
		}
		if !late {
			break
		}
		if try == 2 {
			t.Fatalf("no cause in time: %v", err)
		}
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q: %v", want, err)
		}
	}
}

func TestNoBrokerAtStart(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.Stop()
	o := makeOutput(t, b.URL(), "operation_timeout: 3s\ntopic: t")
	connectFails(t, o, "connection refused")
	batch, _ := newShard().batch("a")
	if err := o.WriteBatch(t.Context(), batch); err != service.ErrNotConnected {
		t.Errorf("write: %v", err)
	}
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return o.Connect(t.Context()) })
	batch, _ = newShard().batch("a")
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Error(err)
	}
}

// eventually tries as the engine does, which calls Connect again and again.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(busy)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	b := startBroker(t, pulsartest.RequireToken("right"))
	t.Run("none", func(t *testing.T) {
		connectFails(t, makeOutput(t, b.URL(), "operation_timeout: 3s\ntopic: t"), "auth: refused by the broker", "no method is enabled")
	})
	t.Run("wrong", func(t *testing.T) {
		connectFails(t, makeOutput(t, b.URL(), "operation_timeout: 3s\ntopic: t\nauth:\n  token:\n    enabled: true\n    token: wrong"), "auth.token: refused by the broker", "does not accept the token")
	})
	t.Run("right", func(t *testing.T) {
		connected(t, b.URL(), "topic: t\nauth:\n  token:\n    enabled: true\n    token: right")
	})
}

// The authorization server is away: the cause is in the client's log only.
func TestOAuth2ServerAway(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(key, []byte(`{"type":"client_credentials","client_id":"me","client_secret":"hush-hush"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b := startBroker(t)
	o := makeOutput(t, b.URL(), "operation_timeout: 3s\ntopic: t\nauth:\n  oauth2:\n    enabled: true\n    issuer_url: http://127.0.0.1:1\n    private_key_file: "+key)
	connectFails(t, o, "127.0.0.1:1", "auth.oauth2: loading credentials")
	if err := o.Connect(t.Context()); err == nil || strings.Contains(err.Error(), "hush-hush") {
		t.Errorf("%v", err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, serverTLS := certificates(t)
	b := startBroker(t, pulsartest.TLS(serverTLS))
	t.Run("unknown authority", func(t *testing.T) {
		connectFails(t, makeOutput(t, b.URL(), "operation_timeout: 3s\ntopic: t"), "tls: connecting", "certificate signed by unknown authority", "root_cas_file")
	})
	t.Run("trusted", func(t *testing.T) {
		o := connected(t, b.URL(), "topic: t\ntls:\n  root_cas_file: "+ca)
		batch, _ := newShard().batch("a")
		if err := o.WriteBatch(t.Context(), batch); err != nil {
			t.Error(err)
		}
	})
	t.Run("not verified", func(t *testing.T) {
		connected(t, b.URL(), "topic: t\ntls:\n  skip_cert_verify: true")
	})
	t.Run("plain to a TLS port", func(t *testing.T) {
		connectFails(t, makeOutput(t, "pulsar://"+b.Addr(), "operation_timeout: 3s\ntopic: t"), "url: handshake", "pulsar+ssl://")
	})
	t.Run("another name", func(t *testing.T) {
		url := strings.Replace(b.URL(), "127.0.0.1", "localhost", 1)
		connectFails(t, makeOutput(t, url, "operation_timeout: 3s\ntopic: t\ntls:\n  root_cas_file: "+ca), "url: connecting", "is for another name")
	})
}

// certificates makes an authority and a certificate for 127.0.0.1.
func certificates(t *testing.T) (caFile string, server *tls.Config) {
	t.Helper()
	return certificatesUntil(t, time.Now().Add(time.Hour))
}

func certificatesUntil(t *testing.T, end time.Time) (caFile string, server *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return caFile, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// The broker's refusal of a producer is the error, and ends when the broker takes one.
func TestRefusedProducers(t *testing.T) {
	t.Parallel()
	for _, code := range []pulsartest.ServerError{pulsartest.AuthorizationError, pulsartest.ProducerBusy, pulsartest.ProducerBlockedQuotaExceededException} {
		t.Run(code.String(), func(t *testing.T) {
			b := startBroker(t)
			b.RefuseProducers("t", 2, code, "because of a test")
			o := makeOutput(t, b.URL(), "operation_timeout: 3s\ntopic: t")
			connectFails(t, o, "because of a test")
			eventually(t, func() error { return o.Connect(t.Context()) })
		})
	}
}

func TestLookupErrorIsTheCause(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.FailLookups("t", pulsartest.Forever, pulsartest.AuthorizationError, "not yours")
	connectFails(t, makeOutput(t, b.URL(), "operation_timeout: 3s\ntopic: t"), "AuthorizationError")
}

func TestBrokerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	release := b.HangLookups("t")
	defer release()
	o := makeOutput(t, b.URL(), "operation_timeout: 3s\ntopic: t")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := o.Connect(ctx); err == nil || !strings.Contains(err.Error(), "waiting for Pulsar") {
		t.Errorf("%v", err)
	}
	release()
	eventually(t, func() error { return o.Connect(t.Context()) })
}

// A partition that cannot be had must not stop the others.
func TestOneBadPartition(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	if err := b.CreatePartitionedTopic("t", 2); err != nil {
		t.Fatal(err)
	}
	b.RefuseProducers("t-partition-0", pulsartest.Forever, pulsartest.PersistenceError, "no bookies")
	o := connected(t, b.URL(), "topic: t")
	keys := map[int]string{}
	for i := 0; len(keys) < 2; i++ {
		key := fmt.Sprint("key-", i)
		keys[hashMurmur3.partitionOf(key, 2)] = key
	}
	batch, a := newShard().batch(keys[0])
	err := o.WriteBatch(t.Context(), batch)
	if err == nil || err == service.ErrNotConnected || !strings.Contains(err.Error(), "no bookies") {
		t.Errorf("write to the bad partition: %v", err)
	}
	if replay, _ := undelivered(t, a); len(replay) != 1 {
		t.Errorf("replay %v", replay)
	}
	batch, _ = newShard().batch(keys[1])
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Errorf("write to the good partition: %v", err)
	}
	b.ClearFaults()
	eventually(t, func() error {
		batch, _ := newShard().batch(keys[0])
		return o.WriteBatch(t.Context(), batch)
	})
}

func TestConnectionTest(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	for name, topic := range map[string]string{"constant topic": "t", "interpolated topic": "'${! @x }'"} {
		t.Run(name, func(t *testing.T) {
			o := makeOutput(t, b.URL(), "topic: "+topic)
			if r := o.ConnectionTest(t.Context()); len(r) != 1 || r[0].Err != nil {
				t.Errorf("%v", r[0].Err)
			}
		})
	}
	if topics := b.Topics(); len(topics) > 1 {
		t.Errorf("testing the connection created %v", topics)
	}
	o := makeOutput(t, "pulsar://127.0.0.1:1", "operation_timeout: 5s\ntopic: '${! @x }'")
	if r := o.ConnectionTest(t.Context()); len(r) != 1 || r[0].Err == nil || !strings.Contains(r[0].Err.Error(), "connection refused") {
		t.Errorf("%+v", r)
	}
	b.Stop()
	o = makeOutput(t, b.URL(), "operation_timeout: 5s\ntopic: t")
	if r := o.ConnectionTest(t.Context()); len(r) != 1 || r[0].Err == nil || !strings.Contains(r[0].Err.Error(), "connection refused") {
		t.Errorf("%+v", r)
	}
}

func TestDynamicTopics(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: 'topic-${! @name }'")
	o.session.Load().topics.limit = 3
	names := []string{"a", "b", "c", "d", "e"}
	for _, name := range names {
		batch, _ := newShard().batch("k", "k")
		for _, m := range batch {
			m.MetaSetMut("name", name)
		}
		if err := o.WriteBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		if n := len(b.Messages("topic-" + name)); n != 2 {
			t.Errorf("%d messages in topic-%s", n, name)
		}
	}
	// All at once is more than the limit.
	batch, _ := newShard().batch(names...)
	for i, m := range batch {
		m.MetaSetMut("name", names[i])
	}
	if err := o.WriteBatch(t.Context(), batch); err == nil || !strings.Contains(err.Error(), "too many topics") {
		t.Errorf("%v", err)
	}
	// A name that is none is that record's own fault.
	batch, _ = newShard().batch("k", "k")
	batch[0].MetaSetMut("name", "a")
	batch[1].MetaSetMut("name", "not a name")
	if failed, err := write(t, o, batch); len(failed) != 1 || failed[0] != 1 {
		t.Errorf("%v: %v", failed, err)
	}
}

func TestIdleTopicsAreClosed(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: 'topic-${! @name }'")
	batch, _ := newShard().batch("k")
	batch[0].MetaSetMut("name", "a")
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	s := o.session.Load()
	if stay := s.topics.sweep(time.Now().Add(idleLimit / 2)); len(stay) != 1 {
		t.Fatalf("%d topics stay", len(stay))
	}
	if stay := s.topics.sweep(time.Now().Add(2 * idleLimit)); len(stay) != 0 {
		t.Fatalf("%d topics stay", len(stay))
	}
	ctx, cancel := context.WithTimeout(t.Context(), busy)
	defer cancel()
	if err := b.Wait(ctx, func() bool { return len(b.Producers("topic-a")) == 0 }); err != nil {
		t.Error(err)
	}
	eventually(t, func() error {
		s.unearth()
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.mu.buried) > 0 {
			return fmt.Errorf("%d topics buried", len(s.mu.buried))
		}
		return nil
	})
}

// A healthy life says nothing at WARN or above; an outage says it once.
func TestQuietWhenHealthy(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	conf, err := parse(t, "url: "+b.URL()+"\ntopic: t")
	if err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	o := newOutput(conf, service.MockResources(service.MockResourcesOptUseLogger(service.NewLoggerFromSlog(logger))))
	if err := o.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := newShard()
	batch, _ := s.batch("a")
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); text != "" {
		t.Errorf("healthy, but: %s", text)
	}
	b.Stop()
	eventually(t, func() error {
		if !strings.Contains(log.String(), "level=WARN") {
			return fmt.Errorf("the outage is not told: %s", log.String())
		}
		return nil
	})
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	batch, _ = s.batch("a")
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "Connected to Pulsar again") {
		t.Errorf("%d warnings: %s", n, log.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
