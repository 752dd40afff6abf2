package command_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	goodInput  = "input:\n  kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: us-east-1 }\n"
	goodOutput = "output:\n  pulsar: { url: \"pulsar://localhost:6650\", topic: t }\n"
)

func TestLintTellsBenthosFindingsAndOurs(t *testing.T) {
	dir := write(t, map[string]string{
		"bad.yaml":  goodInput + "buffer: { memory: {} }\noutput:\n  pulsar: { url: \"pulsar://localhost:6650\", topic: t, tpic: x }\n",
		"warn.yaml": goodInput + goodOutput + "shutdown_timeout: 5s\n",
		"good.yaml": goodInput + goodOutput,
	})
	code, out, complaints := run(t, "lint", "--verbose", filepath.Join(dir, "*.yaml"))
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{
		"bad.yaml(3,9) buffer: a buffer (memory) acknowledges", "bad.yaml(5,1) field tpic not recognised",
		"warn.yaml(5,19) warning: shutdown_timeout: a quarter of it",
	} {
		if !strings.Contains(complaints, want) {
			t.Errorf("%q is missing in:\n%s", want, complaints)
		}
	}
	for _, want := range []string{"bad.yaml: FAILED", "warn.yaml: OK", "good.yaml: OK"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
	if code, _, complaints := run(t, "lint", filepath.Join(dir, "warn.yaml")); code != 0 || complaints == "" {
		t.Errorf("a warning alone: exit code %d, %s", code, complaints)
	}
}

func TestLintLooksAtFilesTogether(t *testing.T) {
	dir := write(t, map[string]string{
		"streams/a.yaml":      goodInput + goodOutput,
		"streams/deep/b.yaml": strings.Replace(goodInput, ": s,", ": other,", 1) + goodOutput,
	})
	code, _, complaints := run(t, "lint", filepath.Join(dir, "streams/..."))
	if code != 1 || !strings.Contains(complaints, "b.yaml(2,") || !strings.Contains(complaints, "already that of stream s") {
		t.Errorf("exit code %d: %s", code, complaints)
	}
}

// What Benthos says of a wrong config names kinds of nodes, and often no field: `expected object value, got !!str`.
func TestLintSaysWhichFieldIsWrongAndWhatWasMeant(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"input:\n  kinesis_pulsar: { awsKinesisStreamname: s, awsRegion: r }\n" + goodOutput, "field awsKinesisStreamname not recognised; is awsKinesisStreamName meant?"},
		{goodInput + "output:\n  pulsar:\n    url: pulsar://localhost:6650\n    topic: t\n    auth: { tokn: {} }\n", "field tokn not recognised; is token meant?"},
		{goodInput + "output:\n  fallback:\n    - pulsar:\n        url: pulsar://localhost:6650\n        topics: t\n", "field topics not recognised; is topic meant?"},
		{"input:\n  kinesis_pulser: {}\n" + goodOutput, "unable to infer component type: kinesis_pulser; is kinesis_pulsar meant?"},
		{"input:\n  aws_kinesis: {}\n" + goodOutput, "turns the one into the other"},
		{goodInput + "output:\n  kafka: {}\n", "this program has no component of that name"},
		{"inputs:\n  stdin: {}\n" + goodOutput, "field inputs not recognised; is input meant?"},
		{"configs:\n  awsRegion: r\n", "one of the config of a Pulsar source"},
		{"awsKinesisStreamName: s\n", "one of the config of a Pulsar source"},
		{"", "the config is empty"},
		{"# nothing\n", "the config is empty"},
		{goodInput + "output:\n  pulsar:\n    url: pulsar://localhost:6650\n    topic:\n      - t\n", "output.pulsar.topic: it must be one text"},
		{goodInput + "output:\n  pulsar:\n    url: pulsar://localhost:6650\n    topic: t\n    auth: none\n", "output.pulsar.auth: there must be fields below it"},
		{goodInput + "output:\n  pulsar:\n    url: pulsar://localhost:6650\n    topic: t\n    properties: { include_prefixes: a }\n", "output.pulsar.properties.include_prefixes: it must be a list"},
		{"input:\n  kinesis_pulsar:\n" + goodOutput, "input.kinesis_pulsar: there must be fields below it"},
		{goodInput + "output:\n  pulsar: { url: \"pulsar://localhost:6650\", topic: t, max_in_flight: [ 1 ] }\n", "output.pulsar.max_in_flight: it must be one number"},
		{goodInput + goodOutput + "pipeline: { prozessors: [] }\n", "is processors meant?"},
	} {
		dir := write(t, map[string]string{"c.yaml": tc.text})
		if code, _, complaints := run(t, "lint", filepath.Join(dir, "c.yaml")); code != 1 || !strings.Contains(complaints, tc.want) {
			t.Errorf("%s: exit code %d: %s; want %q", tc.text, code, complaints, tc.want)
		}
	}
}

// YAML's reader keeps one of two equal keys, and Benthos reads one document of a file. Neither says so.
func TestNothingIsLeftOutOfAConfigInSilence(t *testing.T) {
	dir := write(t, map[string]string{
		"key.yaml":    goodInput + "    # and again\n" + goodOutput + goodInput + quiet,
		"field.yaml":  "input:\n  kinesis_pulsar:\n    awsKinesisStreamName: s\n    awsRegion: us-east-1\n    awsRegion: eu-west-1\n" + goodOutput + quiet,
		"two.yaml":    "---\n" + goodInput + goodOutput + quiet + "---\n" + goodInput + goodOutput,
		"cycle.yaml":  "input: &a { kinesis_pulsar: *a }\n" + goodOutput + quiet,
		"bomb.yaml":   bomb(12) + goodInput + goodOutput + quiet,
		"one.yaml":    "---\n" + goodInput + goodOutput + "...\n---\n",
		"merged.yaml": "input:\n  broker:\n    inputs:\n      - kinesis_pulsar: { awsKinesisStreamName: &name s, awsRegion: us-east-1 }\n      - kinesis_pulsar: { awsKinesisStreamName: *name, awsRegion: us-east-1 }\n" + goodOutput,
	})
	for file, want := range map[string]string{
		"key.yaml": "key.yaml(6,1) input is there twice, first in line 1", "field.yaml": "field.yaml(5,1) awsRegion is there twice, first in line 4",
		"two.yaml": "two.yaml(8,1) a second config begins here", "cycle.yaml": "cycle.yaml(1,1) the alias *a is inside of what it stands for",
		"bomb.yaml": "bomb.yaml(1,1) its aliases would make it too large",
	} {
		for _, command := range []string{"lint", "dry-run", "run", "streams"} {
			code, out, complaints := run(t, command, filepath.Join(dir, file))
			if code != 1 || !strings.Contains(out+complaints, want) {
				t.Errorf("%s %s: exit code %d: %s%s", command, file, code, out, complaints)
			}
		}
		if code, _, complaints := run(t, "convert", filepath.Join(dir, file)); code != 1 || strings.Contains(strings.TrimSpace(complaints), "\n") {
			t.Errorf("convert %s: exit code %d: %s", file, code, complaints)
		}
		if code, _, complaints := run(t, "leases", filepath.Join(dir, file)); code != 1 || strings.Contains(strings.TrimSpace(complaints), "\n") {
			t.Errorf("leases %s: exit code %d: %s", file, code, complaints)
		}
	}
	for _, file := range []string{"one.yaml", "merged.yaml"} {
		if code, _, complaints := run(t, "lint", filepath.Join(dir, file)); code != 0 || complaints != "" {
			t.Errorf("%s: exit code %d: %s", file, code, complaints)
		}
	}
}

// bomb is a small text that aliases make a large one.
func bomb(levels int) string {
	var b strings.Builder
	b.WriteString("x0: &x0 [ a, a, a, a, a, a, a, a, a, a ]\n")
	for i := range levels {
		fmt.Fprintf(&b, "x%d: &x%d [ *x%d, *x%d, *x%d, *x%d, *x%d, *x%d, *x%d, *x%d, *x%d, *x%d ]\n", i+1, i+1, i, i, i, i, i, i, i, i, i, i)
	}
	return b.String()
}

func TestLintReadsTheBlocksOfMarkdown(t *testing.T) {
	dir := write(t, map[string]string{"page.md": "# Page\n\n1. In a list:\n\n   ```yaml\n   input: { generate: { mapping: root = 1, nope: 1 } }\n   output: { drop: {} }\n   ```\n\n```yaml\npipeline: { threads: \"4\" }\n```\n\n```json\n{ not yaml\n```\n"})
	code, _, complaints := run(t, "lint", filepath.Join(dir, "page.md"))
	if code != 1 || !strings.Contains(complaints, "page.md(6,") || !strings.Contains(complaints, "page.md(11,") || strings.Count(complaints, "page.md") != 2 {
		t.Errorf("exit code %d: %s", code, complaints)
	}
}

func TestLintReadsVariablesFromFiles(t *testing.T) {
	dir := write(t, map[string]string{
		"c.yaml": goodInput + goodOutput + "shutdown_timeout: ${LINT_TEST_TIMEOUT}\n",
		".env":   "LINT_TEST_TIMEOUT=nonsense\n",
	})
	t.Setenv("LINT_TEST_TIMEOUT", "") // so that it is restored
	if err := os.Unsetenv("LINT_TEST_TIMEOUT"); err != nil {
		t.Fatal(err)
	}
	code, _, complaints := run(t, "lint", filepath.Join(dir, "c.yaml"))
	if code != 1 || !strings.Contains(complaints, "LINT_TEST_TIMEOUT") {
		t.Errorf("not set: exit code %d: %s", code, complaints)
	}
	if code, _, complaints := run(t, "lint", "--skip-env-var-check", filepath.Join(dir, "c.yaml")); code != 0 {
		t.Errorf("not set, and skipped: exit code %d: %s", code, complaints)
	}
	// Required fields and numbers that come from the environment are there, for all that lint can know; other lines are looked at.
	dir = write(t, map[string]string{
		"c.yaml": "input:\n  kinesis_pulsar:\n    awsKinesisStreamName: ${LINT_TEST_STREAM}\n    awsRegion: ${LINT_TEST_REGION}\n    receiveQueueSize: ${LINT_TEST_SIZE}\noutput:\n  pulsar:\n    url: ${LINT_TEST_URL}\n    topic: t\n    max_in_flight: \"3\"\n",
		".env":   "LINT_TEST_TIMEOUT=nonsense\n",
	})
	if code, _, complaints := run(t, "lint", "--skip-env-var-check", filepath.Join(dir, "c.yaml")); code != 1 || strings.Count(complaints, "c.yaml(") != 1 || !strings.Contains(complaints, "c.yaml(10,") {
		t.Errorf("fields from the environment: exit code %d: %s", code, complaints)
	}
	if err := os.WriteFile(filepath.Join(dir, "c.yaml"), []byte(goodInput+goodOutput+"shutdown_timeout: ${LINT_TEST_TIMEOUT}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, complaints = run(t, "lint", "-e", filepath.Join(dir, ".env"), filepath.Join(dir, "c.yaml"))
	if code != 1 || !strings.Contains(complaints, `"nonsense" is no time`) {
		t.Errorf("set: exit code %d: %s", code, complaints)
	}
}

func TestLintOfNothingIsAnError(t *testing.T) {
	dir := write(t, map[string]string{"half.yaml": "input: {\n  a", "list.yaml": "- a\n", "empty/x.txt": ""})
	for _, args := range [][]string{
		{}, {filepath.Join(dir, "none.yaml")}, {filepath.Join(dir, "*.yml")}, {filepath.Join(dir, "empty/...")}, {filepath.Join(dir, "none/...")},
		{"-e", filepath.Join(dir, "none.env"), filepath.Join(dir, "list.yaml")}, {"--nope"}, {filepath.Join(dir, "half.yaml")}, {filepath.Join(dir, "list.yaml")},
		{"-t", filepath.Join(dir, "none.tmpl"), filepath.Join(dir, "list.yaml")}, {dir},
	} {
		code, _, complaints := run(t, append([]string{"lint"}, args...)...)
		if code != 1 || strings.TrimSpace(complaints) == "" || strings.Count(strings.TrimSpace(complaints), "\n") > 1 {
			t.Errorf("%v: exit code %d: %q", args, code, complaints)
		}
	}
}
