//go:build linux || darwin

package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const supported = true

// lockFile waits for the exclusive lock of the file at path, which it makes when missing. The lock ends with the
// returned file, at the latest with the process. Locks of one process exclude each other as well.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := tryLockFile(path)
		if err == nil || !errors.Is(err, errLocked) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %s, which another process holds: %w", path, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

var errLocked = errors.New("locked by another process")

// tryLockFile is lockFile without the wait: errLocked when somebody else holds the lock.
func tryLockFile(path string) (*os.File, error) {
	// O_CLOEXEC is Go's default: a child does not inherit the lock and keep it when we are gone.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening a lock file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return f, nil
}
