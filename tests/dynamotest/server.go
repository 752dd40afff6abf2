package dynamotest

import (
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/wholebody"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/heldport"
)

// Server is a [DB] listening on a loopback port.
type Server struct {
	*DB
	address string
	port    *heldport.Port

	mu struct {
		sync.Mutex
		http   *http.Server // nil while stopped
		served chan struct{}
		idle   []*http.Transport // of the clients handed out
		closed bool
	}
}

// NewServer starts a server on a free port of 127.0.0.1. It panics when there is none, as httptest does. Close it.
func NewServer(opts ...Option) *Server {
	s := &Server{DB: New(opts...)}
	port, err := heldport.Hold()
	if err != nil {
		panic("dynamotest: " + err.Error())
	}
	s.port = port
	listener, err := port.Listen()
	if err != nil {
		panic("dynamotest: listening on a loopback port: " + err.Error())
	}
	s.address = listener.Addr().String()
	s.serve(listener)
	return s
}

// serve starts the HTTP server. The caller holds the lock or is alone.
func (s *Server) serve(listener net.Listener) {
	server := &http.Server{Handler: s.DB, ErrorLog: log.New(io.Discard, "", 0)} // closed connections are what faults are for
	served := make(chan struct{})
	s.mu.http, s.mu.served = server, served
	go func() {
		defer close(served)
		_ = server.Serve(listener) // always ends with ErrServerClosed
	}()
}

// URL is the endpoint, for the SDK's BaseEndpoint or a config's dynamoEndpoint.
func (s *Server) URL() string { return "http://" + s.address }

// Client returns a client of the server over the network. optFns change its options as in dynamodb.New.
func (s *Server) Client(optFns ...func(*dynamodb.Options)) *dynamodb.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 32, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
	s.mu.Lock()
	s.mu.idle = append(s.mu.idle, transport)
	s.mu.Unlock()
	return dynamodb.New(dynamodb.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(s.URL()),
		Credentials:  credentials.NewStaticCredentialsProvider("dynamotest", "dynamotest", ""),
		HTTPClient:   &http.Client{Transport: wholebody.Transport(transport)},
	}, optFns...)
}

// Stop closes the port and every connection, as a service that went away; what was applied stays. Requests being served get no answer.
func (s *Server) Stop() {
	s.DB.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
}

// stop ends the HTTP server. The caller holds the lock.
func (s *Server) stop() {
	if s.mu.http == nil {
		return
	}
	_ = s.mu.http.Close() // only listener errors, of a listener that is gone
	<-s.mu.served
	s.mu.http = nil
}

// Restart listens on the same port again. It panics when another process took the port, which none is given on Linux.
func (s *Server) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.http == nil && !s.mu.closed {
		listener, err := s.port.Listen()
		if err != nil {
			panic("dynamotest: listening on " + s.address + " again: " + err.Error())
		}
		s.serve(listener)
	}
	s.DB.Restart()
}

// Close ends the server and everything it started, the idle connections of its clients included. It may be called twice.
func (s *Server) Close() {
	s.mu.Lock()
	s.mu.closed = true
	s.stop()
	s.port.Release()
	for _, t := range s.mu.idle {
		t.CloseIdleConnections()
	}
	s.mu.Unlock()
	s.DB.Close()
}
