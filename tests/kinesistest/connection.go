package kinesistest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// mutableListener accepts connections that can be muted.
type mutableListener struct{ net.Listener }

func (l mutableListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &mutableConn{Conn: c}, nil
}

// mutableConn can lose everything that is written to it, like a connection whose peer has gone from the network: the writer
// learns nothing of it, and even HTTP/2's pings stay without an answer. It can't be undone, as the peer would miss bytes.
type mutableConn struct {
	net.Conn
	muted   atomic.Bool
	written atomic.Int64 // bytes
}

func (c *mutableConn) Write(b []byte) (int, error) {
	if c.muted.Load() {
		return len(b), nil
	}
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// settle waits until that many bytes are written and then nothing more for a moment. net/http's HTTP/2 writes what a call
// has flushed some time after it has flushed it, and with headers and encryption that are not known here.
func (c *mutableConn) settle(written int64) {
	const moment, patience = 2 * time.Millisecond, time.Second
	for start := time.Now(); time.Since(start) < patience; {
		before := c.written.Load()
		time.Sleep(moment)
		if before >= written && before == c.written.Load() {
			return
		}
	}
}

type connectionKey struct{}

func withConnection(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	return context.WithValue(ctx, connectionKey{}, c)
}

// connectionOf is the TCP connection of a request, beneath TLS; nil when another server than Listen's calls ServeHTTP.
func connectionOf(r *http.Request) *mutableConn {
	c, _ := r.Context().Value(connectionKey{}).(*mutableConn)
	return c
}

// identity is who a server with TLS says it is.
type identity struct {
	certificate tls.Certificate
	pool        *x509.CertPool
}

// newIdentity makes a certificate for the loopback that is its own authority. It is valid at any time a test may think it is.
func newIdentity() *identity {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(fmt.Sprintf("kinesistest: making a key: %v", err))
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "kinesistest"},
		NotBefore:             time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(fmt.Sprintf("kinesistest: making a certificate: %v", err))
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(fmt.Sprintf("kinesistest: reading its own certificate: %v", err))
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &identity{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool}
}

// CertPool is what clients have to trust; nil without TLS.
func (s *Server) CertPool() *x509.CertPool {
	if s.identity == nil {
		return nil
	}
	return s.identity.pool
}
