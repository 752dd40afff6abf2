package fleet

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

var (
	full    = flag.Bool("fleet.full", false, "tell the stories at their full sizes, with Apache Pulsar")
	figures = flag.Bool("fleet.figures", false, "measure, and print tables, instead of telling the stories")
	raced   = flag.Bool("fleet.race", false, "build the workers with the race detector")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		// Most of a story is waiting, but a start takes a processor for a second, which another story's leases may not survive.
		_ = flag.Set("test.parallel", "1")
	}
	pulsartest.VerifyTestMain(stack.StopAfter(withBinary{m}))
}

// withBinary has the workers' binary built before the tests, and removed after them.
type withBinary struct{ m *testing.M }

func (w withBinary) Run() int {
	remove := build()
	defer remove()
	return w.m.Run()
}

var binary struct {
	path string
	err  error
}

// build makes the binary before any test begins: it takes all processors, and leases would be lost meanwhile.
func build() (remove func()) {
	dir, err := os.MkdirTemp("", "kinesis-pulsar-fleet-")
	if err != nil {
		binary.err = err
		return func() {}
	}
	binary.path = filepath.Join(dir, "kinesis-pulsar")
	arguments := []string{"build", "-buildvcs=false", "-o", binary.path}
	if *raced {
		arguments = append(arguments, "-race")
	}
	if out, err := exec.Command("go", append(arguments, "github.com/kinesis-pulsar/kinesis-pulsar")...).CombinedOutput(); err != nil {
		binary.err = fmt.Errorf("building the binary: %w: %s", err, out)
	}
	return func() { _ = os.RemoveAll(dir) }
}

// story skips a story while figures are asked for, and lets the others run beside it.
func story(t *testing.T) {
	t.Helper()
	if *figures {
		t.Skip("-fleet.figures measures instead")
	}
	t.Parallel()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience is how long a condition may take to come true on a busy machine.
const patience = 3 * time.Minute

// pollEvery is the pause between two looks at the lease table, which cost DynamoDB Local as much as three workers do.
const pollEvery = 50 * time.Millisecond

// eventually polls a condition.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}
