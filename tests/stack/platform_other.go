//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package stack

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// supported is checked before anything else, so the rest is never reached; it only keeps the package compiling.
const supported = false

const (
	signalPause    = syscall.Signal(0)
	signalContinue = syscall.Signal(0)
)

var errLocked = errors.New("locked by another process")

func lockFile(context.Context, string) (*os.File, error) { return nil, ErrUnavailable }
func tryLockFile(string) (*os.File, error)               { return nil, ErrUnavailable }
func dieWithParent(*exec.Cmd)                            {}
func signalGroup(int, syscall.Signal)                    {}
