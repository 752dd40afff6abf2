package command

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/urfave/cli/v2"

	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
)

// lint is Benthos' command of that name, flag for flag, with the rules over the whole config besides.
func (b Binary) lint() *cli.Command {
	return &cli.Command{
		Name:      "lint",
		Usage:     "Find what is wrong with configs before they are run",
		ArgsUsage: "FILES",
		Description: "Takes files, glob patterns, and directories as DIR/... (all .yaml and .yml files below). Of a Markdown file (.md) the yaml blocks\n" +
			"are linted. Exits with 1 when there is an error; warnings alone do not.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "deprecated", Usage: "find deprecated fields, too"},
			&cli.BoolFlag{Name: "labels", Usage: "find components without labels, too"},
			&cli.BoolFlag{Name: "skip-env-var-check", Usage: "let environment variables pass that are not set and have no default"},
			&cli.BoolFlag{Name: "verbose", Usage: "tell of every file whether it is right"},
			&cli.StringSliceFlag{Name: "resources", Aliases: []string{"r"}, Usage: "files of resources to lint as well"},
			&cli.StringSliceFlag{Name: "env-file", Aliases: []string{"e"}, Usage: "dotenv files to read environment variables from"},
			&cli.StringSliceFlag{Name: "templates", Aliases: []string{"t"}, Usage: "files of Benthos templates"},
		},
		Action: func(c *cli.Context) error {
			wrong, err := b.lintFiles(c)
			if err == nil && wrong > 0 {
				err = fmt.Errorf("%w: %d in all", errFindings, wrong)
			}
			return err
		},
	}
}

func (b Binary) lintFiles(c *cli.Context) (wrong int, err error) {
	if err := readEnvironment(c.StringSlice("env-file")); err != nil {
		return 0, err
	}
	if err := readTemplates(c.StringSlice("templates")); err != nil {
		return 0, err
	}
	files, err := expand(c.Args().Slice())
	if err != nil {
		return 0, err
	}
	beside, err := expand(c.StringSlice("resources"))
	if err != nil {
		return 0, err
	}
	resources, err := readResources(beside)
	if err != nil {
		return 0, err
	}
	files = append(files, slices.DeleteFunc(beside, func(f string) bool { return slices.Contains(files, f) })...)
	if len(files) == 0 {
		return 0, fmt.Errorf("lint: no file is given; write %s lint config.yaml", b.Name)
	}
	schema := b.Schema()
	catalog, err := lint.NewCatalog(schema)
	if err != nil {
		return 0, err
	}
	stock := schema.NewStreamConfigLinter().SetRejectDeprecated(c.Bool("deprecated")).SetRequireLabels(c.Bool("labels")).
		SetSkipEnvVarCheck(c.Bool("skip-env-var-check"))

	var configs []*lint.Config
	var sources []string
	findings := map[string][]finding{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, fmt.Errorf("lint: %w", err)
		}
		for _, part := range parts(file, text) {
			used := resources
			if slices.ContainsFunc(resources, func(r lint.Resources) bool { return r.File == file }) {
				used = nil
			}
			asked, unset := part.text, map[int]bool(nil)
			if c.Bool("skip-env-var-check") {
				asked, unset = lint.FillUnset(part.text)
			}
			found, config := b.lintText(stock, catalog, asked, used...)
			found = slices.DeleteFunc(found, func(f finding) bool { return f.file == "" && unset[f.line] })
			for i := range found {
				if found[i].line > 0 && found[i].file == "" {
					found[i].line += part.line
				}
			}
			findings[file] = append(findings[file], found...)
			if config != nil && filepath.Ext(file) != ".md" {
				configs, sources = append(configs, config), append(sources, file)
			}
		}
	}
	for i, found := range lint.CheckTogether(configs, sources) {
		for _, f := range found {
			findings[sources[i]] = append(findings[sources[i]], ofRule(f))
		}
	}
	for _, file := range files {
		bad := 0
		for _, f := range findings[file] {
			fmt.Fprintln(b.err(), f.in(file))
			if f.level == lint.Error {
				bad++
			}
		}
		wrong += bad
		if c.Bool("verbose") {
			fmt.Fprintf(b.out(), "%s: %s\n", file, map[bool]string{false: "OK", true: "FAILED"}[bad > 0])
		}
	}
	return wrong, nil
}

// finding is one of Benthos' or of ours.
type finding struct {
	level        lint.Level
	file         string // when it is not the one that is linted, but a file of resources
	line, column int
	what         string
}

// in is the finding as a line, for the file that is linted.
func (f finding) in(file string) string {
	what := f.what
	if f.level == lint.Warning {
		what = "warning: " + what
	}
	return fmt.Sprintf("%s(%d,%d) %s", cmp.Or(f.file, file), max(1, f.line), max(1, f.column), what)
}

func ofRule(f lint.Finding) finding {
	return finding{level: f.Level, file: f.File, line: f.Line, column: f.Column, what: fmt.Sprintf("%s: %s [%s]", f.Path, f.What, f.Rule)}
}

// readResources reads files of resources for the configs that use them. One that cannot be read is told when it is linted itself.
func readResources(files []string) (all []lint.Resources, err error) {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("resources: %w", err)
		}
		if root, err := lint.ParseYAML(text, nil); err == nil {
			all = append(all, lint.Resources{File: file, Root: root})
		}
	}
	return all, nil
}

// lintDisabled is how a config begins that Benthos does not lint.
const lintDisabled = "# BENTHOS LINT DISABLE"

// lintText lints one config. The config is nil when it cannot be read at all.
func (b Binary) lintText(stock *service.StreamConfigLinter, catalog *lint.Catalog, text []byte, resources ...lint.Resources) (found []finding, config *lint.Config) {
	lints, err := stock.LintYAML(text)
	if err != nil {
		return []finding{{level: lint.Error, line: lineOf(err), what: oneLine(err.Error())}}, nil
	}
	root, err := lint.ParseYAML(text, nil)
	explain := explainer{catalog: catalog, root: root, name: b.Name}.explain
	for _, l := range lints {
		found = append(found, finding{level: lint.Error, line: l.Line, column: l.Column, what: explain(l.Line, l.What)})
	}
	if bytes.HasPrefix(text, []byte(lintDisabled)) {
		return found, nil
	}
	if err != nil {
		if text := new(lint.TextError); errors.As(err, &text) {
			found = append(found, finding{level: lint.Error, line: text.Line, what: text.What})
		} else if len(found) == 0 {
			found = append(found, finding{level: lint.Error, line: lineOf(err), what: oneLine(err.Error())})
		}
		return found, nil
	}
	config = catalog.Read(root, resources...)
	for _, f := range lint.Check(config) {
		// Benthos may have said the same in other words.
		if f.Rule == "wrong-type" && slices.ContainsFunc(lints, func(l service.Lint) bool { return l.Line == f.Line }) {
			continue
		}
		found = append(found, ofRule(f))
	}
	slices.SortStableFunc(found, func(a, b finding) int { return a.line - b.line })
	return found, config
}

var yamlLine = regexp.MustCompile(`line (\d+)`)

func lineOf(err error) int {
	if found := yamlLine.FindStringSubmatch(err.Error()); found != nil {
		n, _ := strconv.Atoi(found[1])
		return n
	}
	return 1
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// part is a config in a file, and how many lines come before it.
type part struct {
	text []byte
	line int
}

// parts are the configs in a file: the file, or the yaml blocks of a Markdown file. In a list they are indented.
func parts(file string, text []byte) (found []part) {
	if filepath.Ext(file) != ".md" {
		return []part{{text: text}}
	}
	var block *part
	indent := ""
	for i, line := range strings.SplitAfter(string(text), "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case block == nil && (trimmed == "```yaml" || trimmed == "```yml"):
			block, indent = &part{line: i + 1}, line[:strings.Index(line, "`")]
		case block != nil && trimmed == "```":
			found = append(found, *block)
			block = nil
		case block != nil:
			block.text = append(block.text, strings.TrimPrefix(line, indent)...)
		}
	}
	if block != nil {
		found = append(found, *block)
	}
	return found
}

// expand gives the files that arguments stand for. A name that stands for nothing is an error: a lint that looks at nothing
// and passes is worse than none.
func expand(arguments []string) (files []string, err error) {
	for _, a := range arguments {
		if a == "" {
			continue
		}
		before := len(files)
		if dir, all := strings.CutSuffix(a, "..."); all {
			dir = filepath.Clean(dir)
			if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() && slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(path)) {
					files = append(files, path)
				}
				return err
			}); err != nil {
				return nil, fmt.Errorf("looking for configs in %s: %w", dir, err)
			}
			if len(files) == before {
				return nil, fmt.Errorf("there is no .yaml or .yml file below %s", dir)
			}
			continue
		}
		if _, err := os.Stat(a); err == nil {
			files = append(files, a)
			continue
		}
		matches, err := filepath.Glob(a)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a, err)
		}
		if len(matches) == 0 {
			return nil, fmt.Errorf("%s: there is no such file", a)
		}
		files = append(files, matches...)
	}
	return files, nil
}

func readEnvironment(files []string) error {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("env-file: %w", err)
		}
		variables, err := service.ParseEnvFile(text)
		if err != nil {
			return fmt.Errorf("env-file %s: %w", file, err)
		}
		for name, value := range variables {
			if err := os.Setenv(name, value); err != nil {
				return fmt.Errorf("env-file %s: %w", file, err)
			}
		}
	}
	return nil
}

func readTemplates(patterns []string) error {
	files, err := expand(patterns)
	if err != nil {
		return fmt.Errorf("templates: %w", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("templates: %w", err)
		}
		if err := service.GlobalEnvironment().RegisterTemplateYAML(string(text)); err != nil {
			return fmt.Errorf("templates %s: %w", file, err)
		}
	}
	return nil
}
