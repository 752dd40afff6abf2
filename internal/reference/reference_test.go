package reference_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"

	_ "github.com/kinesis-pulsar/kinesis-pulsar/input"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/reference"
	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/metrics"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/output"
)

const folder = "../../docs/reference"

func pages(t *testing.T) map[string][]byte {
	t.Helper()
	all, err := reference.Pages(service.GlobalEnvironment().FullConfigSchema("", "").Field(lint.Field()))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTheReferenceIsUpToDate(t *testing.T) {
	all := pages(t)
	for name, page := range all {
		written, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil || !bytes.Equal(written, page) {
			t.Errorf("docs/reference/%s is out of date (%v): run go run ./internal/reference/generate", name, err)
		}
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, is := all[f.Name()]; !is {
			t.Errorf("docs/reference/%s is written by nobody", f.Name())
		}
	}
}

func TestEveryFieldIsOnItsPage(t *testing.T) {
	all := pages(t)
	for page, view := range map[string]func(string) (*service.ConfigView, bool){
		"kinesis_pulsar": service.GlobalEnvironment().GetInputConfig,
		"pulsar":         service.GlobalEnvironment().GetOutputConfig,
		"prometheus":     service.GlobalEnvironment().GetMetricsConfig,
	} {
		config, ok := view(page)
		if !ok {
			t.Fatal(page)
		}
		data, err := config.TemplateData()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range data.Fields {
			if !bytes.Contains(all[page+".md"], []byte("### `"+f.FullName+"`\n")) {
				t.Errorf("%s is not on its page", f.FullName)
			}
		}
	}
}

// node follows a path through the schema as an editor does.
func node(t *testing.T, schema map[string]any, path ...string) map[string]any {
	t.Helper()
	at := schema
	for _, step := range path {
		for {
			if list, has := at["allOf"].([]any); has {
				at = list[0].(map[string]any)
			}
			reference, has := at["$ref"].(string)
			if !has {
				break
			}
			at = schema["definitions"].(map[string]any)[strings.TrimPrefix(reference, "#/definitions/")].(map[string]any)
		}
		next, has := at["properties"].(map[string]any)[step].(map[string]any)
		if !has {
			t.Fatalf("%s of %v is not in the schema", step, path)
		}
		at = next
	}
	return at
}

func TestAnEditorFindsDescriptionsDefaultsAndValues(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(pages(t)["config.schema.json"], &schema); err != nil {
		t.Fatal(err)
	}
	compression := node(t, schema, "output", "pulsar", "compression")
	if values, _ := compression["enum"].([]any); !slices.Contains(values, any("lz4")) || compression["default"] == nil || compression["description"] == "" {
		t.Errorf("compression: %v", compression)
	}
	if name := node(t, schema, "input", "kinesis_pulsar", "awsKinesisStreamName"); name["description"] == "" {
		t.Errorf("awsKinesisStreamName: %v", name)
	}
	// Of the input's fields Benthos knows no type.
	position := node(t, schema, "input", "kinesis_pulsar", "initialPositionInStream")
	if values, _ := position["anyOf"].([]any); len(values) == 0 || !slices.Contains(values[0].(map[string]any)["enum"].([]any), any("TRIM_HORIZON")) || position["default"] != "LATEST" {
		t.Errorf("initialPositionInStream: %v", position)
	}
	for name, kind := range map[string]string{"checkpointInterval": "integer", "maxLeasesForWorker": "integer", "useEnhancedFanOut": "boolean"} {
		if types, _ := node(t, schema, "input", "kinesis_pulsar", name)["type"].([]any); !slices.Contains(types, any(kind)) || !slices.Contains(types, any("string")) {
			t.Errorf("%s: %v", name, types)
		}
	}
	if required := node(t, schema, "input", "kinesis_pulsar")["required"]; !slices.Contains(required.([]any), any("awsKinesisStreamName")) {
		t.Errorf("required: %v", required)
	}
	if metrics := node(t, schema, "metrics", "prometheus", "push_interval"); metrics["description"] == "" {
		t.Errorf("push_interval: %v", metrics)
	}
}
