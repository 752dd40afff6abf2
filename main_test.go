package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// cli runs a command line in this process and returns its exit code and what it printed.
func cli(t *testing.T, args ...string) (code int, printed string) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, errs := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = writer, writer
	read := make(chan string)
	go func() {
		all, _ := io.ReadAll(reader)
		read <- string(all)
	}()
	code, err = service.RunCLIToCode(context.Background(), options(append([]string{name}, args...))...)
	os.Stdout, os.Stderr = out, errs
	_ = writer.Close()
	printed = <-read
	if err != nil {
		printed += err.Error()
	}
	return code, printed
}

func lintConfig(t *testing.T, config string) (code int, printed string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return cli(t, "lint", path)
}

func TestTheBinaryRunsBenthosCommandsUnderItsOwnName(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--version"}, version()},
		{[]string{"--help"}, name},
		{[]string{"list", "inputs"}, "kinesis_pulsar"},
		{[]string{"list", "outputs"}, "pulsar"},
		{[]string{"list", "processors"}, "mapping"}, // the pure components are in
		{[]string{"list", "outputs"}, "file"},       // and those of io
		{[]string{"create", "kinesis_pulsar//pulsar"}, "awsKinesisStreamName"},
		{[]string{"create", "kinesis_pulsar//pulsar"}, "'@service': " + name},
		{[]string{"streams", "--help"}, "streams"},
		{[]string{"test", "--help"}, "test"},
		{[]string{"blobl", "--help"}, "blobl"},
	} {
		if code, printed := cli(t, tc.args...); code != 0 || !strings.Contains(printed, tc.want) {
			t.Errorf("%v: exit code %d, %q is missing in: %s", tc.args, code, tc.want, printed)
		}
	}
}

// What stands in the default places is a pipeline, and would be refused as the service's config of streams mode.
func TestStreamsModeTakesNoPipelineForItsService(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{"kinesis-pulsar.yaml": "input: { generate: { mapping: root = 1 } }\noutput: { drop: {} }\n", "half.yaml": "{ a"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	if code, printed := cli(t, "streams", "--set", "http.enabled=false", "half.yaml"); code != 1 || !strings.Contains(printed, "half.yaml") || strings.Contains(printed, "not recognised") {
		t.Errorf("exit code %d: %s", code, printed)
	}
	if defaults := defaultConfigs([]string{name, "run"}); len(defaults) == 0 || defaults[0] != "./kinesis-pulsar.yaml" {
		t.Errorf("run looks for %v", defaults)
	}
}

// Benthos prints forty lines of help below an error of the command line, and the error is out of sight.
func TestAnErrorOfTheCommandLineIsNotBuriedInHelp(t *testing.T) {
	for _, args := range [][]string{{"nope"}, {"--nope"}, {"run", "--nope"}, {"run", "x.yaml", "--nope"}, {"streams", "--log.level"}, {"lint", "--nope"}, {"run", "none.yaml"}, {"echo", "none.yaml"}, {"streams", "-o", "none.yaml"}} {
		code, printed := cli(t, args...)
		if code != 1 || printed == "" || strings.Count(strings.TrimSpace(printed), "\n") > 3 || strings.Contains(printed, "goroutine ") {
			t.Errorf("%v: exit code %d: %s", args, code, printed)
		}
	}
	for _, args := range [][]string{{"--help"}, {"help"}, {"help", "run"}, {"run", "--help"}, {"run", "x.yaml", "-h"}, {"leases", "--help"}, {"template"}} {
		if code, printed := cli(t, args...); code != 0 || !strings.Contains(printed, "USAGE:") {
			t.Errorf("%v: exit code %d: %s", args, code, printed)
		}
	}
}

// The examples of Benthos' help are of components that are not in this binary: whoever copied one got an error.
func TestTheExamplesInTheHelpWork(t *testing.T) {
	examples := regexp.MustCompile(name + ` create ([a-z_,]+/[a-z_,/]*)`)
	tried := 0
	for _, args := range [][]string{{"--help"}, {"create", "--help"}} {
		_, printed := cli(t, args...)
		for _, found := range examples.FindAllStringSubmatch(printed, -1) {
			tried++
			if code, printed := cli(t, "create", found[1]); code != 0 {
				t.Errorf("create %s, of %v: exit code %d: %s", found[1], args, code, printed)
			}
		}
	}
	if tried < 2 {
		t.Errorf("only %d examples were found", tried)
	}
}

func TestTheVersionTellsWhatAReportOfAFaultNeeds(t *testing.T) {
	var b strings.Builder
	if err := printVersion(&b); err != nil || !askedForVersion([]string{name, "--version"}) || askedForVersion([]string{name, "run", "-v"}) {
		t.Fatal(err)
	}
	for _, want := range []string{name + " " + version(), "\ngo1.", "\ngithub.com/redpanda-data/benthos/v4 v4.", "\ngithub.com/apache/pulsar-client-go v0."} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in %s", want, b.String())
		}
	}
}

// What create writes is where somebody begins who has no config yet.
func TestWhatCreateWritesLints(t *testing.T) {
	for _, args := range [][]string{{"create", "kinesis_pulsar//pulsar"}, {"create", "--small", "kinesis_pulsar//pulsar"}} {
		code, config := cli(t, args...)
		if code != 0 || !strings.Contains(config, "awsRegion: us-east-1") {
			t.Fatalf("%v: exit code %d: %s", args, code, config)
		}
		if code, printed := lintConfig(t, config); code != 0 || strings.Contains(printed, "warning") {
			t.Errorf("%v: %s", args, printed)
		}
	}
}

func TestEchoShowsNoSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	config := `
input:
  kinesis_pulsar:
    awsKinesisStreamName: s
    awsRegion: us-east-1
    awsCredentialPluginParam: '{"accessKey":"key","secretKey":"hush-hush"}'
output:
  pulsar:
    url: pulsar://localhost:6650
    topic: t
    auth:
      token: { enabled: true, token: hush-token }
      oauth2: { private_key_file: 'data:application/json;base64,hush==' }
`
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	code, printed := cli(t, "echo", path)
	if code != 0 || strings.Contains(printed, "hush") || !strings.Contains(printed, "awsRegion: us-east-1") {
		t.Fatalf("exit code %d: %s", code, printed)
	}
}

// Lint rules are compiled when the packages of the plugins are initialised, which here is before Benthos' own components
// are: a rule that uses a method of theirs complained about every value, and run refused to start.
func TestEveryFieldOfTheOutputLintsInTheBinary(t *testing.T) {
	if code, printed := lintConfig(t, `
input:
  kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: us-east-1, useEnhancedFanOut: false }
output:
  pulsar:
    url: pulsar+ssl://localhost:6651
    topic: t
    key: '${! @pulsar_key }'
    ordering_key: '${! @tenant }'
    properties: { include_prefixes: [ "kinesis." ] }
    max_in_flight: 3
    compression: zstd
    hashing_scheme: java_string
    producer_batching: { enabled: true, max_publish_delay: 1.5ms, max_messages: 10, max_size: 1000 }
    send_timeout: 1m30s
    connection_timeout: 1s
    operation_timeout: 10s
    tls: { skip_cert_verify: true }
    auth: { token: { enabled: true, token: x } }
`); code != 0 {
		t.Fatalf("exit code %d: %s", code, printed)
	}
	for _, bad := range []string{"send_timeout: -1s", "connection_timeout: 0s", "operation_timeout: soon", "operation_timeout: 5", "max_in_flight: 0", "compression: gzip"} {
		config := "input: { generate: { mapping: root = 1 } }\noutput:\n  pulsar:\n    url: pulsar://localhost:6650\n    topic: t\n    " + bad + "\n"
		if code, printed := lintConfig(t, config); code == 0 || !strings.Contains(printed, strings.Split(bad, ":")[0]+":") {
			t.Errorf("%s: exit code %d: %s", bad, code, printed)
		}
	}
}

// The two examples of the Java connector's documentation, pasted as they are, are right but for the application's name.
func TestTheConnectorsDocumentedExamplesLint(t *testing.T) {
	for example, configs := range map[string]string{
		"JSON": `
      "awsEndpoint": "https://some.endpoint.aws"
      "awsRegion": "us-east-1"
      "awsKinesisStreamName": "my-stream"
      "awsCredentialPluginParam": "{\"accessKey\":\"myKey\",\"secretKey\":\"my-Secret\"}"
      "applicationName": "My test application"
      "checkpointInterval": "30000"
      "backoffTime": "4000"
      "numRetries": "3"
      "receiveQueueSize": 2000
      "initialPositionInStream": "TRIM_HORIZON"
      "startAtTime": "2019-03-05T19:28:58.000Z"
`,
		"YAML": `
      awsEndpoint: "https://some.endpoint.aws"
      awsRegion: "us-east-1"
      awsKinesisStreamName: "my-stream"
      awsCredentialPluginParam: "{\"accessKey\":\"myKey\",\"secretKey\":\"my-Secret\"}"
      applicationName: "My test application"
      checkpointInterval: 30000
      backoffTime: 4000
      numRetries: 3
      receiveQueueSize: 2000
      initialPositionInStream: TRIM_HORIZON
      startAtTime: 2019-03-05T19:28:58.000Z
`,
	} {
		config := "input:\n    kinesis_pulsar:" + configs + "output:\n    pulsar:\n      url: pulsar://localhost:6650\n      topic: t\n"
		code, printed := lintConfig(t, config)
		findings := strings.Count(printed, "config.yaml(")
		if code == 0 || findings != 1 || !strings.Contains(printed, "applicationName") {
			t.Errorf("%s: exit code %d, %d findings: %s", example, code, findings, printed)
		}
		if code, printed := lintConfig(t, strings.Replace(config, "My test application", "my-test-application", 1)); code != 0 {
			t.Errorf("%s with a possible name: %s", example, printed)
		}
	}
}
