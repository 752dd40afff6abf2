package stack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// startPatience bounds a start from the fork to the first right answer. A quiet machine needs 2 s (DynamoDB Local) and
// 5 s (Pulsar); one with ten times more work than processors needed 47 s.
const startPatience = 3 * time.Minute

// ErrClosed is returned when a service is started again after Close.
var ErrClosed = errors.New("service closed")

// A Service is one service process over its life: it can be stopped, killed and started again, with the same ports and
// the same data folder. All methods may be called at any time, from any goroutine.
type Service struct {
	name    string
	scratch *scratch
	ports   *portLease
	command func() *exec.Cmd
	probe   func(context.Context) error

	mu struct {
		sync.Mutex // held over starts and stops: they exclude each other
		process    *process
		closed     bool
	}
}

// open makes the scratch folder and leases n ports.
func open(name string, n int) (*Service, error) {
	ports, err := leasePorts(n)
	if err != nil {
		return nil, err
	}
	dir, err := newScratch(strings.ToLower(strings.ReplaceAll(name, " ", "-")))
	if err != nil {
		ports.release()
		return nil, err
	}
	return &Service{name: name, scratch: dir, ports: ports}, nil
}

// Start starts the process again after Stop or Kill and waits until it answers. It does nothing when the process
// runs. ctx bounds the start only. An error holds the end of the service's log.
func (s *Service) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return fmt.Errorf("starting %s: %w", s.name, ErrClosed)
	}
	if s.mu.process != nil && s.mu.process.running() {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("no right answer for %v", startPatience))
	defer cancel()
	var err error
	for range 3 {
		if s.mu.process, err = startProcess(s.name, s.command(), s.LogFile()); err != nil {
			return err
		}
		if err = s.mu.process.awaitReady(ctx, s.probe); err == nil {
			return nil
		}
		s.mu.process.kill()
		// A port may have gone to a stranger for a moment. Pulsar's bookie, for one, keeps a port of its own choice
		// from the range of outgoing connections.
		if ctx.Err() != nil || !s.mu.process.printed("Address already in use") {
			return err
		}
	}
	return err
}

// Stop ends the process in good order (SIGTERM), or kills it when it takes more than 20 s, and returns when it is gone.
// A stopped service can be started again.
func (s *Service) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.process != nil {
		s.mu.process.stop(20 * time.Second)
	}
}

// Kill ends the process at once (SIGKILL, as a crash would) and returns when it is gone. A killed service can be
// started again.
func (s *Service) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.process != nil {
		s.mu.process.kill()
	}
}

// Pause halts the process without ending it (SIGSTOP): its connections stay open and nothing answers. It returns when
// the process stands still.
func (s *Service) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.process != nil {
		s.mu.process.pause()
	}
}

// Resume lets a paused process continue.
func (s *Service) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.process != nil {
		s.mu.process.resume()
	}
}

// Running reports whether the process is alive (a paused one is).
func (s *Service) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.process != nil && s.mu.process.running()
}

// PID returns the id of the process; 0 when it does not run.
func (s *Service) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.process == nil || !s.mu.process.running() {
		return 0
	}
	return s.mu.process.pid
}

// LogFile returns the path of the file that holds what the process printed, over all its starts. Close removes it.
func (s *Service) LogFile() string { return s.scratch.path("service.log") }

// LogTail returns the last lines of the log, at most 4 KiB.
func (s *Service) LogTail() string { return logTail(s.LogFile(), 4<<10) }

// Close kills the process and removes its data and its log. Further calls do nothing.
func (s *Service) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil
	}
	s.mu.closed = true
	if s.mu.process != nil {
		s.mu.process.kill()
	}
	s.ports.release()
	if err := s.scratch.remove(); err != nil {
		return fmt.Errorf("removing the data of %s: %w", s.name, err)
	}
	return nil
}

// java returns a command that runs a Java class in the scratch folder, with a small heap.
func (s *Service) java(java javaRuntime, options []string, classPath, class string, args ...string) *exec.Cmd {
	all := []string{"-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError",
		// Native libraries are unpacked here, and stay behind after a kill.
		"-Djava.io.tmpdir=" + s.scratch.dir}
	all = append(all, options...)
	all = append(all, "-cp", classPath, class)
	all = append(all, args...)
	cmd := exec.Command(java.path, all...)
	cmd.Dir = s.scratch.dir
	return cmd
}

// client speaks to services on loopback: no proxy, and no connection kept, so that no goroutine outlives a call.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
