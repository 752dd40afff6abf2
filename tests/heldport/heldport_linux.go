package heldport

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// Hold finds a free port of 127.0.0.1 and binds it without listening, until it is released. Connections to it are refused. The
// kernel gives it to nobody who asks for any port, and lets Listen have it, again and again: two sockets with SO_REUSEADDR,
// which Go's listeners have, may share a port as long as one of them does not listen.
func Hold() (*Port, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("holding a port: %w", os.NewSyscallError("socket", err))
	}
	fail := func(call string, err error) (*Port, error) {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("holding a port: %w", os.NewSyscallError(call, err))
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return fail("setsockopt", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fail("bind", err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		return fail("getsockname", err)
	}
	return &Port{
		address: net.JoinHostPort("127.0.0.1", strconv.Itoa(bound.(*syscall.SockaddrInet4).Port)),
		release: sync.OnceFunc(func() { _ = syscall.Close(fd) }),
	}, nil
}
