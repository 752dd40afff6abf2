//go:build !linux

package main

import "os/exec"

// dieWithParent can do nothing here. The child stays in the group of this process, so that the terminal's interrupt
// ends both.
func dieWithParent(*exec.Cmd) {}
