package fleet

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

// worker is a process of the binary, with a configuration of its own.
type worker struct {
	t    testing.TB
	name string
	pid  int
	cmd  *exec.Cmd
	logs logs
	done chan struct{}
	err  error // of Wait; after done
}

// spawn starts the binary, until the test ends.
func spawn(t testing.TB, name, yaml string) *worker {
	t.Helper()
	must(t, binary.err)
	path := filepath.Join(t.TempDir(), "config.yaml")
	must(t, os.WriteFile(path, []byte(yaml), 0o600))
	w := &worker{t: t, name: name, cmd: exec.Command(binary.path, "run", path), done: make(chan struct{})}
	w.cmd.Stdout, w.cmd.Stderr = &w.logs, &w.logs
	dieWithParent(w.cmd)
	started := make(chan error)
	go func() {
		// The kernel tells a child of the death of the thread that started it, not of the process: this thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := w.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		w.err = w.cmd.Wait()
		close(w.done)
	}()
	must(t, <-started)
	w.pid = w.cmd.Process.Pid
	t.Cleanup(func() {
		w.kill()
		w.logs.check(t, name)
	})
	return w
}

// running tells whether the process is there; a paused one is.
func (w *worker) running() bool {
	select {
	case <-w.done:
		return false
	default:
		return true
	}
}

// kill is kill -9. It returns when the process is gone.
func (w *worker) kill() {
	if w.running() {
		_ = w.cmd.Process.Kill()
		<-w.done
	}
}

// pause returns when the process stands still.
func (w *worker) pause() {
	_ = w.cmd.Process.Signal(syscall.SIGSTOP)
	stack.AwaitPaused(w.pid)
}

func (w *worker) resume() { _ = w.cmd.Process.Signal(syscall.SIGCONT) }

// stop ends the process in good order, and returns how long that took.
func (w *worker) stop() time.Duration {
	w.t.Helper()
	began := time.Now()
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-w.done:
	case <-time.After(patience):
		w.t.Fatalf("SIGTERM does not end worker %s", w.name)
	}
	if w.err != nil {
		w.t.Errorf("worker %s ended with %v", w.name, w.err)
	}
	return time.Since(began)
}

// logs collects what a worker prints.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// has tells whether a line holds all of the texts.
func (l *logs) has(texts ...string) bool { return l.count(texts...) > 0 }

// count is the number of lines that hold all of the texts.
func (l *logs) count(texts ...string) (n int) {
lines:
	for line := range strings.Lines(l.String()) {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue lines
			}
		}
		n++
	}
	return n
}

// check fails the test for what must never be logged, and shows the log of a failed one.
func (l *logs) check(t testing.TB, name string) {
	for _, never := range []string{"panic:", "DATA RACE", "fatal error:"} {
		if l.has(never) {
			t.Errorf("worker %s logged %q", name, never)
		}
	}
	if t.Failed() {
		const most = 80
		lines := strings.SplitAfter(l.String(), "\n")
		if len(lines) > most {
			lines = append(append(lines[:most/2:most/2], fmt.Sprintf("... %d lines ...\n", len(lines)-most)), lines[len(lines)-most/2:]...)
		}
		t.Logf("worker %s:\n%s", name, strings.Join(lines, ""))
	}
}
