package stack

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Security is what a client of a broker with TLS and token authentication needs. All of it is made for one broker, on
// this machine, and worth nothing elsewhere.
type Security struct {
	CAFile     string // PEM of the authority that signed the broker's certificate (for 127.0.0.1 and localhost)
	AdminToken string // role "admin": superuser
	TokenFile  string // holds AdminToken

	secret []byte
}

const securityDir = "security"

// newSecurity makes an authority, a server certificate, a secret and a superuser's token; what clients and broker read from
// files is written to the folder dir.
func newSecurity(dir string) (*Security, error) {
	s := &Security{CAFile: filepath.Join(dir, "ca.pem"), TokenFile: filepath.Join(dir, "admin.token"), secret: make([]byte, 32)}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder for certificates: %w", err)
	}
	rand.Read(s.secret)
	s.AdminToken = s.Token("admin")

	valid := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour)}
	}
	// RSA, because not every release of the broker reads keys of another kind from a PEM file.
	caKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	ca := valid(1, "test authority")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caCert, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("making the authority's certificate: %w", err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	server := valid(2, "127.0.0.1")
	server.IPAddresses, server.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
	server.KeyUsage, server.ExtKeyUsage = x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	serverCert, err := x509.CreateCertificate(rand.Reader, server, ca, key.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("making the server's certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the server's key: %w", err)
	}
	for name, content := range map[string][]byte{
		"ca.pem":      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caCert}),
		"server.pem":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: serverCert}),
		"server.key":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		"admin.token": []byte(s.AdminToken),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, fmt.Errorf("writing the broker's secrets: %w", err)
		}
	}
	return s, nil
}

// Token returns a token that the broker accepts for the given role. A role other than "admin" may do nothing until it
// is granted something.
func (s *Security) Token(role string) string { return s.sign(map[string]any{"sub": role}) }

// TokenUntil is Token with an end, in whole seconds.
func (s *Security) TokenUntil(role string, end time.Time) string {
	return s.sign(map[string]any{"sub": role, "exp": end.Unix()})
}

func (s *Security) sign(token map[string]any) string {
	encode := base64.RawURLEncoding.EncodeToString
	claims, err := json.Marshal(token)
	if err != nil {
		panic(err) // strings and numbers always have a JSON form
	}
	signed := encode([]byte(`{"alg":"HS256"}`)) + "." + encode(claims)
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

// conf returns the broker's settings, without the ports. Files are named relative to the broker's working folder, in
// which securityDir lies.
func (s *Security) conf() map[string]string {
	return map[string]string{
		"tlsCertificateFilePath":  securityDir + "/server.pem",
		"tlsKeyFilePath":          securityDir + "/server.key",
		"tlsTrustCertsFilePath":   securityDir + "/ca.pem",
		"authenticationEnabled":   "true",
		"authorizationEnabled":    "true",
		"authenticationProviders": "org.apache.pulsar.broker.authentication.AuthenticationProviderToken",
		"tokenSecretKey":          "data:;base64," + base64.StdEncoding.EncodeToString(s.secret),
		"superUserRoles":          "admin",
		// The broker is a client of itself.
		"brokerClientAuthenticationPlugin":     "org.apache.pulsar.client.impl.auth.AuthenticationToken",
		"brokerClientAuthenticationParameters": "token:" + s.AdminToken,
	}
}
