package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a child process whose output goes to a log file. One goroutine starts it, waits for it, and ends
// with it.
type process struct {
	name string
	pid  int
	log  string // path of the log file
	from int64  // where the output of this child begins in it

	paused bool // set and read by pause and resume, which their caller keeps apart

	exited chan struct{} // closed when the child is gone and reaped
	err    error         // how it ended; read after exited
}

// startProcess starts cmd with its output appended to the file logPath. The child leads a process group of its own
// where the platform can also kill it when its parent dies (see dieWithParent).
func startProcess(name string, cmd *exec.Cmd, logPath string) (*process, error) {
	out, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", name, err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, out, out
	dieWithParent(cmd)

	from, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("finding the end of the log of %s: %w", name, err)
	}
	p := &process{name: name, log: logPath, from: from, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel sends the parent-death signal when the *thread* that forked the child ends, and Go ends
		// threads as it likes. So this goroutine keeps its thread until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		out.Close()
		if err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return p, nil
}

// running reports whether the child has not been reaped yet.
func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// kill ends the child with SIGKILL and waits until it is reaped.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.exited
}

// stop asks the child to end with SIGTERM, waits up to patience, and kills it after that.
func (p *process) stop(patience time.Duration) {
	p.signal(syscall.SIGTERM)
	p.resume() // A paused child does not see the request before it continues.
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-p.exited:
	case <-t.C:
		p.kill()
	}
}

// pause halts the child and returns when all its threads stand still.
func (p *process) pause() {
	if p.paused || !p.running() {
		return
	}
	p.paused = true
	signalGroup(p.pid, signalPause)
	awaitPaused(p.pid)
}

// AwaitPaused returns when all threads of a child of this process, which was sent SIGSTOP, stand still: what comes later did not find
// it running.
func AwaitPaused(pid int) { awaitPaused(pid) }

func (p *process) resume() {
	p.paused = false
	p.signal(signalContinue)
}

// signal sends s to the child's process group, unless the child was reaped: its id may belong to another process then.
func (p *process) signal(s syscall.Signal) {
	if p.running() {
		signalGroup(p.pid, s)
	}
}

// failure wraps what went wrong with the last lines of the child's log, where the cause usually is.
func (p *process) failure(cause error) error {
	return fmt.Errorf("%w\n--- the end of %s\n%s", cause, p.log, logTail(p.log, 4<<10))
}

// printed reports whether the child's output, of which a megabyte is enough, holds the text.
func (p *process) printed(text string) bool {
	f, err := os.Open(p.log)
	if err != nil {
		return false
	}
	defer f.Close()
	output, err := io.ReadAll(io.NewSectionReader(f, p.from, 1<<20))
	return err == nil && bytes.Contains(output, []byte(text))
}

// awaitReady calls probe until it answers nil. It gives up when the child ends, or ctx does.
func (p *process) awaitReady(ctx context.Context, probe func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("not asked yet")
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := probe(attempt)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-p.exited:
			return p.failure(fmt.Errorf("%s ended before it was ready: %w", p.name, exitError(p.err)))
		case <-ctx.Done():
			return p.failure(fmt.Errorf("%s is not ready (%v): %w", p.name, last, context.Cause(ctx)))
		case <-tick.C:
		}
	}
}

func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// logTail returns the last whole lines of a file, at most limit bytes; "" when it cannot be read.
func logTail(path string, limit int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	from := max(0, size-limit)
	buf := make([]byte, size-from)
	n, err := f.ReadAt(buf, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	buf = buf[:n]
	if from > 0 {
		if i := bytes.IndexByte(buf, '\n'); i >= 0 {
			buf = buf[i+1:]
		}
	}
	return string(buf)
}
