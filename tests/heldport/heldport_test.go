package heldport

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// A fake stops and comes back while others ask for ports: it finds its own free, and its clients find nobody meanwhile.
func TestAPortIsHeldBetweenAStopAndTheNextStart(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("ports are held on Linux only")
	}
	port, err := Hold()
	if err != nil {
		t.Fatal(err)
	}
	defer port.Release()
	address := port.Address()
	for range 3 {
		if conn, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
			if err == nil {
				_ = conn.Close()
			}
			t.Errorf("nobody listens: %v", err)
		}
		for range 50 {
			other, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if other.Addr().String() == address {
				t.Fatalf("%s was given away", address)
			}
		}
		listener, err := port.Listen()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		// The side that closes first is left with a connection that the kernel remembers for a minute.
		_ = accepted.Close()
		_ = listener.Close()
		_ = conn.Close()
	}
	if !strings.HasPrefix(address, "127.0.0.1:") {
		t.Errorf("the address is %s", address)
	}
}
