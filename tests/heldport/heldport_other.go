//go:build !linux

package heldport

// Hold is a port of 127.0.0.1 that is chosen by the first Listen. Other systems do not let two sockets share a port as Linux does,
// so that it is free between a stop and the next start.
func Hold() (*Port, error) { return &Port{address: "127.0.0.1:0", release: func() {}}, nil }
