package command_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/command"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/input"
	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/metrics"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/output"
)

func schema() *service.ConfigSchema {
	return service.GlobalEnvironment().FullConfigSchema("", "").Field(lint.Field())
}

// run runs a command line in this process: its exit code, what it printed, and what it complained of.
func run(t *testing.T, args ...string) (code int, out, complaints string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	b := command.Binary{Name: "kinesis-pulsar", Version: "v0", Schema: schema, Stdout: &stdout, Stderr: &stderr}
	options := append([]service.CLIOptFunc{service.CLIOptSetBinaryName(b.Name), service.CLIOptSetMainSchemaFrom(schema)}, b.Options()...)
	options = append(options, service.CLIOptSetArgs(b.Arguments(append([]string{b.Name}, args...))...))
	code, err := service.RunCLIToCode(context.Background(), options...)
	if err != nil {
		stderr.WriteString(err.Error())
	}
	if strings.Contains(stderr.String(), "goroutine ") {
		t.Errorf("%v: a stack trace: %s", args, stderr.String())
	}
	return code, stdout.String(), stderr.String()
}

// write puts files into a new directory and returns it.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
