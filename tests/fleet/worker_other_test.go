//go:build !linux

package fleet

import "os/exec"

// dieWithParent is Linux' alone: elsewhere a worker may outlive a test that is killed.
func dieWithParent(*exec.Cmd) {}
