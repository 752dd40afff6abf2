package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child. It never outlives this process.
type process struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	stdout  *json.Decoder // nil when its output goes to the log
	log     string        // path
	exited  chan struct{}
	err     error // read after exited
}

// start runs a command. With talks set it answers on its standard output, otherwise that goes to the log as well.
func start(command *exec.Cmd, log string, talks bool) (*process, error) {
	p := &process{command: command, log: log, exited: make(chan struct{})}
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	command.Stderr = file
	dieWithParent(command)
	if p.stdin, err = command.StdinPipe(); err != nil {
		return nil, err
	}
	if talks {
		// A pipe of ours: that of os/exec is closed by Wait, which runs beside the reading.
		read, write, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer write.Close()
		command.Stdout, p.stdout = write, json.NewDecoder(read)
	} else {
		command.Stdout = file
	}
	started := make(chan error)
	go func() {
		// The kernel tells a child of the death of the thread that started it, not of the process: this thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = command.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", command.Path, err)
	}
	return p, nil
}

// stop asks the process to end, waits, and kills it when that takes too long, which is an error.
func (p *process) stop() error {
	_ = p.stdin.Close()
	_ = p.command.Process.Signal(syscall.SIGTERM)
	limit := time.NewTimer(15 * time.Second)
	defer limit.Stop()
	select {
	case <-p.exited:
		return nil
	case <-limit.C:
		_ = p.command.Process.Kill()
		<-p.exited
		return p.failure(errors.New("it did not stop within 15 s"))
	}
}

// failure adds the end of the log to an error.
func (p *process) failure(err error) error {
	text, _ := os.ReadFile(p.log)
	if len(text) > 4<<10 {
		text = text[len(text)-4<<10:]
	}
	return fmt.Errorf("%w\n--- the end of its log:\n%s", err, text)
}

// ask sends a request and reads the answer.
func (p *process) ask(request string, answer any) error {
	if _, err := io.WriteString(p.stdin, request+"\n"); err != nil {
		return p.failure(err)
	}
	return p.read(answer)
}

func (p *process) read(answer any) error {
	if err := p.stdout.Decode(answer); err != nil {
		return p.failure(err)
	}
	return nil
}

// sleep waits for a while, or fails with the process or the context.
func (p *process) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.exited:
		return p.failure(fmt.Errorf("it ended: %w", errors.Join(p.err, errors.New("while it should run"))))
	}
}

// clockTick is the unit of /proc's times, the same on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// cpu is the processor time that the process has used, all threads, user and system.
func (p *process) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	return parseCPU(string(text))
}

// parseCPU reads utime and stime, fields 14 and 15. The second field is the command in parentheses and may hold anything.
func parseCPU(stat string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat is %q", stat)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// peakRSS is the most memory that the process has had resident so far, in bytes.
func (p *process) peakRSS() (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	return parsePeak(string(text))
}

func parsePeak(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("/proc/PID/status names no VmHWM")
}
