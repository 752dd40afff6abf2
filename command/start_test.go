package command_test

import (
	"path/filepath"
	"strings"
	"testing"
)

const quiet = "http: { enabled: false }\nlogger: { level: off }\n"

// What lint finds, run and streams refuse before anything connects: nothing here listens.
func TestRunRefusesWhatLintFinds(t *testing.T) {
	dir := write(t, map[string]string{
		"buffer.yaml":              goodInput + "buffer: { memory: {} }\n" + goodOutput + quiet,
		"uses.yaml":                goodInput + "pipeline: { processors: [ { resource: cut } ] }\n" + goodOutput + quiet,
		"resources.yaml":           "processor_resources: [ { label: cut, split: {} } ]\n",
		"service.yaml":             quiet,
		"resourceful.yaml":         quiet + "processor_resources: [ { label: cut, split: {} } ]\n",
		"configs/buffer.yaml":      goodInput + "buffer: { memory: {} }\n" + goodOutput,
		"two/a.yaml":               goodInput + goodOutput,
		"two/deep/b.yml":           strings.Replace(goodInput, ": s,", ": other,", 1) + goodOutput,
		"two/b_benthos_test.yaml":  "tests: []\n",
		"uses/u.yaml":              goodInput + "pipeline: { processors: [ { resource: cut } ] }\n" + goodOutput,
		"uses/u_benthos_test.yaml": "tests: []\n",
	})
	in := func(names ...string) (paths []string) {
		for _, n := range names {
			if !strings.HasPrefix(n, "-") && n != "run" && n != "streams" {
				n = filepath.Join(dir, n)
			}
			paths = append(paths, n)
		}
		return paths
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{in("run", "buffer.yaml"), "buffer: a buffer (memory)"},
		{in("run", "-r", "resources.yaml", "uses.yaml"), "resources.yaml(1,24) processor_resources.0: "},
		{in("-r", "resources.yaml", "run", "uses.yaml"), "resources.yaml(1,24) processor_resources.0: "},
		{in("streams", "-o", "service.yaml", "configs/buffer.yaml"), "configs/buffer.yaml(3,9) buffer: "},
		{in("streams", "-o", "service.yaml", "configs"), "configs/buffer.yaml(3,9) buffer: "},
		{in("streams", "-o", "service.yaml", "conf*/*.yaml"), "configs/buffer.yaml(3,9) buffer: "},
		{in("streams", "-o", "service.yaml", "**/buffer.yaml"), "buffer.yaml(3,9) buffer: "},
		{in("streams", "-o", "service.yaml", "two"), "two/deep/b.yml(2,"},
		{in("streams", "-o", "resourceful.yaml", "uses"), "processor_resources.0: the parts of a split batch"},
		{in("streams", "-o", "service.yaml", "-r", "resources.yaml", "uses"), "resources.yaml(1,24) processor_resources.0: "},
	} {
		code, _, complaints := run(t, tc.args...)
		if code != 1 || !strings.Contains(complaints, tc.want) || strings.Contains(strings.TrimSpace(complaints), "\n") {
			t.Errorf("%v: exit code %d: %s", tc.args, code, complaints)
		}
	}
}

func TestLintLooksIntoTheResourcesThatAConfigUses(t *testing.T) {
	dir := write(t, map[string]string{
		"uses.yaml":      goodInput + "pipeline: { processors: [ { resource: cut } ] }\n" + goodOutput,
		"plain.yaml":     goodInput + goodOutput,
		"resources.yaml": "processor_resources:\n  - label: cut\n    split: { size: \"10\" }\n",
	})
	code, _, complaints := run(t, "lint", "-r", filepath.Join(dir, "resources.yaml"), filepath.Join(dir, "uses.yaml"))
	if code != 1 || strings.Count(complaints, "[split-overtakes]") != 1 || !strings.Contains(complaints, "resources.yaml(2,5) processor_resources.0: ") || strings.Count(complaints, "[wrong-type]") != 1 {
		t.Errorf("exit code %d: %s", code, complaints)
	}
	if _, _, complaints := run(t, "lint", "-r", filepath.Join(dir, "resources.yaml"), filepath.Join(dir, "plain.yaml")); strings.Contains(complaints, "split-overtakes") {
		t.Errorf("a resource that nobody uses: %s", complaints)
	}
	if code, out, _ := run(t, "dry-run", "-r", filepath.Join(dir, "resources.yaml"), filepath.Join(dir, "uses.yaml")); code != 1 || !strings.Contains(out, "[split-overtakes]") {
		t.Errorf("dry-run: exit code %d: %s", code, out)
	}
}
