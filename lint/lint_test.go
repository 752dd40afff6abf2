package lint_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	_ "github.com/kinesis-pulsar/kinesis-pulsar/input"
	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/metrics"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/output"
)

var catalog = sync.OnceValue(func() *lint.Catalog {
	schema := service.GlobalEnvironment().FullConfigSchema("", "")
	c, err := lint.NewCatalog(schema.Field(lint.Field()))
	if err != nil {
		panic(err)
	}
	return c
})

func read(t *testing.T, text string) *lint.Config {
	t.Helper()
	root, err := lint.ParseYAML([]byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	return catalog().Read(root)
}

func check(t *testing.T, text string) []lint.Finding {
	t.Helper()
	return lint.Check(read(t, text))
}

func TestEveryRuleFindsWhatItIsFor(t *testing.T) {
	for _, r := range lint.Rules() {
		found := check(t, r.Bad)
		if len(found) == 0 || slices.ContainsFunc(found, func(f lint.Finding) bool { return f.Rule != r.Name }) {
			t.Errorf("%s: found %v in:\n%s", r.Name, found, r.Bad)
			continue
		}
		if f := found[0]; f.Line == 0 || f.Level != r.Level || f.What == "" {
			t.Errorf("%s: %+v", r.Name, f)
		}
		if found := check(t, r.Bad+"lint: { allow: [ "+r.Name+" ] }\n"); len(found) != 0 {
			t.Errorf("%s is allowed, and found: %v", r.Name, found)
		}
	}
}

func TestAFindingNamesItsPlace(t *testing.T) {
	found := check(t, `input:
  kinesis_pulsar:
    awsKinesisStreamName: s
    awsRegion: us-east-1
pipeline:
  processors:
    - mapping: root = this
    - split:
        size: "10"
output:
  broker:
    outputs:
      - drop: {}
      - pulsar:
          url: pulsar://localhost:6650
          topic: t
`)
	want := []string{
		"(8,7) pipeline.processors.1: the parts of a split batch are written at the same time and overtake each other; leave split out, or set max_in_flight: 1 at output.broker.outputs.1.pulsar [split-overtakes]",
		`(9,15) pipeline.processors.1.split.size: "10" in quotes is a text; write a number: 10 without quotes [wrong-type]`,
	}
	if len(found) != 2 || found[0].String() != want[0] || found[1].String() != want[1] {
		t.Errorf("found %q", found)
	}
}

const kinesis = "input: { kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: us-east-1 } }\n"

func TestWhatIsRightIsLeftAlone(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                           "",
		"the plain pair":                    kinesis + "output: { pulsar: { url: u, topic: t } }\n",
		"no buffer":                         kinesis + "buffer: { none: {} }\noutput: { pulsar: { url: u, topic: t } }\n",
		"a split in a branch":               kinesis + "pipeline: { processors: [ { branch: { processors: [ { split: {} } ] } } ] }\noutput: { pulsar: { url: u, topic: t } }\n",
		"a resource in a branch":            kinesis + "pipeline: { processors: [ { branch: { processors: [ { resource: cut } ] } } ] }\noutput: { pulsar: { url: u, topic: t } }\nprocessor_resources: [ { label: cut, split: {} } ]\n",
		"split, one by one":                 kinesis + "pipeline: { processors: [ { split: {} } ] }\noutput: { pulsar: { url: u, topic: t, max_in_flight: 1 } }\n",
		"a resource that nobody uses":       kinesis + "output: { pulsar: { url: u, topic: t } }\nprocessor_resources: [ { label: cut, split: {} } ]\n",
		"another input":                     "input: { generate: { mapping: root = 1 } }\nbuffer: { memory: {} }\npipeline: { processors: [ { split: {} }, { archive: { format: lines } } ] }\noutput: { pulsar: { url: u, topic: t } }\n",
		"one stream, two workers":           "input: { broker: { inputs: [ { kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: r } }, { kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: r } } ] } }\noutput: { pulsar: { url: u, topic: t } }\n",
		"two regions":                       "input: { broker: { inputs: [ { kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: a } }, { kinesis_pulsar: { awsKinesisStreamName: z, awsRegion: b } } ] } }\noutput: { pulsar: { url: u, topic: t } }\n",
		"two tables":                        "input: { broker: { inputs: [ { kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: a, tableName: one } }, { kinesis_pulsar: { awsKinesisStreamName: z, awsRegion: a } } ] } }\noutput: { pulsar: { url: u, topic: t } }\n",
		"variables not set":                 "input: { kinesis_pulsar: { awsKinesisStreamName: \"${S}\", awsRegion: r, receiveQueueSize: \"${N}\" } }\noutput:\n  pulsar:\n    url: u\n    topic: t\n    max_in_flight: ${N}\nshutdown_timeout: ${T}\n",
		"interpolation":                     "input: { generate: { mapping: root = 1, interval: '@every 5s' } }\npipeline: { processors: [ { sleep: { duration: '${! this.ms }ms' } } ] }\noutput: { drop: {} }\n",
		"numbers in the connector's quotes": "input: { kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: r, numRetries: \"3\", useEnhancedFanOut: \"true\" } }\noutput: { pulsar: { url: u, topic: t } }\n",
		"deduplication":                     kinesis + "pipeline: { processors: [ { mapping: 'root = this' } ] }\noutput: { pulsar: { url: u, topic: t, deduplication: true } }\n",
	} {
		if found := check(t, text); len(found) != 0 {
			t.Errorf("%s: %v", name, found)
		}
	}
}

func TestResourcesAreFollowed(t *testing.T) {
	found := check(t, kinesis+`
pipeline: { processors: [ { resource: cut } ] }
output: { resource: out }
processor_resources: [ { label: cut, split: {} } ]
output_resources: [ { label: out, pulsar: { url: u, topic: t } } ]
`)
	if len(found) != 1 || found[0].Rule != "split-overtakes" || found[0].Path != "processor_resources.0" {
		t.Errorf("found %v", found)
	}
	found = check(t, `
input: { broker: { inputs: [ { resource: in }, { resource: in } ], batching: { count: 7 } } }
output: { pulsar: { url: u, topic: t } }
input_resources: [ { label: in, kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: r } } ]
`)
	if len(found) != 1 || found[0].Rule != "batching-mixes-shards" || found[0].Path != "input.broker.batching" {
		t.Errorf("found %v", found)
	}
	// Resources that use each other: no good config, and no reason to hang.
	check(t, "output: { resource: a }\noutput_resources: [ { label: a, resource: b }, { label: b, fallback: [ { resource: a }, { pulsar: { url: u, topic: t, deduplication: true } } ] } ]\n")
}

// A stream of streams mode uses what the service's config has, and so do configs with files of resources.
func TestWhatStandsBesideAConfigIsFollowed(t *testing.T) {
	parse := func(text string) *yaml.Node {
		root, err := lint.ParseYAML([]byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		return root
	}
	beside := lint.Resources{File: "service.yaml", Root: parse(`
processor_resources: [ { label: cut, split: { size: "7" } }, { label: unused, archive: { format: lines } } ]
error_handling: { strict: true }
shutdown_timeout: 5s
`)}
	config := catalog().Read(parse(kinesis+"pipeline: { processors: [ { resource: cut } ] }\noutput: { pulsar: { url: u, topic: t, deduplication: true } }\n"), beside)
	var found []string
	for _, f := range lint.Check(config) {
		found = append(found, f.File+" "+f.Path+" "+f.Rule)
	}
	want := []string{
		"service.yaml processor_resources.0 split-overtakes", "service.yaml error_handling.strict deduplication-wrapped",
		"service.yaml processor_resources.0 deduplication-reordered", "service.yaml shutdown_timeout short-shutdown",
	}
	if !slices.Equal(found, want) {
		t.Errorf("found %q", found)
	}
	config.Allow("split-overtakes", "deduplication-wrapped", "deduplication-reordered")
	if found := lint.Check(config); len(found) != 1 || !strings.HasPrefix(found[0].String(), "service.yaml(4,19) shutdown_timeout: ") {
		t.Errorf("found %v", found)
	}
}

func TestVariablesAreReadAsBenthosDoes(t *testing.T) {
	root, err := lint.ParseYAML([]byte("a: ${SET}\nb: ${UNSET:7}\nc: ${SET:8}\nd: ${EMPTY:9}\n"), func(name string) (string, bool) {
		return map[string]string{"SET": "6"}[name], name != "UNSET"
	})
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ A, B, C, D int }
	if err := root.Decode(&got); err != nil || got != struct{ A, B, C, D int }{6, 7, 6, 9} {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAnUnknownRuleCannotBeAllowed(t *testing.T) {
	found := check(t, "lint: { allow: [ split-overtake ] }\n")
	if len(found) != 1 || !strings.Contains(found[0].What, "split-overtakes") || found[0].Path != "lint.allow.0" {
		t.Errorf("found %v", found)
	}
}

func TestOneTableInTwoFiles(t *testing.T) {
	a, b := read(t, kinesis), read(t, strings.Replace(kinesis, ": s,", ": other,", 1))
	found := lint.CheckTogether([]*lint.Config{a, a, b}, []string{"a.yaml", "again.yaml", "b.yaml"})
	if len(found[0])+len(found[1]) != 0 || len(found[2]) != 1 || !strings.Contains(found[2][0].What, "a.yaml (input.kinesis_pulsar)") {
		t.Errorf("found %v", found)
	}
}

// Whoever lints a config that uses other parts of Benthos must not be told nonsense about them. Their own examples are the
// best collection of right configs there is.
func TestNoExampleOfBenthosIsFoundFaultWith(t *testing.T) {
	seen := 0
	look := func(name string, view *service.ConfigView) {
		data, err := view.TemplateData()
		if err != nil {
			t.Error(err)
			return
		}
		for _, e := range data.Examples {
			root, err := lint.ParseYAML([]byte(e.Config), nil)
			if err != nil {
				continue // some are parts of configs
			}
			seen++
			if found := lint.Check(catalog().Read(root)); len(found) != 0 {
				t.Errorf("%s, %s: %v in\n%s", name, e.Title, found, e.Config)
			}
		}
		// The documented defaults.
		for _, text := range []string{data.CommonConfigYAML, data.AdvancedConfigYAML} {
			root, err := lint.ParseYAML([]byte(text), nil)
			if err != nil {
				continue
			}
			seen++
			for _, f := range lint.Check(catalog().Read(root)) {
				if f.Rule == "wrong-type" || f.Rule == "no-duration" {
					t.Errorf("the defaults of %s: %v in\n%s", name, f, text)
				}
			}
		}
	}
	env := service.GlobalEnvironment()
	env.WalkInputs(look)
	env.WalkOutputs(look)
	env.WalkProcessors(look)
	env.WalkBuffers(look)
	env.WalkCaches(look)
	env.WalkRateLimits(look)
	env.WalkMetrics(look)
	if seen < 100 {
		t.Errorf("only %d examples were looked at", seen)
	}
}

func TestNoExampleOfOurOwnIsFoundFaultWith(t *testing.T) {
	files, err := filepath.Glob("../config_examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if found := check(t, string(text)); len(found) != 0 {
			t.Errorf("%s: %v", file, found)
		}
	}
}

func FuzzAnyTextIsSurvived(f *testing.F) {
	for _, r := range lint.Rules() {
		f.Add(r.Bad)
	}
	f.Add("a: &a { input: *a }")
	f.Add("input: &x { broker: { inputs: [ *x ] } }")
	f.Add("- 1")
	f.Fuzz(func(t *testing.T, text string) {
		root, err := lint.ParseYAML([]byte(text), nil)
		if err != nil {
			return
		}
		for _, finding := range lint.Check(catalog().Read(root)) {
			if finding.What == "" || finding.Path == "" {
				t.Errorf("%+v", finding)
			}
		}
	})
}

func TestFilesThatAreThereOrNotReadAreNoFinding(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for auth, findings := range map[string]int{
		"token: { enabled: true, file: '" + file + "' }":                                              0,
		"token: { enabled: false, file: /no/such/token }":                                             0,
		"token: { enabled: true, file: /no/such/token }":                                              1,
		"oauth2: { enabled: true, issuer_url: 'https://x', private_key_file: 'file://" + file + "' }": 0,
		"oauth2: { enabled: true, issuer_url: 'https://x', private_key_file: 'data:,{}' }":            0,
		"oauth2: { enabled: true, issuer_url: 'https://x', private_key_file: /no/such/key }":          1,
	} {
		found := check(t, "input: { kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: us-east-1, applicationName: a } }\n"+
			"output: { pulsar: { url: 'pulsar+ssl://localhost:6651', topic: t, auth: { "+auth+" } } }\n")
		if len(found) != findings || findings == 1 && !strings.Contains(found[0].String(), "output.pulsar.auth.") {
			t.Errorf("%s: %v", auth, found)
		}
	}
}

// Every wrapper takes records away or sends them again out of turn.
func TestDeduplicationStandsAlone(t *testing.T) {
	const output = "pulsar: { url: u, topic: t, deduplication: true }"
	for wrapper, text := range map[string]string{
		"retry":           "output: { retry: { output: { " + output + " } } }\n",
		"reject_errored":  "output: { reject_errored: { " + output + " } }\n",
		"switch":          "output: { switch: { cases: [ { output: { " + output + " } } ] } }\n",
		"broker":          "output: { broker: { outputs: [ { " + output + " } ] } }\n",
		"drop_on":         "output: { drop_on: { error: true, output: { " + output + " } } }\n",
		"a resource":      "output: { fallback: [ { resource: out }, { drop: {} } ] }\noutput_resources: [ { label: out, " + output + " } ]\n",
		"strict handling": "output: { " + output + " }\nerror_handling: { strict: true }\n",
	} {
		if found := check(t, kinesis+text); len(found) != 1 || found[0].Rule != "deduplication-wrapped" {
			t.Errorf("%s: %v", wrapper, found)
		}
	}
}
