package pulsartest

import "errors"

var errNoProducer = errors.New("which it has not")

// IsLateSend tells whether a problem is one that the client (v0.21.0) makes by itself: it hands messages and the closing of their
// producer to its writer by different channels, so that a message may follow. A broker drops the connection for it, which is
// one failure more for whoever uses the client.
func IsLateSend(problem error) bool { return errors.Is(problem, errNoProducer) }
