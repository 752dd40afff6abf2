package command

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// stockHelp prints help as the library of the command line does.
var stockHelp = cli.HelpPrinter

// ownExamples puts components that are there in the place of those of Benthos' help that are not, in its examples of create.
var ownExamples = strings.NewReplacer("kafka//file", "kinesis_pulsar//pulsar", "stdin/bloblang,awk/nats", "kinesis_pulsar/mapping/pulsar",
	"file,http_server/protobuf/http_client", "file,http_server/mapping/http_client")

// SetHelp makes the help of the whole command line the binary's: it says what the binary is for, and is printed to those who ask for
// it. Benthos' commands print it below every error as well, forty lines long, and the error is out of sight.
//
// The library keeps its printer in a variable of the process, so this is for the binary alone.
func (b Binary) SetHelp(args []string, purpose string) {
	cli.HelpPrinter = func(w io.Writer, template string, data any) {
		app, isApp := data.(*cli.App)
		if isApp {
			app.Usage = purpose
			app.Description = ownExamples.Replace(app.Description)
		}
		if c, is := data.(*cli.Command); is {
			c.Description = ownExamples.Replace(c.Description)
		}
		if !helpWanted(args, app) {
			fmt.Fprintf(w, "%s --help tells what there is\n", strings.Join(append([]string{b.Name}, commandOf(data)...), " "))
			return
		}
		stockHelp(w, template, data)
	}
}

// helpWanted tells whether a command line asks for help, by a flag, by the command of that name, or by naming a command that has
// nothing to do without another. App is nil unless it is the help of the whole program.
func helpWanted(args []string, app *cli.App) bool {
	if len(args) < 2 || slices.Contains([]string{"help", "h"}, args[1]) {
		return true
	}
	if slices.ContainsFunc(args, isHelp) {
		return true
	}
	if slices.ContainsFunc(args[1:], isFlag) {
		return false
	}
	return app == nil || app.Command(args[1]) != nil
}

// commandOf is the name of the command that help is about, if it is one.
func commandOf(data any) []string {
	if c, is := data.(*cli.Command); is {
		return []string{c.Name}
	}
	return nil
}
