package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

const (
	modulePath = "github.com/kinesis-pulsar/kinesis-pulsar"
	// stopPatience is how long the process may take to end after a SIGTERM. It needs a second or two.
	stopPatience = time.Minute
)

// errEnded is returned when the pipeline's process ends while it should run.
var errEnded = errors.New("the pipeline's process ended by itself")

// moduleRoot finds the folder of this module from the current one.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Path}} {{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("asking go for the module (is Go on the PATH?): %w", err)
	}
	path, dir, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if path != modulePath {
		return "", fmt.Errorf("run the demo in the folder of the repository: this is the module %s, not %s", path, modulePath)
	}
	return dir, nil
}

// build builds the binary into dir and returns its path.
func build(ctx context.Context, root, dir string) (string, error) {
	binary := filepath.Join(dir, "kinesis-pulsar")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	// Go refuses to stamp the version of a checkout that belongs to somebody else, and the demo does not need one.
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", binary, ".")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building kinesis-pulsar: %w\n%s", err, out)
	}
	return binary, nil
}

// pipeline starts the binary with the demo's configuration, as a user would.
type pipeline struct {
	binary, config string
	log            string // path of the file that takes all that the processes print
	env            []string
}

// process is one run of the binary. One goroutine starts it, waits for it, and ends with it.
type process struct {
	pid     int
	http    string
	command *exec.Cmd
	exited  chan struct{}
	err     error // how it ended; read after exited
}

// start starts a process. It does not end with a context: its owner must kill or stop it.
func (p *pipeline) start() (*process, error) {
	address, release, err := stack.LeaseAddress()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		release()
		return nil, fmt.Errorf("opening the pipeline's log: %w", err)
	}
	defer log.Close()
	command := exec.Command(p.binary, "run", p.config)
	command.Stdout, command.Stderr = log, log
	command.Env = append(append(os.Environ(), p.env...), "HTTP_ADDRESS="+address)
	dieWithParent(command)
	r := &process{http: "http://" + address, command: command, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel tells a child of the death of the thread that started it, not of the process: this thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer release()
		err := command.Start()
		started <- err
		if err != nil {
			return
		}
		r.err = command.Wait()
		close(r.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting the pipeline: %w", err)
	}
	r.pid = command.Process.Pid
	return r, nil
}

// ready waits until the process says that both ends are connected.
func (r *process) ready(ctx context.Context) error {
	for {
		if err := r.sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.http+"/ready", nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			continue // it does not listen yet
		}
		_ = answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			return nil
		}
	}
}

// sleep waits for a while. It fails when ctx ends, or the process.
func (r *process) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.exited:
		return fmt.Errorf("%w: %v", errEnded, r.command.ProcessState)
	}
}

// kill ends the process as a crash would, and returns when it is gone.
func (r *process) kill() {
	_ = r.command.Process.Kill() // an error says that it is gone already
	<-r.exited
}

// stop ends the process in good order and returns how long that took.
func (r *process) stop() (time.Duration, error) {
	began := time.Now()
	if err := r.command.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("stopping the pipeline: %w", err)
	}
	limit := time.NewTimer(stopPatience)
	defer limit.Stop()
	select {
	case <-r.exited:
	case <-limit.C:
		r.kill()
		return 0, fmt.Errorf("the pipeline did not stop within %s of a SIGTERM", stopPatience)
	}
	if r.err != nil {
		return 0, fmt.Errorf("the pipeline did not stop cleanly: %w", r.err)
	}
	return time.Since(began), nil
}

// logTail is the end of what the processes have printed.
func (p *pipeline) logTail() string {
	const lines = 30
	all, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	split := strings.SplitAfter(strings.TrimRight(string(all), "\n"), "\n")
	return strings.Join(split[max(0, len(split)-lines):], "")
}

// stalled tells whether a process has said that it could not renew leases in time.
func (p *pipeline) stalled() bool {
	all, err := os.ReadFile(p.log)
	return err == nil && strings.Contains(string(all), "whose leases could not be renewed")
}
