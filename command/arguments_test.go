package command_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/command"
)

// People write `convert old.yaml -o new.yaml`, and so do the pages of this project.
func TestFlagsMayComeBehindFiles(t *testing.T) {
	b := command.Binary{Name: "kinesis-pulsar", Schema: schema}
	for before, after := range map[string]string{
		"convert old.yaml -o new.yaml":                 "convert -o new.yaml old.yaml",
		"convert --topic t old.yaml -o=new.yaml":       "convert --topic t -o=new.yaml old.yaml",
		"convert - --topic t":                          "convert --topic t -",
		"leases c.yaml --watch --interval 2s":          "leases --watch --interval 2s c.yaml",
		"lint a.yaml --verbose b.yaml -e env c.yaml":   "lint --verbose -e env a.yaml b.yaml c.yaml",
		"lint --verbose a.yaml":                        "lint --verbose a.yaml",
		"dry-run c.yaml --json --timeout":              "dry-run --json --timeout c.yaml",
		"run c.yaml --log.level debug":                 "run --log.level debug c.yaml",
		"streams a.yaml b.yaml -o root.yaml":           "streams -o root.yaml a.yaml b.yaml",
		"streams -o root.yaml a.yaml --chilled b.yaml": "streams -o root.yaml a.yaml --chilled b.yaml", // which flags have a value is not known
		"lint -- -a.yaml b.yaml":                       "lint -- -a.yaml b.yaml",
		"blobl -i x f":                                 "blobl -i x f",
		"--chilled run c.yaml":                         "--chilled run c.yaml",
		"run c.yaml":                                   "run c.yaml",
		"run":                                          "run",
	} {
		got := b.Arguments(append([]string{"kinesis-pulsar"}, strings.Fields(before)...))
		if want := append([]string{"kinesis-pulsar"}, strings.Fields(after)...); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", before, got, want)
		}
	}
	dir := write(t, map[string]string{"old.yaml": "awsKinesisStreamName: s\nawsRegion: r\n"})
	if code, _, complaints := run(t, "convert", filepath.Join(dir, "old.yaml"), "-o", filepath.Join(dir, "new.yaml"), "--topic", "t"); code != 0 {
		t.Error(complaints)
	}
	if code, out, complaints := run(t, "lint", filepath.Join(dir, "new.yaml"), "--verbose"); code != 0 || !strings.Contains(out, "OK") {
		t.Error(out, complaints)
	}
}
