package stack

import (
	"os/exec"
	"syscall"
	"time"
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

// awaitPaused gives the signal time to reach all threads: x/sys/unix has no way to wait for that here.
func awaitPaused(int) { time.Sleep(100 * time.Millisecond) }
