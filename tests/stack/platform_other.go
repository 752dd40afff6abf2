//go:build !linux && !darwin

package stack

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// supported is asked before anything else, so that what follows is never reached. It lets the packages that use the
// services compile, and skip.
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
func awaitPaused(int)                                    {}
