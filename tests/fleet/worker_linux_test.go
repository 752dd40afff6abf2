package fleet

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the child when this process dies without doing so: a paused worker would stay for
// ever.
func dieWithParent(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
