package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/urfave/cli/v2"

	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
)

func (b Binary) dryRun() *cli.Command {
	return &cli.Command{
		Name:      "dry-run",
		Usage:     "Find out whether a config would work: connect everything, move nothing",
		ArgsUsage: "FILE",
		Description: "Lints the config, then connects each input, output and resource: the stream is described and read from, the permissions for the\n" +
			"lease table are tried with writes that change nothing, the topic is looked up with the credentials that are given. No\n" +
			"record is moved, no lease taken, nothing created. Exits with 1 when something would not work.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print the results as one JSON document"},
			&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "how long all tests together may take"},
			&cli.StringSliceFlag{Name: "resources", Aliases: []string{"r"}, Usage: "files of resources that the config uses"},
			&cli.StringSliceFlag{Name: "env-file", Aliases: []string{"e"}, Usage: "dotenv files to read environment variables from"},
			&cli.StringSliceFlag{Name: "templates", Aliases: []string{"t"}, Usage: "files of Benthos templates"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Len() != 1 {
				return fmt.Errorf("dry-run: give one file; write %s dry-run config.yaml", b.Name)
			}
			if c.Duration("timeout") <= 0 {
				return errors.New("dry-run: --timeout must be positive, such as 30s")
			}
			if err := readEnvironment(c.StringSlice("env-file")); err != nil {
				return err
			}
			if err := readTemplates(c.StringSlice("templates")); err != nil {
				return err
			}
			resources, err := expand(c.StringSlice("resources"))
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
			defer cancel()
			report, err := b.test(ctx, c.Args().First(), resources)
			if err != nil {
				return fmt.Errorf("dry-run: %w", err)
			}
			return b.tell(report, c.Bool("json"))
		},
	}
}

// dryRunReport is what a dry run found out; its JSON is what --json prints.
type dryRunReport struct {
	OK         bool              `json:"ok"`
	Findings   []string          `json:"lint"`
	Components []testedComponent `json:"components"`
}

type testedComponent struct {
	Path   string   `json:"path"`
	Label  string   `json:"label,omitempty"`
	Status string   `json:"status"` // ok, failed, or not tested: the component has no test
	Errors []string `json:"errors,omitempty"`
}

func (b Binary) test(ctx context.Context, file string, resources []string) (dryRunReport, error) {
	report := dryRunReport{OK: true, Findings: []string{}, Components: []testedComponent{}}
	text, err := os.ReadFile(file)
	if err != nil {
		return report, err
	}
	schema := b.Schema()
	catalog, err := lint.NewCatalog(schema)
	if err != nil {
		return report, err
	}
	builder := service.NewStreamBuilder()
	builder.SetSchema(schema)
	builder.DisableLinting() // it is done here, and with our rules
	builder.SetLogger(slog.New(slog.DiscardHandler))
	beside, err := readResources(resources)
	if err != nil {
		return report, err
	}
	sources := append([]string{file}, resources...)
	for i, source := range sources {
		if i > 0 {
			if text, err = os.ReadFile(source); err != nil {
				return report, err
			}
		}
		found, _ := b.lintText(schema.NewStreamConfigLinter(), catalog, text, beside...)
		beside = nil // what the config uses is found fault with once
		for _, f := range found {
			report.Findings = append(report.Findings, f.in(source))
			report.OK = report.OK && f.level != lint.Error
		}
		if !report.OK {
			continue
		}
		if i == 0 {
			err = builder.SetYAML(string(text))
		} else {
			err = builder.AddResourcesYAML(string(text))
		}
		if err != nil {
			return report, fmt.Errorf("%s: %s", source, oneLine(err.Error()))
		}
	}
	if !report.OK {
		return report, nil // what is wrong by itself is not worth connecting
	}
	// Nothing is served, and nothing is told to anybody.
	if err := builder.SetMetricsYAML("none: {}"); err != nil {
		return report, err
	}
	stream, err := builder.Build()
	if err != nil {
		return report, fmt.Errorf("%s: %s", file, oneLine(err.Error()))
	}
	results, err := stream.ConnectionTest(ctx)
	if err != nil {
		return report, fmt.Errorf("%s: %s", file, oneLine(err.Error()))
	}
	for _, r := range results {
		t := testedComponent{Path: strings.Join(r.Path, "."), Label: r.Label, Status: "ok"}
		switch {
		case errors.Is(r.Err, service.ErrConnectionTestNotSupported):
			t.Status = "not tested"
		case r.Err != nil:
			t.Status, report.OK = "failed", false
			for _, line := range strings.Split(r.Err.Error(), "\n") {
				t.Errors = append(t.Errors, oneLine(line))
			}
		}
		report.Components = append(report.Components, t)
	}
	return report, nil
}

func (b Binary) tell(r dryRunReport, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(b.out())
		e.SetIndent("", "  ")
		if err := e.Encode(r); err != nil {
			return err
		}
	} else {
		for _, f := range r.Findings {
			fmt.Fprintln(b.out(), f)
		}
		for _, c := range r.Components {
			name := c.Path
			if c.Label != "" {
				name += " (" + c.Label + ")"
			}
			fmt.Fprintf(b.out(), "%-10s %s\n", c.Status, name)
			for _, e := range c.Errors {
				fmt.Fprintf(b.out(), "%-10s %s\n", "", e)
			}
		}
	}
	if !r.OK {
		return errors.New("dry-run: it would not work, see above")
	}
	return nil
}
