// Package heldport keeps the port of a fake server for as long as the fake may listen on it again.
//
// A fake that stops and comes back at the same address would otherwise leave its port to whoever asks for one meanwhile: another
// fake of a test that runs beside, or an outgoing connection. Then clients that are to find nobody find a stranger, and the fake
// does not come back. It is rare for one stop, and not for all of them in a whole run.
package heldport

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// patience is how long Listen waits for a port that is somebody else's, where a port cannot be held.
const patience = 5 * time.Second

// Port is a port of 127.0.0.1 that nobody else is given.
type Port struct {
	address string
	release func()
}

// Address is the host and the port, which is 0 before the first Listen where ports cannot be held.
func (p *Port) Address() string { return p.address }

// Listen listens on the port; it may be called again when that listener is closed.
func (p *Port) Listen() (net.Listener, error) {
	listener, err := net.Listen("tcp", p.address)
	for deadline := time.Now().Add(patience); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
		listener, err = net.Listen("tcp", p.address)
	}
	if err != nil {
		return nil, err
	}
	p.address = listener.Addr().String()
	return listener, nil
}

// Release gives the port back. Listeners on it go on.
func (p *Port) Release() { p.release() }
