package command

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/kinesis-pulsar/kinesis-pulsar/command/convert"
	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
)

func (b Binary) convert() *cli.Command {
	return &cli.Command{
		Name:      "convert",
		Usage:     "Turn the config of a Pulsar source (Java Kinesis connector), or of Redpanda Connect or Bento, into one of this program",
		ArgsUsage: "FILE",
		Description: "FILE is YAML or JSON, as given to `pulsar-admin sources create`, or the block below configs: alone, or a config with an aws_kinesis\n" +
			"input or a pulsar output; - is the standard input. The new config goes to the standard output; what is changed, not needed\n" +
			"or not possible is told on the error output, and at the top of the config.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "pulsar-url", Value: convert.DefaultURL, Usage: "the service URL of Pulsar, which the config of a source does not have"},
			&cli.StringFlag{Name: "topic", Usage: "the topic to write to, where the config names none"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "a file to write to, which must not exist yet"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Len() != 1 {
				return fmt.Errorf("convert: give one file; write %s convert source-config.yaml", b.Name)
			}
			file := c.Args().First()
			text, err := read(file)
			if err != nil {
				return fmt.Errorf("convert: %w", err)
			}
			if _, err := os.Stat(c.String("output")); c.IsSet("output") && err == nil {
				return fmt.Errorf("convert: %s is there already, and is not overwritten: give another name by -o", c.String("output"))
			}
			source := file
			if file == "-" {
				source = ""
			}
			result, err := convert.Convert(text, convert.Options{URL: c.String("pulsar-url"), Topic: c.String("topic"), Source: source})
			if err != nil {
				return fmt.Errorf("convert %s: %s", file, oneLine(err.Error()))
			}
			for _, n := range result.Notes {
				fmt.Fprintln(b.err(), n)
			}
			name := "the new config"
			if c.IsSet("output") {
				name = c.String("output")
				err = create(name, result.YAML)
			} else {
				_, err = b.out().Write(result.YAML)
			}
			if err != nil {
				return err
			}
			return b.left(name, result.YAML)
		},
	}
}

// left tells what lint finds in a new config. Whatever it is was wrong before, or is something that this program does not have: the
// conversion itself writes nothing that lint finds fault with.
func (b Binary) left(name string, text []byte) error {
	schema := b.Schema()
	catalog, err := lint.NewCatalog(schema)
	if err != nil {
		return err
	}
	filled, unset := lint.FillUnset(text) // the variables are those of another machine
	found, _ := b.lintText(schema.NewStreamConfigLinter(), catalog, filled)
	wrong := 0
	for _, f := range found {
		if unset[f.line] {
			continue
		}
		fmt.Fprintln(b.err(), f.in(name))
		if f.level == lint.Error {
			wrong++
		}
	}
	if wrong > 0 {
		return fmt.Errorf("convert: it is written, and has errors that no conversion can mend: %d, see above", wrong)
	}
	return nil
}

func read(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(file)
}

// create writes a new file: a config that somebody has worked on is not overwritten. It may hold keys, so it is the owner's.
func create(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("convert: %w", err)
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
