package input

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"
)

// errCaptured ends a stream whose input has only been built to see its config.
var errCaptured = errors.New("config captured")

// configTester is an environment of its own with the input's spec, and the linters, which are costly to make.
type configTester struct {
	*service.Environment
	spec      *service.ConfigSpec
	component *service.ComponentConfigLinter
	stream    *service.StreamConfigLinter
}

// newConfigTester gives what the input's constructor gets to capture.
func newConfigTester(t testing.TB, capture func(Config, error)) *configTester {
	t.Helper()
	env, spec := service.NewEnvironment(), Spec()
	err := env.RegisterBatchInput("kinesis_pulsar", spec, func(p *service.ParsedConfig, _ *service.Resources) (service.BatchInput, error) {
		c, err := ParseConfig(p)
		if capture != nil {
			capture(c, err)
		}
		return nil, errCaptured
	})
	if err != nil {
		t.Fatal(err)
	}
	return &configTester{env, spec, env.NewComponentConfigLinter(), env.FullConfigSchema("0", "now").NewStreamConfigLinter()}
}

// indent puts a block of YAML (or JSON) under a key.
func indent(key, block string) string {
	return key + ":\n  " + strings.ReplaceAll(strings.Trim(block, "\n"), "\n", "\n  ") + "\n"
}

// lint lints the fields of the input, as a component and inside a whole stream, which must say the same.
func (c *configTester) lint(t testing.TB, yaml string) []string {
	t.Helper()
	component := indent("kinesis_pulsar", yaml)
	lints, err := c.component.LintInputYAML([]byte(component))
	if err != nil {
		t.Fatalf("linting %s: %v", yaml, err)
	}
	whats := []string{}
	for _, l := range lints {
		whats = append(whats, l.What)
	}
	stream, err := c.stream.LintYAML([]byte(indent("input", component)))
	if err != nil {
		t.Fatalf("linting %s in a stream: %v", yaml, err)
	}
	streamWhats := []string{}
	for _, l := range stream {
		streamWhats = append(streamWhats, l.What)
	}
	slices.Sort(whats)
	slices.Sort(streamWhats)
	if !slices.Equal(whats, streamWhats) {
		t.Errorf("%s: the component's lints are %q, the stream's %q", yaml, whats, streamWhats)
	}
	return whats
}

// parse is what happens when the input is built.
func (c *configTester) parse(t testing.TB, yaml string) (Config, error) {
	t.Helper()
	parsed, err := c.spec.ParseYAML(yaml, c.Environment)
	if err != nil {
		return Config{}, err
	}
	return ParseConfig(parsed)
}

const minimal = "awsKinesisStreamName: my-stream\nawsRegion: us-east-1\n"

func TestDefaultsAreTheDocumentedOnes(t *testing.T) {
	env := newConfigTester(t, nil)
	if lints := env.lint(t, minimal); len(lints) != 0 {
		t.Errorf("a minimal config has lints %q", lints)
	}
	got, err := env.parse(t, minimal)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		StreamName: "my-stream", Region: "us-east-1", InitialPosition: Latest, ApplicationName: "pulsar-kinesis",
		CheckpointInterval: time.Minute, BackoffTime: 3 * time.Second, NumRetries: 3, ReceiveQueueSize: 1000, UseEnhancedFanOut: true,
		RecordProperties: []Property{PropertyArrivalTimestamp, PropertyEncryptionType, PropertyPartitionKey, PropertySequenceNumber},
		MessageKeyMode:   KeyModePartitionKey,
		RecreatedStream:  RefuseRecreated,
		MaxBufferedBytes: 64 << 20, FailoverTime: 10 * time.Second, MaxRecords: 10000, IdleTimeBetweenReads: 250 * time.Millisecond,
		CreateTable: true, BillingMode: PayPerRequest,
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestExamplesOfTheConnectorsDocumentation(t *testing.T) {
	env := newConfigTester(t, nil)
	for _, file := range []string{"connector_example.json", "connector_example.yaml"} {
		t.Run(file, func(t *testing.T) {
			block, err := os.ReadFile(filepath.Join("testdata", "config", file))
			if err != nil {
				t.Fatal(err)
			}
			lints := env.lint(t, string(block))
			if len(lints) != 1 || !strings.Contains(lints[0], `applicationName "My test application"`) || !strings.Contains(lints[0], "DynamoDB") || !strings.Contains(lints[0], "My-test-application") {
				t.Errorf("lints are %q, want one about applicationName alone", lints)
			}
			got, err := env.parse(t, strings.Replace(string(block), "My test application", "My-test-application", 1))
			if err != nil {
				t.Fatal(err)
			}
			want := Config{
				StreamName: "my-stream", Region: "us-east-1", Endpoint: "https://some.endpoint.aws",
				CredentialPluginParam: `{"accessKey":"myKey","secretKey":"my-Secret"}`,
				InitialPosition:       TrimHorizon, StartAtTime: time.Date(2019, 3, 5, 19, 28, 58, 0, time.UTC), ApplicationName: "My-test-application",
				CheckpointInterval: 30 * time.Second, BackoffTime: 4 * time.Second, NumRetries: 3, ReceiveQueueSize: 2000,
			}
			if got.CredentialPluginParam != want.CredentialPluginParam {
				t.Error("the credentials are not what was written")
			}
			if !got.StartAtTime.Equal(want.StartAtTime) || got.InitialPosition != want.InitialPosition || got.CheckpointInterval != want.CheckpointInterval ||
				got.BackoffTime != want.BackoffTime || got.NumRetries != want.NumRetries || got.ReceiveQueueSize != want.ReceiveQueueSize ||
				got.Endpoint != want.Endpoint || got.Region != want.Region || got.StreamName != want.StreamName || got.ApplicationName != want.ApplicationName {
				t.Errorf("got %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestExamplesOfTheReferenceLint(t *testing.T) {
	env := newConfigTester(t, nil)
	n := 0
	env.WalkInputs(func(name string, view *service.ConfigView) {
		if name != "kinesis_pulsar" {
			return
		}
		data, err := view.TemplateData()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range data.Examples {
			n++
			lints, err := env.stream.LintYAML([]byte(e.Config))
			if err != nil || len(lints) != 0 {
				t.Errorf("example %q: %v %v", e.Title, lints, err)
			}
		}
		for _, f := range data.Fields {
			if f.Description == "" {
				t.Errorf("field %s has no description", f.FullName)
			}
		}
	})
	if n != len(examples) || n == 0 {
		t.Errorf("linted %d examples of %d", n, len(examples))
	}
}

func TestUnknownFieldsAreLints(t *testing.T) {
	env := newConfigTester(t, nil)
	for _, name := range []string{"streamname", "AwsRegion", "checkpoint_interval", "propertiesToInclude"} {
		lints := env.lint(t, minimal+name+": x\n")
		if len(lints) != 1 || !strings.Contains(lints[0], name) {
			t.Errorf("%s: lints are %q", name, lints)
		}
	}
	if lints := env.lint(t, "awsRegion: us-east-1\n"); len(lints) != 1 || !strings.Contains(lints[0], "awsKinesisStreamName is required") {
		t.Errorf("without a stream: lints are %q", lints)
	}
}

func TestAllMistakesAreToldAtOnce(t *testing.T) {
	_, err := newConfigTester(t, nil).parse(t, "awsKinesisStreamName: my stream\nnumRetries: three\nuseEnhancedFanOut: maybe\n")
	for _, want := range []string{"awsKinesisStreamName", "numRetries", "useEnhancedFanOut", "awsRegion"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}

func TestStartInTheFutureIsRefusedAtStartOnly(t *testing.T) {
	env := newConfigTester(t, nil)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	raw := func(position string, at time.Time) map[string]any {
		return map[string]any{"awsKinesisStreamName": "s", "awsRegion": "r", "initialPositionInStream": position, "startAtTime": at.Format(time.RFC3339)}
	}
	if _, err := parseConfig(raw("AT_TIMESTAMP", now), now); err != nil {
		t.Errorf("now is not the future: %v", err)
	}
	if _, err := parseConfig(raw("AT_TIMESTAMP", now.Add(time.Second)), now); err == nil || !strings.Contains(err.Error(), "startAtTime 2026-01-02T03:04:06Z is in the future") {
		t.Errorf("a start in the future: %v", err)
	}
	if _, err := parseConfig(raw("TRIM_HORIZON", now.Add(time.Hour)), now); err != nil {
		t.Errorf("a moment that is not used may be anything: %v", err)
	}
	if lints := env.lint(t, minimal+"initialPositionInStream: AT_TIMESTAMP\nstartAtTime: 2262-01-01\n"); len(lints) != 0 {
		t.Errorf("lint depends on the day it runs: %q", lints)
	}
}

func TestStreamByARN(t *testing.T) {
	c, err := newConfigTester(t, nil).parse(t, "awsKinesisStreamName: arn:aws-cn:kinesis:cn-north-1:123456789012:stream/orders\nawsRegion: cn-north-1\n")
	if err != nil || c.StreamName != "orders" || c.StreamARN != "arn:aws-cn:kinesis:cn-north-1:123456789012:stream/orders" {
		t.Errorf("%+v %v", c, err)
	}
}

func TestThreeEndpointsStandForTheRegion(t *testing.T) {
	env := newConfigTester(t, nil)
	endpoints := []string{"awsEndpoint: http://a\n", "dynamoEndpoint: http://b\n", "cloudwatchEndpoint: http://c\n"}
	all := "awsKinesisStreamName: s\n" + strings.Join(endpoints, "")
	if lints := env.lint(t, all); len(lints) != 0 {
		t.Errorf("all three: %q", lints)
	}
	for _, e := range endpoints {
		if lints := env.lint(t, strings.Replace(all, e, "", 1)); len(lints) != 1 || lints[0] != regionRule {
			t.Errorf("without %s: %q", e, lints)
		}
	}
}

const regionRule = `Either "awsRegion" must be set OR all of [ "awsEndpoint", "cloudwatchEndpoint", and "dynamoEndpoint" ] must be set.`

// Benthos hides secrets in what it shows; a secret that is no text breaks that, and the run with it. So whatever lint
// passes must come through echo, and hidden.
func TestAcceptedConfigsAreShownWithoutTheirSecrets(t *testing.T) {
	const secret = "c3VwZXJzZWNyZXQ"
	env := newConfigTester(t, nil)
	for _, param := range []string{
		`'{"accessKey":"a","secretKey":"` + secret + `"}'`, `"{\"accessKey\":\"a\",\"secretKey\":\"` + secret + `\"}"`,
		`{accessKey: a, secretKey: ` + secret + `}`, `{"accessKey":"a","secretKey":"` + secret + `"}`, `5`, `null`, `""`,
	} {
		config := indent("input", indent("kinesis_pulsar", minimal+"awsCredentialPluginParam: "+param+"\n"))
		lints, err := env.stream.LintYAML([]byte(config))
		if err != nil {
			t.Fatal(err)
		}
		if len(lints) != 0 {
			continue
		}
		var node yaml.Node
		if err := yaml.Unmarshal([]byte(config), &node); err != nil {
			t.Fatal(err)
		}
		shown, err := env.FullConfigSchema("0", "now").NewStreamConfigMarshaller().SetScrubSecrets(true).AnyToYAML(&node)
		if err != nil || strings.Contains(string(shown), secret) {
			t.Errorf("%s passes lint; shown with error %v as\n%s", param, err, shown)
		}
	}
}

// A secret reaches the constructor, and nothing else: not a printed config, not a lint, not an error, not echo.
func TestSecretsStaySecret(t *testing.T) {
	const secret = "c3VwZXJzZWNyZXQ"
	env := newConfigTester(t, nil)
	good := minimal + `awsCredentialPluginParam: '{"accessKey":"` + secret + `","secretKey":"` + secret + `"}'` + "\n"
	c, err := env.parse(t, good)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(c.CredentialPluginParam.Reveal(), secret) {
		t.Fatal("the secret did not arrive")
	}
	var printed strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&printed, verb+"\n", c)
		fmt.Fprintf(&printed, verb+"\n", &c)
		fmt.Fprintf(&printed, verb+"\n", c.CredentialPluginParam)
	}
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	printed.Write(encoded)
	slog.New(slog.NewTextHandler(&printed, nil)).Info("config", "config", c, "param", c.CredentialPluginParam)
	slog.New(slog.NewJSONHandler(&printed, nil)).Info("config", "config", c, "param", c.CredentialPluginParam)
	for _, param := range []string{
		`'{"accessKey":"` + secret + `"}'`, `'{"accessKey":"` + secret + `"'`, `'` + secret + `'`, `'{"` + secret + `":"x"}'`, `'{"accessKey":["` + secret + `"]}'`,
		`{accessKey: ` + secret + `, secretKey: 5}`, `[` + secret + `]`, `{` + secret + `: x}`, `'{"accessKey":"x","secretKey":"y"}` + secret + `'`, `'{` + secret + `}'`,
	} {
		yaml := minimal + "awsCredentialPluginParam: " + param + "\n"
		lints := env.lint(t, yaml)
		_, err := env.parse(t, yaml)
		if err == nil || len(lints) == 0 {
			t.Errorf("%s is accepted", param)
		}
		fmt.Fprintln(&printed, lints, err)
	}
	for _, form := range []string{secret, fmt.Sprintf("%x", secret)} {
		if strings.Contains(printed.String(), form) {
			t.Errorf("the secret was printed:\n%s", printed.String())
		}
	}
}

func TestEnvironmentVariablesReachTheConfig(t *testing.T) {
	var got Config
	var gotErr error
	env := newConfigTester(t, func(c Config, err error) { got, gotErr = c, err })
	vars := map[string]string{"PARAM": `{"accessKey":"a","secretKey":"b"}`, "INTERVAL": "30000", "FANOUT": "false"}
	b := env.NewStreamBuilder()
	b.SetEnvVarLookupFunc(func(name string) (string, bool) { v, ok := vars[name]; return v, ok })
	err := b.SetYAML(indent("input", indent("kinesis_pulsar", minimal+"awsCredentialPluginParam: '${PARAM}'\ncheckpointInterval: \"${INTERVAL}\"\nuseEnhancedFanOut: ${FANOUT}\n")) + "output:\n  drop: {}\n")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := b.Build()
	if err == nil {
		err = stream.Run(context.Background())
	}
	if err == nil || !strings.Contains(err.Error(), errCaptured.Error()) {
		t.Fatalf("the input was not built: %v", err)
	}
	if gotErr != nil || got.CredentialPluginParam.Reveal() != vars["PARAM"] || got.CheckpointInterval != 30*time.Second || got.UseEnhancedFanOut {
		t.Errorf("%+v %v", got, gotErr)
	}
}
