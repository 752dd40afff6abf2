//go:build linux || darwin

package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var errStop = errors.New("stopped by the test")

// contextWhen returns a context that ends, with errStop, once the condition holds.
func contextWhen(t *testing.T, condition func() bool) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !condition() && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel(errStop)
	}()
	return ctx, func() { cancel(errStop); <-done }
}

// fakeService is a service that is a shell script, ready when it has made the file "ready".
func fakeService(t *testing.T, script string) *Service {
	t.Helper()
	t.Setenv("KINESIS_PULSAR_CACHE", t.TempDir())
	s, err := open("fake service", 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.command = func() *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Dir = s.scratch.dir
		return cmd
	}
	s.probe = func(context.Context) error {
		_, err := os.Stat(s.scratch.path("ready"))
		return err
	}
	return s
}

func TestStartShowsTheLogOfAServiceThatEnds(t *testing.T) {
	s := fakeService(t, "echo cannot read my configuration; exit 3")
	err := s.Start(t.Context())
	for _, want := range []string{"ended before it was ready", "exit status 3", "cannot read my configuration"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	s := fakeService(t, "echo still thinking; touch thinking; sleep 600")
	ctx, cancel := contextWhen(t, func() bool { _, err := os.Stat(s.scratch.path("thinking")); return err == nil })
	defer cancel()
	err := s.Start(ctx)
	if !errors.Is(err, errStop) || !strings.Contains(err.Error(), "still thinking") {
		t.Errorf("error %v, want the context's cause and the log", err)
	}
	if s.Running() {
		t.Error("a service that was given up still runs")
	}
}

func TestStartTriesAgainWhenAPortIsTaken(t *testing.T) {
	s := fakeService(t, `[ -e once ] && { touch ready; exec sleep 600; }; touch once; echo 'BindException: Address already in use'; exit 1`)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid := s.PID()
	if err := s.Start(t.Context()); err != nil || s.PID() != pid {
		t.Errorf("starting a running service: process %d became %d, %v", pid, s.PID(), err)
	}
}

// The wait for a service that does not heed SIGTERM is cut short here; the group must go as a whole.
func TestStopKillsWhatDoesNotListen(t *testing.T) {
	s := fakeService(t, `trap '' TERM; sleep 600 & echo $! >child; touch ready; wait; wait; sleep 600`)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var child int
	text, err := os.ReadFile(s.scratch.path("child"))
	if err == nil {
		_, err = fmt.Sscan(string(text), &child)
	}
	if err != nil {
		t.Fatal(err)
	}
	pid := s.PID()
	s.mu.process.stop(50 * time.Millisecond)
	if alive(pid) {
		t.Errorf("process %d lives on", pid)
	}
	if s.Running() {
		t.Error("still said to run")
	}
	// The grandchild is reaped by whoever adopts it.
	for deadline := time.Now().Add(time.Minute); alive(child) && !zombie(child); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d, a child of the service, lives on", child)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	s := fakeService(t, "touch ready; exec sleep 600")
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid, dir := s.PID(), s.scratch.dir
	if !alive(pid) {
		t.Fatalf("no process %d", pid)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if alive(pid) {
		t.Errorf("process %d lives on", pid)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	if err := s.Start(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("start after close: %v", err)
	}
}

// A pause that returned while threads still ran would let a paused server answer now and then.
func TestPauseReturnsWhenNothingRuns(t *testing.T) {
	s := fakeService(t, "touch ready; while :; do echo alive >>beats; done")
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	size := func() int64 {
		info, err := os.Stat(s.scratch.path("beats"))
		if err != nil {
			return 0
		}
		return info.Size()
	}
	for range 20 {
		s.Pause()
		s.Pause() // pausing twice is pausing
		before := size()
		time.Sleep(2 * time.Millisecond)
		if after := size(); after != before {
			t.Fatalf("wrote %d bytes while paused", after-before)
		}
		s.Resume()
		for size() == before {
			time.Sleep(time.Millisecond)
		}
	}
}

func TestNeverSignalsAProcessThatIsGone(t *testing.T) {
	s := fakeService(t, "touch ready; exec sleep 600")
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	// The id is free now; give the record that of this test. A signal would end the test.
	s.mu.process.pid = os.Getpid()
	s.Kill()
	s.Stop()
	s.Pause()
	s.Resume()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestMissingExecutableIsAnError(t *testing.T) {
	s := fakeService(t, "")
	s.command = func() *exec.Cmd { return exec.Command("/nowhere/java") }
	if err := s.Start(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	s.Kill() // nothing to kill
}

func TestLogTailBeginsAtALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("first line\nsecond line\nthird line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[int64]string{
		1000: "first line\nsecond line\nthird line\n",
		15:   "third line\n",
		5:    "",
	} {
		if got := logTail(path, limit); got != want {
			t.Errorf("the last %d bytes: %q, want %q", limit, got, want)
		}
	}
	if got := logTail(path+".missing", 10); got != "" {
		t.Errorf("a missing log: %q", got)
	}
}

func TestLeasedPortsAreFreeAndGivenOnce(t *testing.T) {
	t.Setenv("KINESIS_PULSAR_CACHE", t.TempDir())
	seen := map[int]bool{}
	for range 20 {
		lease, err := leasePorts(4)
		if err != nil {
			t.Fatal(err)
		}
		defer lease.release()
		for _, port := range lease.ports {
			if seen[port] {
				t.Errorf("port %d was given twice", port)
			}
			seen[port] = true
			if port >= ephemeralStart() {
				t.Errorf("port %d may be given to an outgoing connection", port)
			}
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				t.Errorf("port %d: %v", port, err)
				continue
			}
			l.Close()
		}
	}
}

func TestMergedConfHasEveryKeyOnce(t *testing.T) {
	got := mergeConf("# a=comment\na=1\nb=2\n", map[string]string{"a": "3", "c": "4=5"})
	if want := "# a=comment\nb=2\na=3\nc=4=5\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPulsarRefusesAFolderItCannotUse(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp/my folder")
	if _, err := StartPulsar(t.Context(), PulsarOptions{}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "TMPDIR") {
		t.Errorf("error %v, want one that names TMPDIR", err)
	}
}

func TestScratchOfTheLivingStays(t *testing.T) {
	s, err := newScratch("test")
	if err != nil {
		t.Fatal(err)
	}
	removeAbandoned(os.TempDir())
	if _, err := os.Stat(s.dir); err != nil {
		t.Errorf("a folder in use was removed: %v", err)
	}
	// As when the process dies: the lock goes, the folder stays.
	s.lock.Close()
	removeAbandoned(os.TempDir())
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Errorf("an abandoned folder stays: %v", err)
	}
}
