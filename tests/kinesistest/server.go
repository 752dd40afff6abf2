package kinesistest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/heldport"
)

// Option changes what NewServer makes.
type Option func(*options)

type options struct {
	now             func() time.Time
	region, account string
	address         string
	stateDelay      time.Duration
	consumerDelay   time.Duration
	secure          bool
	visibility      time.Duration
	readLimits      bool
	writeLimits     bool
	shardLimit      int
	lag             func(stream, shard string, actual time.Duration) time.Duration

	subscriptionTimes SubscriptionTimes
}

// WithClock sets the server's clock: what is expired, trimmed, behind and limited goes by it, and so does the Date header.
func WithClock(now func() time.Time) Option { return func(o *options) { o.now = now } }

// WithAddress sets the TCP address to listen on instead of a free port of 127.0.0.1.
func WithAddress(address string) Option { return func(o *options) { o.address = address } }

// WithAccount sets the region and the account (12 digits) in every ARN; us-east-1 and 000000000000 otherwise.
func WithAccount(region, account string) Option {
	return func(o *options) { o.region, o.account = region, account }
}

// WithStateDelay keeps streams CREATING, UPDATING and DELETING for that long. Without it these states are passed at once.
func WithStateDelay(d time.Duration) Option { return func(o *options) { o.stateDelay = d } }

// WithConsumerDelay keeps consumers CREATING and DELETING for that long. Without it these states are passed at once.
func WithConsumerDelay(d time.Duration) Option { return func(o *options) { o.consumerDelay = d } }

// WithSubscriptionTimes sets the times of enhanced fan-out.
func WithSubscriptionTimes(t SubscriptionTimes) Option {
	return func(o *options) { o.subscriptionTimes = t }
}

// WithTLS serves HTTPS, with HTTP/2 or HTTP/1.1 as the client asks for by ALPN. The clients made by Client trust the server;
// others need CertPool.
func WithTLS() Option { return func(o *options) { o.secure = true } }

// WithVisibilityDelay hides a record from readers until it is that old.
func WithVisibilityDelay(d time.Duration) Option { return func(o *options) { o.visibility = d } }

// WithReadLimits enforces 5 GetRecords calls and 2 MiB a second on each shard, shared by all that poll it.
func WithReadLimits() Option { return func(o *options) { o.readLimits = true } }

// WithWriteLimits enforces 1,000 records and 1 MiB a second on each shard.
func WithWriteLimits() Option { return func(o *options) { o.writeLimits = true } }

// WithShardLimit sets how many open shards all streams may have together; otherwise there is no limit.
func WithShardLimit(shards int) Option { return func(o *options) { o.shardLimit = shards } }

// WithLag lets lag say what MillisBehindLatest is, given what it really is.
func WithLag(lag func(stream, shard string, actual time.Duration) time.Duration) Option {
	return func(o *options) { o.lag = lag }
}

// Server is a Kinesis Data Streams service in this process. All methods are safe for concurrent use.
type Server struct {
	options
	key      []byte // signs iterators and tokens
	address  string
	port     *heldport.Port // nil where the address was given
	identity *identity      // nil without TLS
	// of the clients made by Client and HTTP2Client
	transport, transport2 *http.Transport

	mu      sync.Mutex // guards what follows; never held across I/O
	streams map[string]*stream
	faults  []*Injected
	counts  map[Call]int
	epoch   uint32 // iterators of an earlier one have expired
	live    map[*subscription]struct{}

	run struct {
		sync.Mutex
		closed bool
		http   *http.Server       // nil while stopped
		cancel context.CancelFunc // ends what waits inside a handler
		done   chan struct{}      // closed when Serve has returned
	}
	connections sync.WaitGroup
	// calls is read-locked by every call under way: over HTTP/2 a call may outlive its connection.
	calls sync.RWMutex
}

// NewServer starts a server; its owner must Close it. It panics when it cannot listen, like httptest.NewServer.
func NewServer(opts ...Option) *Server {
	s, err := Listen(opts...)
	if err != nil {
		panic(err)
	}
	return s
}

// Listen is NewServer with an error for who has the address from a user.
func Listen(opts ...Option) (*Server, error) {
	s := &Server{
		options:   options{now: time.Now, region: "us-east-1", account: "000000000000"},
		key:       make([]byte, 32),
		streams:   map[string]*stream{},
		counts:    map[Call]int{},
		live:      map[*subscription]struct{}{},
		transport: newTransport(false), transport2: newTransport(true),
	}
	for _, o := range opts {
		o(&s.options)
	}
	s.subscriptionTimes = s.subscriptionTimes.orDefault()
	if s.secure {
		s.identity = newIdentity()
		s.transport.TLSClientConfig = &tls.Config{RootCAs: s.identity.pool}
	}
	rand.Read(s.key)
	listener, err := s.listen()
	if err != nil {
		return nil, fmt.Errorf("kinesistest: listening: %w", err)
	}
	s.address = listener.Addr().String()
	s.serve(listener)
	return s, nil
}

// URL is the endpoint for clients. It stays the same over Stop and Restart.
func (s *Server) URL() string {
	if s.identity != nil {
		return "https://" + s.address
	}
	return "http://" + s.address
}

// listen listens where it did before, or where it was told to.
func (s *Server) listen() (net.Listener, error) {
	switch {
	case s.port != nil:
		return s.port.Listen()
	case s.address != "":
		return net.Listen("tcp", s.address)
	case s.options.address != "":
		return net.Listen("tcp", s.options.address)
	}
	port, err := heldport.Hold()
	if err != nil {
		return nil, err
	}
	s.port = port
	return port.Listen()
}

// serve is called by NewServer, and by Restart with run locked.
func (s *Server) serve(listener net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler:     s,
		Protocols:   protocols,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: withConnection,
		// A connection outlives its handlers, and is counted by the goroutine that accepts it: waiting for that goroutine
		// and then for the connections misses none.
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				s.connections.Add(1)
			case http.StateClosed, http.StateHijacked:
				s.connections.Done()
			}
		},
	}
	if s.identity != nil {
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{s.identity.certificate}}
	}
	done := make(chan struct{})
	s.run.http, s.run.cancel, s.run.done = server, cancel, done
	go func() {
		defer close(done)
		if s.identity != nil {
			server.ServeTLS(mutableListener{listener}, "", "")
		} else {
			server.Serve(mutableListener{listener})
		}
	}()
}

// Stop drops all connections and refuses new ones until Restart. Streams and iterators live on. It returns when no call is under way.
func (s *Server) Stop() {
	s.run.Lock()
	defer s.run.Unlock()
	s.stop()
}

func (s *Server) stop() {
	if s.run.http == nil {
		return
	}
	s.run.cancel()
	s.run.http.Close()
	<-s.run.done
	s.connections.Wait()
	s.calls.Lock()
	//lint:ignore SA2001 it is waited for, and nothing else
	s.calls.Unlock()
	s.run.http = nil
}

// Restart listens on the same port again after Stop.
func (s *Server) Restart() error {
	s.run.Lock()
	defer s.run.Unlock()
	if s.run.closed {
		return errors.New("kinesistest: the server is closed")
	}
	if s.run.http != nil {
		return nil
	}
	listener, err := s.listen()
	if err != nil {
		return fmt.Errorf("kinesistest: listening again: %w", err)
	}
	s.serve(listener)
	return nil
}

// Close ends the server and the connections of its clients, and waits until no goroutine of it is left.
func (s *Server) Close() {
	s.run.Lock()
	s.run.closed = true
	s.stop()
	if s.port != nil {
		s.port.Release()
	}
	s.run.Unlock()
	s.transport.CloseIdleConnections()
	s.transport2.CloseIdleConnections()
}

// CreateStream makes an ACTIVE stream of that many shards, at once.
func (s *Server) CreateStream(name string, shards int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if err := s.createStream(name, shards, false, now); err != nil {
		return err
	}
	s.streams[name].readyAt = now
	return nil
}

// DeleteStream removes a stream at once, with its records and consumers.
func (s *Server) DeleteStream(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.find(name, s.now())
	if err != nil {
		return err
	}
	st.dismiss(errorf(ResourceNotFound, "Stream %s under account %s not found.", name, s.account))
	delete(s.streams, name)
	return nil
}

// Put stores one record for each of data, in that order, without a request and without its limits.
func (s *Server) Put(stream, partitionKey string, data ...[]byte) ([]Record, error) {
	records := make([]Record, len(data))
	for i, d := range data {
		records[i] = Record{PartitionKey: partitionKey, Data: d}
	}
	return s.PutRecords(stream, records...)
}

// PutRecords stores records by their PartitionKey, ExplicitHashKey and Data, and returns them with everything else filled in.
func (s *Server) PutRecords(stream string, records ...Record) ([]Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	st, err := s.serving(stream, now)
	if err != nil {
		return nil, err
	}
	stored := make([]Record, len(records))
	for i, r := range records {
		at, err := st.place(r.PartitionKey, r.ExplicitHashKey)
		if err != nil {
			return stored[:i], err
		}
		stored[i] = st.put(at, r, now)
	}
	return stored, nil
}

// Records are the records that a stream holds, by shard ID and in stream order; nil for an unknown stream.
func (s *Server) Records(stream string) map[string][]Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	st, err := s.find(stream, now)
	if err != nil {
		return nil
	}
	held := make(map[string][]Record, len(st.shards))
	for _, sh := range st.shards {
		sh.trim(st, now)
		held[sh.id] = slices.Clone(sh.records)
	}
	return held
}

// Shard describes a shard of a stream.
type Shard struct {
	ID                               string
	StartingHashKey, EndingHashKey   string
	StartingSequence, EndingSequence string // the latter "" while the shard is open
	Parents, Children                []string
	Created, Closed                  time.Time // Closed is zero while the shard is open
}

// Shards are all shards a stream ever had, by index, those included that ListShards has forgotten; nil for an unknown stream.
func (s *Server) Shards(stream string) []Shard {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.find(stream, s.now())
	if err != nil {
		return nil
	}
	shards := make([]Shard, len(st.shards))
	for i, sh := range st.shards {
		shards[i] = Shard{
			ID:               sh.id,
			StartingHashKey:  sh.keys.first.String(),
			EndingHashKey:    sh.keys.last.String(),
			StartingSequence: sh.startingSequence(),
			EndingSequence:   sh.endingSequence(),
			Parents:          shardIDs(sh.parents),
			Children:         shardIDs(sh.children),
			Created:          sh.created,
			Closed:           sh.closed,
		}
	}
	return shards
}

func shardIDs(shards []*shard) []string {
	ids := make([]string, len(shards))
	for i, sh := range shards {
		ids[i] = sh.id
	}
	return ids
}

// SetKeyID turns encryption with a KMS key on for records put from now on, or off with "".
func (s *Server) SetKeyID(stream, keyID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.find(stream, s.now())
	if err != nil {
		return err
	}
	st.keyID = keyID
	return nil
}

// ExpireIterators makes every shard iterator handed out so far an expired one.
func (s *Server) ExpireIterators() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
}

// find is the stream of a name; an error of type ResourceNotFoundException when there is none. Called with mu held.
func (s *Server) find(name string, now time.Time) (*stream, *apiError) {
	st := s.streams[name]
	if st != nil && !st.deletedAt.IsZero() && !now.Before(st.deletedAt) {
		delete(s.streams, name)
		st = nil
	}
	if st == nil {
		return nil, errorf(ResourceNotFound, "Stream %s under account %s not found.", name, s.account)
	}
	return st, nil
}

// serving is find for calls that need a stream with records.
func (s *Server) serving(name string, now time.Time) (*stream, *apiError) {
	st, err := s.find(name, now)
	if err != nil {
		return nil, err
	}
	if !st.serves(now) {
		return nil, errorf(ResourceNotFound, "Stream %s under account %s not found.", name, s.account)
	}
	return st, nil
}
