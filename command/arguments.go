package command

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// commands are those of this package.
func (b Binary) commands() []*cli.Command {
	return []*cli.Command{b.lint(), b.convert(), b.dryRun(), b.leases(), b.ready()}
}

// stockWithFiles are Benthos' own commands that take files. Which of their flags have a value is not known here.
var stockWithFiles = []string{"run", "streams", "echo", "test"}

// Arguments puts the files of a command line behind its flags. People write them in either order, but the parser of flags ends at
// the first file, and `convert old.yaml -o new.yaml` would be three files.
func (b Binary) Arguments(args []string) []string {
	if len(args) < 3 || slices.Contains(args, "--") {
		return args
	}
	front, rest := args[:2], args[2:]
	own := slices.IndexFunc(b.commands(), func(c *cli.Command) bool { return c.HasName(args[1]) })
	firstFlag := slices.IndexFunc(rest, isFlag)
	var flags, files []string
	switch {
	case firstFlag < 0 || own < 0 && !slices.Contains(stockWithFiles, args[1]):
		return args
	case slices.ContainsFunc(rest, isHelp):
		flags = []string{"--help"} // which would take a file for its topic
	case own >= 0:
		flags, files = sorted(rest, b.commands()[own].Flags)
	default:
		// What stands before the first flag cannot be the value of one.
		flags, files = rest[firstFlag:], rest[:firstFlag]
	}
	return slices.Concat(front, flags, files)
}

// sorted tells flags, with their values, from files. Flags that nobody knows are left for the parser to refuse.
func sorted(args []string, known []cli.Flag) (flags, files []string) {
	for i := 0; i < len(args); i++ {
		if !isFlag(args[i]) {
			files = append(files, args[i])
			continue
		}
		flags = append(flags, args[i])
		name := strings.TrimLeft(args[i], "-")
		takesValue := slices.ContainsFunc(known, func(f cli.Flag) bool {
			_, isSwitch := f.(*cli.BoolFlag)
			return !isSwitch && slices.Contains(f.Names(), name)
		})
		if takesValue && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return flags, files
}

func isHelp(argument string) bool {
	return slices.Contains([]string{"--help", "-help", "-h"}, argument)
}

// isFlag tells a flag from a file; a dash alone is the standard input.
func isFlag(argument string) bool { return len(argument) > 1 && argument[0] == '-' }
