//go:build darwin || freebsd || netbsd || openbsd

package stack

import (
	"os/exec"
	"syscall"
)

const (
	signalPause    = syscall.SIGSTOP
	signalContinue = syscall.SIGCONT
)

// dieWithParent can do nothing here: there is no parent-death signal. The child stays in the group of its parent
// instead, so that an interrupt from the terminal ends both.
func dieWithParent(*exec.Cmd) {}

func signalGroup(pid int, s syscall.Signal) {
	// The only error left is "no such process": the child has ended meanwhile.
	_ = syscall.Kill(pid, s)
}
