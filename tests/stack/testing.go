package stack

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
)

// Pulsar returns a broker of the test's own, which ends with the test.
func Pulsar(t testing.TB) *PulsarService {
	t.Helper()
	return PulsarWith(t, PulsarOptions{})
}

// PulsarWith is [Pulsar] with options.
func PulsarWith(t testing.TB, o PulsarOptions) *PulsarService {
	t.Helper()
	skipUnlessAvailable(t, pulsarJars)
	p, err := StartPulsar(t.Context(), o)
	checkStarted(t, err)
	closeWith(t, p.Service)
	return p
}

// DynamoDB returns a DynamoDB Local of the test's own, which ends with the test.
func DynamoDB(t testing.TB) *DynamoDBService {
	t.Helper()
	return DynamoDBWith(t, DynamoDBOptions{})
}

// DynamoDBWith is [DynamoDB] with options.
func DynamoDBWith(t testing.TB, o DynamoDBOptions) *DynamoDBService {
	t.Helper()
	skipUnlessAvailable(t, dynamoDBJars)
	d, err := StartDynamoDB(t.Context(), o)
	checkStarted(t, err)
	closeWith(t, d.Service)
	return d
}

// SharedPulsar returns the broker that all tests of this binary share, started by the first who asks. Tests keep
// apart by the names of their topics or namespaces, and leave it running. Needs [Main] or [StopAfter].
func SharedPulsar(t testing.TB) *PulsarService {
	t.Helper()
	skipUnlessAvailable(t, pulsarJars)
	return sharedPulsar.get(t, func(ctx context.Context) (*PulsarService, error) { return StartPulsar(ctx, PulsarOptions{}) })
}

// SharedDynamoDB returns the DynamoDB Local that all tests of this binary share, started by the first who asks. Tests
// keep apart by the names of their tables, and leave it running. Needs [Main] or [StopAfter].
func SharedDynamoDB(t testing.TB) *DynamoDBService {
	t.Helper()
	skipUnlessAvailable(t, dynamoDBJars)
	return sharedDynamoDB.get(t, func(ctx context.Context) (*DynamoDBService, error) { return StartDynamoDB(ctx, DynamoDBOptions{}) })
}

// skipUnlessAvailable skips the test when a service cannot run here, or fails it when the services are required.
func skipUnlessAvailable(t testing.TB, set *jarSet) {
	t.Helper()
	if Required() {
		if err := available(set); err != nil {
			t.Fatalf("%s is set: %v", requireVariable, err)
		}
		return
	}
	if testing.Short() {
		t.Skip("skipping a test with real services: -short")
	}
	if err := available(set); err != nil {
		t.Skip(err)
	}
}

// checkStarted ends the test when err says that a service did not start. Only what this machine lacks is a reason to
// skip (the network for a first download shows only now); a service that breaks is a failure everywhere.
func checkStarted(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrUnavailable) && !Required():
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

func closeWith(t testing.TB, s *Service) {
	t.Cleanup(func() {
		showLogOfFailed(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func showLogOfFailed(t testing.TB, s *Service) {
	if t.Failed() {
		t.Logf("the end of the log of %s:\n%s", s.name, s.LogTail())
	}
}

// A shared holds the one instance of a service in this process.
type shared[S interface{ service() *Service }] struct {
	mu struct {
		sync.Mutex
		asked    bool
		instance S
		err      error
	}
}

func (s *Service) service() *Service { return s }

var (
	sharedPulsar   shared[*PulsarService]
	sharedDynamoDB shared[*DynamoDBService]

	// owned says that somebody will stop the shared instances. Set before any test runs.
	owned bool
)

func (s *shared[S]) get(t testing.TB, start func(context.Context) (S, error)) S {
	t.Helper()
	if !owned {
		t.Fatal("a shared service needs an owner that stops it: func TestMain(m *testing.M) { stack.Main(m) }")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.asked {
		// One try for all tests: each would wait as long for the same end.
		s.mu.asked = true
		s.mu.instance, s.mu.err = start(t.Context())
	}
	checkStarted(t, s.mu.err)
	svc := s.mu.instance.service()
	if !svc.Running() {
		t.Fatalf("the shared %s is gone: a test must stop or kill only an instance of its own; the end of its log:\n%s", svc.name, svc.LogTail())
	}
	t.Cleanup(func() { showLogOfFailed(t, svc) })
	return s.mu.instance
}

func (s *shared[S]) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.asked || s.mu.err != nil {
		return nil
	}
	return s.mu.instance.service().Close()
}

// Main runs the tests of a binary, stops the shared services, and exits. It is a TestMain:
//
//	func TestMain(m *testing.M) { stack.Main(m) }
func Main(m *testing.M) { os.Exit(StopAfter(m).Run()) }

// StopAfter returns m with the shared services stopped after its run, for those who wrap it further:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(stack.StopAfter(m)) }
func StopAfter(m interface{ Run() int }) interface{ Run() int } {
	owned = true
	return stopAfter{m}
}

type stopAfter struct{ m interface{ Run() int } }

func (s stopAfter) Run() int {
	code := s.m.Run()
	if err := errors.Join(sharedPulsar.close(), sharedDynamoDB.close()); err != nil && code == 0 {
		os.Stderr.WriteString(err.Error() + "\n")
		code = 1
	}
	return code
}
