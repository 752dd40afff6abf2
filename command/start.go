package command

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/urfave/cli/v2"

	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
)

// start looks at what `run` and `streams` are about to start, by the rules over a whole config. Errors end the start before
// anything connects, as Benthos' own do; with --chilled they are told and it goes on.
type start struct {
	Binary
	chilled, streams, api bool
	streamFiles           []string
	resourceFiles         []string

	// What the configs of streams are held against once the service's own is read.
	gate *gate
}

func (s *start) options() []service.CLIOptFunc {
	return []service.CLIOptFunc{
		service.CLIOptCustomRunFlags(nil, s.arguments),
		service.CLIOptOnConfigParse(s.parsed),
		service.CLIOptOnStreamStart(s.started),
	}
}

// arguments are those of the command line, before any config is read.
func (s *start) arguments(c *cli.Context) error {
	for _, level := range c.Lineage() { // flags may stand before the command, too
		s.chilled = s.chilled || level.Bool("chilled")
		for _, pattern := range level.StringSlice("resources") {
			if files, err := expand([]string{pattern}); err == nil { // Benthos tells of those that are not there
				s.resourceFiles = append(s.resourceFiles, files...)
			}
		}
	}
	s.streams = c.Command.Name == "streams"
	s.api = s.streams && !c.Bool("no-api")
	if s.streams {
		s.streamFiles = streamFiles(c.Args().Slice())
	}
	mains := c.StringSlice("observability")
	if c.Command.Name == "run" {
		mains = c.Args().Slice()
	}
	return s.texts(slices.Concat(mains, s.streamFiles, s.resourceFiles))
}

// texts looks at the files that are about to be read for what cannot be seen any more when they have been: keys that are there twice, and
// documents behind the first. What is wrong with them otherwise is for Benthos to tell.
func (s *start) texts(files []string) error {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || s.chilled || bytes.HasPrefix(text, []byte(lintDisabled)) {
			continue
		}
		if _, err := lint.ParseYAML(text, nil); err != nil {
			if found := new(lint.TextError); errors.As(err, &found) {
				return fmt.Errorf("%w; --chilled would run it all the same: %s", errFindings, finding{line: found.Line, what: found.What}.in(file))
			}
		}
	}
	return nil
}

// parsed gets the config of `run`, or that of the service in streams mode. Nothing is connected yet.
func (s *start) parsed(config *service.ParsedConfig) error {
	value, err := config.FieldAny()
	if err != nil {
		return fmt.Errorf("looking at the config: %w", err)
	}
	root, err := lint.ParseValue(value)
	if err != nil {
		return err
	}
	catalog, err := lint.NewCatalog(s.Schema())
	if err != nil {
		return err
	}
	resources, err := readResources(s.resourceFiles)
	if err != nil {
		return err
	}
	main := catalog.Read(root, resources...)
	found := lint.Check(main)
	if s.streams {
		s.gate = &gate{
			schema: s.Schema(), catalog: catalog, log: config.Resources().Logger(), chilled: s.chilled,
			resources: append(resources, lint.Resources{File: "the service's config", Root: root}), allowed: main.Allowed(),
		}
		if s.api {
			s.gate.endpoints = endpointsOf(config.Resources())
		}
		ofStreams, err := s.gate.files(s.streamFiles)
		if err != nil {
			return err
		}
		found = append(found, ofStreams...)
	}
	return s.tell(config.Resources().Logger(), found)
}

// tell logs findings; the first error ends the start.
func (s *start) tell(log *service.Logger, found []lint.Finding) error {
	var first *lint.Finding
	for i, f := range found {
		if f.Level == lint.Error && !s.chilled {
			log.Errorf("%s", f)
			if first == nil {
				first = &found[i]
			}
			continue
		}
		log.Warnf("%s", f)
	}
	if first != nil {
		return fmt.Errorf("%w; --chilled would run it all the same, and the field lint.allow accepts single findings: %s", errFindings, first)
	}
	return nil
}

// started gets what has been started: in streams mode, whoever answers the requests of its API.
func (s *start) started(running *service.RunningStreamSummary) error {
	if s.api {
		s.gate.install(running)
	}
	return nil
}

// streamFiles are the files of streams mode's arguments: files, folders, and patterns in which ** stands for any number of folders.
// What is not there is for Benthos to tell.
func streamFiles(arguments []string) (files []string) {
	add := func(file string) {
		if !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	walk := func(root string, wanted func(string) bool) {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && wanted(path) {
				add(path)
			}
			return nil
		})
	}
	for _, a := range arguments {
		matches, _ := filepath.Glob(a)
		if before, _, deep := strings.Cut(a, "**"); deep {
			matches = nil
			pattern := regexp.MustCompile("^" + strings.NewReplacer(`\*\*`, ".*", `\*`, "[^/]*", `\?`, "[^/]").Replace(regexp.QuoteMeta(filepath.Clean(a))) + "$")
			walk(filepath.Dir(before+"x"), pattern.MatchString)
		}
		for _, m := range matches {
			if info, err := os.Stat(m); err == nil && info.IsDir() {
				walk(filepath.Clean(m), isStreamFile)
			} else {
				add(filepath.Clean(m))
			}
		}
	}
	return files
}

// isStreamFile tells the configs in a folder of streams from their unit tests, and from the rest.
func isStreamFile(path string) bool {
	name, isYAML := strings.CutSuffix(strings.TrimSuffix(path, ".yml"), ".yaml")
	return (isYAML || strings.HasSuffix(path, ".yml")) && !strings.HasSuffix(name, "_benthos_test")
}
