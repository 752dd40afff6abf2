// Package leaktest looks for goroutines that the tests of a package leave behind, with the patience that a busy machine needs.
//
// A goroutine that has been told to end, or whose connection was closed, ends when it is given a processor. goleak waits less than
// half a second for that, which now and then is not enough where compilers and Java run beside: a test suite in good order then
// fails by chance. What leaks stays, however long it is waited for.
package leaktest

import (
	"net/http"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end. Calls of the Pulsar client, which cannot be cancelled, take up to half a minute
// to a broker that is away.
const patience = 90 * time.Second

// VerifyTestMain runs the tests of a package and fails it if goroutines are left. It does not return.
func VerifyTestMain(m goleak.TestingM, options ...goleak.Option) {
	goleak.VerifyTestMain(patient{m, options}, options...)
}

// patient gives goroutines their time between the tests and goleak's look.
type patient struct {
	m       goleak.TestingM
	options []goleak.Option
}

func (p patient) Run() int {
	code := p.m.Run()
	if code != 0 {
		return code // goleak does not look then
	}
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(patience); goleak.Find(p.options...) != nil && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
	return code
}
