package stack

import (
	"os/exec"
	"syscall"
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
