// Package command holds the commands of the binary that Benthos does not have, and lint, which does more than Benthos' own.
// Each is thin: it reads its arguments, asks the package that knows, and prints.
//
// Invariants:
//   - Whatever is wrong with arguments, files or services is told in one line on the error output, with a non-zero exit code;
//     no stack trace, no usage text that hides it.
//   - I12: nothing that is printed holds a secret.
package command

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/urfave/cli/v2"
)

// Binary is what the commands need to know of the binary that they are part of.
type Binary struct {
	Name    string
	Version string
	Schema  func() *service.ConfigSchema
	// Stdout and Stderr are the process's own when nil.
	Stdout, Stderr io.Writer
}

func (b Binary) out() io.Writer {
	if b.Stdout == nil {
		return os.Stdout
	}
	return b.Stdout
}

func (b Binary) err() io.Writer {
	if b.Stderr == nil {
		return os.Stderr
	}
	return b.Stderr
}

// Options are the commands, as options of Benthos' command line.
func (b Binary) Options() []service.CLIOptFunc {
	var options []service.CLIOptFunc
	for _, c := range b.commands() {
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
			return fmt.Errorf("%w; %s %s --help tells what there is", err, b.Name, c.Name)
		}
		options = append(options, service.CLIOptAddCommand(c))
	}
	return append(options, (&start{Binary: b}).options()...)
}

// errFindings ends lint and run. The findings have been told before.
var errFindings = errors.New("the config has errors")
