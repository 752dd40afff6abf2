package stack

import (
	"errors"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	signalPause    = syscall.SIGSTOP
	signalContinue = syscall.SIGCONT
)

// dieWithParent puts the child into a process group of its own, so that all of it can be signalled, and has the
// kernel kill it when its parent dies: a crashed test or one ended by its timeout runs no clean-up.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func signalGroup(pid int, s syscall.Signal) {
	// The only error left is "no such process": the child has ended meanwhile.
	_ = syscall.Kill(-pid, s)
}

// awaitPaused waits until the kernel reports that every thread of a child has stopped: the signal alone takes its time
// to reach threads that run. It asks for stops only, so the child's end stays for the one who waits for that.
func awaitPaused(pid int) {
	var err error = unix.EINTR
	for errors.Is(err, unix.EINTR) {
		err = unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED, nil)
	}
}
