package failures

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

func tlsAndAToken(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 2)
	p := w.run(config{url: broker.ServiceURLTLS(), pulsar: "tls: { root_cas_file: " + broker.Security().CAFile + " }"})
	w.feed(300)
	w.settled()
	w.account()
	p.ready()
	p.stop()
}

// The broker's certificate is signed by an authority that the client does not know: none at all, or another one.
func unknownAuthority(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 0)
	p := w.run(config{url: broker.ServiceURLTLS()})
	other := filepath.Join(t.TempDir(), "other.pem")
	must(t, os.WriteFile(other, strangersCertificate(t), 0o600))
	q := w.run(config{url: broker.ServiceURLTLS(), pulsar: "tls: { root_cas_file: " + other + " }"})
	p.notReady("certificate")
	q.notReady("certificate")
}

func wrongTokens(t *testing.T, broker *stack.PulsarService) {
	for name, tc := range map[string]struct{ auth, want string }{
		"none":              {"auth: { token: { enabled: false } }", "uthenticat"},
		"malformed":         {"auth: { token: { enabled: true, token: not-a-token } }", "uthenticat"},
		"of another key":    {"auth: { token: { enabled: true, token: eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA } }", "uthenticat"},
		"without any right": {fmt.Sprintf("auth: { token: { enabled: true, token: %s } }", broker.Security().Token("nobody")), "uthoriz"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, broker, 0)
			p := w.run(config{auth: tc.auth})
			p.notReady(tc.want)
		})
	}
}

// With de-duplication the topic is read after a kill, which a right to produce is not enough for. It shows at the start.
func mayNotConsume(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 2)
	w.admin("POST", w.namespacePath("/permissions/writer"), []string{"produce"})
	p := w.run(config{token: broker.Security().Token("writer"), pulsar: "deduplication: true"})
	p.notReady("deduplication", "grant it produce and consume")
	w.admin("POST", w.namespacePath("/deduplication"), true)
	w.admin("POST", w.namespacePath("/permissions/writer"), []string{"produce", "consume"})
	p.ready()
	w.feed(100)
	w.settled()
	w.account()
	p.stop()
}

// A token in a file is replaced before it runs out, which nobody may notice; then one is not, which shows, until it is.
func aTokenExpires(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 2)
	file := filepath.Join(t.TempDir(), "token")
	valid := func(d time.Duration) {
		next := file + ".next"
		must(t, os.WriteFile(next, []byte(broker.Security().TokenUntil("admin", time.Now().Add(d))+"\n"), 0o600))
		must(t, os.Rename(next, file))
	}
	// However slow the machine is, the token in the file is a fresh one.
	const life = 8 * time.Second
	replaced := func(until func() bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !until(); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not within %s", patience)
			}
			valid(life)
		}
	}
	valid(life)
	p := w.run(config{auth: fmt.Sprintf("auth: { token: { enabled: true, file: %q } }", file)})
	w.feed(300)
	replaced(w.atTheEnd)
	w.quietly("warnings though the token was replaced in time", func() int { return p.logs.count("level=warning") }, func() {
		// By the end of this the token that it began with has run out.
		for until := time.Now().Add(life + 2*time.Second); time.Now().Before(until); time.Sleep(200 * time.Millisecond) {
			w.feed(20)
			valid(life)
		}
		replaced(w.atTheEnd)
		p.ready()
	})
	time.Sleep(life) // it runs out
	p.notReadyWhileFed("uthenticat")
	valid(time.Hour)
	p.ready()
	w.feed(100)
	w.settled()
	w.account()
	p.stop()
}

// strangersCertificate makes the certificate of an authority that has signed nothing here, as PEM.
func strangersCertificate(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a stranger"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
