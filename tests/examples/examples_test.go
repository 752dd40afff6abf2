package examples

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	_ "github.com/kinesis-pulsar/kinesis-pulsar/input"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/output"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

const root = "../.."

func TestMain(m *testing.M) { pulsartest.VerifyTestMain(m) }

// examples are the files of config_examples by name.
func examples(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	paths, err := filepath.Glob(filepath.Join(root, "config_examples", "*"))
	if err != nil || len(paths) == 0 {
		t.Fatal("no examples", err)
	}
	for _, path := range paths {
		if filepath.Base(path) != "streams" { // a folder, see TestTheStreamsDirectoryLints
			files[filepath.Base(path)] = read(t, path)
		}
	}
	return files
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// lint reports everything that `kinesis-pulsar lint` would say, deprecated fields included.
func lint(t *testing.T, name, config string) {
	t.Helper()
	linter := service.GlobalEnvironment().FullConfigSchema("", "").NewStreamConfigLinter().SetRejectDeprecated(true)
	// Nothing of the environment: an example has to be whole by its defaults.
	linter.SetEnvVarLookupFunc(func(context.Context, string) (string, bool) { return "", false })
	lints, err := linter.LintYAML([]byte(config))
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	for _, l := range lints {
		t.Errorf("%s:%d: %s", name, l.Line, l.What)
	}
}

func TestEveryExampleLints(t *testing.T) {
	for name, config := range examples(t) {
		if filepath.Ext(name) != ".yaml" {
			t.Errorf("%s: not a .yaml file", name)
		}
		lint(t, name, config)
	}
}

// How streams mode runs is a test of the binary's.
func TestTheStreamsDirectoryLints(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(root, "config_examples", "streams", "*", "*.yaml"))
	if err != nil || len(paths) < 2 {
		t.Fatal(paths, err)
	}
	for _, path := range append(paths, filepath.Join(root, "config_examples", "streams", "service.yaml")) {
		lint(t, path, read(t, path))
	}
}

// yamlBlock is a fenced block of a page, which may be indented in a list.
var yamlBlock = regexp.MustCompile("(?ms)^( *)```ya?ml *\n(.*?)^ *``` *$")

func TestEveryYAMLBlockOfThePagesLints(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatal("no pages", err)
	}
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		text := read(t, page)
		blocks := yamlBlock.FindAllStringSubmatchIndex(text, -1)
		if len(blocks) == 0 && filepath.Base(page) == "README.md" {
			t.Error("README.md shows no config")
		}
		for _, at := range blocks {
			var block strings.Builder
			for line := range strings.Lines(text[at[4]:at[5]]) {
				block.WriteString(strings.TrimPrefix(line, text[at[2]:at[3]]))
			}
			lint(t, fmt.Sprintf("%s, block in line %d", filepath.Base(page), 1+strings.Count(text[:at[0]], "\n")), block.String())
		}
	}
}

// A page that names a file which is not there sends its reader astray.
func TestEveryRelativeLinkLeadsSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	pages, _ := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: %v", filepath.Base(page), err)
			}
		}
	}
}

const refusedBytes = 60_000 // more than the stand-in broker takes here

// Every example does what it says, with stand-ins in place of its endpoints and static keys in place of its credentials.
func TestEveryExampleRuns(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("DEAD_LETTER_FOLDER", folder)
	for name, config := range examples(t) {
		t.Run(name, func(t *testing.T) {
			options := []pulsartest.Option{pulsartest.MaxMessageSize(50_000)}
			switch name {
			case "exactly-once.yaml":
				options = append(options, pulsartest.Deduplication())
			case "hosted-pulsar.yaml", "hosted-pulsar-oauth2.yaml":
				options = append(options, pulsartest.RequireToken(token))
			}
			k, d, b := kinesistest.NewServer(), dynamotest.NewServer(), pulsartest.NewBroker(options...)
			t.Cleanup(func() { k.Close(); d.Close(); b.Close() })
			e := parse(t, config)
			sources := e.redirect(k.URL(), d.URL(), b.URL())
			switch name {
			case "hosted-pulsar.yaml":
				t.Setenv("PULSAR_TOKEN", token)
			case "hosted-pulsar-oauth2.yaml":
				oauth2 := e["output"].(map[string]any)["pulsar"].(map[string]any)["auth"].(map[string]any)["oauth2"].(map[string]any)
				oauth2["issuer_url"] = authorizationServer(t, oauth2["audience"].(string))
			}
			for _, s := range sources {
				if err := k.CreateStream(s.stream, 2); err != nil {
					t.Fatal(err)
				}
			}
			e.start(t)
			for _, s := range sources {
				eventually(t, "the leases are there", func() bool { return len(d.Items(s.table)) == 2 })
			}

			var sent []kinesistest.Record
			for i := range 60 {
				stream := sources[i%len(sources)].stream
				key := fmt.Sprintf("tenant-%d/device-%d", i%3, i%20)
				if i%20 == 19 {
					key = fmt.Sprintf("device-%d", i)
				}
				records, err := k.Put(stream, key, fmt.Appendf(nil, "\x00\xff record %d", i))
				if err != nil {
					t.Fatal(err)
				}
				sent = append(sent, records...)
			}
			var refused string
			if name == "dead-letter.yaml" {
				records, err := k.Put(sources[0].stream, "tenant-0/device-0", bytes.Repeat([]byte{7}, refusedBytes))
				if err != nil {
					t.Fatal(err)
				}
				refused = filepath.Join(folder, records[0].SequenceNumber)
			}
			eventually(t, "all records arrive", func() bool { return len(messages(b)) >= len(sent) })
			if refused != "" {
				eventually(t, "the refused record is in its file", func() bool {
					data, _ := os.ReadFile(refused)
					return len(data) == refusedBytes
				})
			}
			check(t, name, sent, messages(b))
			for _, problem := range b.Problems() {
				if !pulsartest.IsLateSend(problem) {
					t.Error(problem)
				}
			}
		})
	}
}

const token = "the-token"

// authorizationServer gives the token to a client that it knows, by OAuth 2.0's client credentials, and returns its URL. The client's
// key file is in PULSAR_KEY_FILE.
func authorizationServer(t *testing.T, audience string) string {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(key, []byte(`{"type":"client_credentials","client_id":"me","client_secret":"hush"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PULSAR_KEY_FILE", key)
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"issuer":%q,"token_endpoint":%q}`, server.URL, server.URL+"/token")
		case "/token":
			if r.FormValue("grant_type") != "client_credentials" || r.FormValue("client_id") != "me" || r.FormValue("client_secret") != "hush" || r.FormValue("audience") != audience {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, token)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// check compares what arrived with what the example promises.
func check(t *testing.T, name string, sent []kinesistest.Record, got []pulsartest.Message) {
	t.Helper()
	if len(got) != len(sent) {
		t.Errorf("%d messages of %d records", len(got), len(sent))
	}
	for _, r := range sent {
		i := slices.IndexFunc(got, func(m pulsartest.Message) bool { return bytes.Equal(m.Payload, r.Data) })
		if i < 0 {
			t.Errorf("record %q is missing", r.Data)
			continue
		}
		m := got[i]
		key, properties := r.PartitionKey, 4
		if name == "routing.yaml" {
			tenant, device, found := strings.Cut(r.PartitionKey, "/")
			if !found {
				tenant, device = "unknown", r.PartitionKey
			}
			key = device
			if m.Topic != "persistent://public/default/events-"+tenant || m.Properties["tenant"] != tenant || m.Properties["kinesis.shard.id"] != r.ShardID {
				t.Errorf("record of %s: topic %s, properties %v", r.PartitionKey, m.Topic, m.Properties)
			}
		}
		if m.Key != key || len(m.Properties) != properties || m.Properties["kinesis.sequence.number"] != r.SequenceNumber {
			t.Errorf("record of %s: key %q, properties %v", r.PartitionKey, m.Key, m.Properties)
		}
	}
}

func messages(b *pulsartest.Broker) (all []pulsartest.Message) {
	for _, topic := range b.Topics() {
		all = append(all, b.Messages(topic)...)
	}
	return all
}

// example is a configuration that can be changed.
type example map[string]any

func parse(t *testing.T, config string) example {
	t.Helper()
	// Into a plain map: yaml gives every map in it the type of the outermost.
	var e map[string]any
	if err := yaml.Unmarshal([]byte(config), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// source is a stream and its lease table.
type source struct{ stream, table string }

// redirect puts stand-ins in the place of the services, and returns what is read.
func (e example) redirect(kinesis, dynamodb, pulsar string) (sources []source) {
	one := func(in map[string]any) {
		in["awsEndpoint"], in["dynamoEndpoint"] = kinesis, dynamodb
		in["awsCredentialPluginName"], in["awsCredentialPluginParam"] = "", `{"accessKey":"a","secretKey":"b"}`
		name := in["awsKinesisStreamName"].(string)
		if _, after, isARN := strings.Cut(name, ":stream/"); isARN {
			// The stand-in has an account and a region of its own.
			name = after
			in["awsKinesisStreamName"] = name
		}
		sources = append(sources, source{name, in["applicationName"].(string)})
	}
	var point func(v any)
	point = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if p, ok := v["pulsar"].(map[string]any); ok {
				p["url"] = pulsar
			}
			if in, ok := v["kinesis_pulsar"].(map[string]any); ok {
				one(in)
			}
			for _, child := range v {
				point(child)
			}
		case []any:
			for _, child := range v {
				point(child)
			}
		}
	}
	point(e["input"])
	point(e["output"])
	return sources
}

// start runs the example until the test ends.
func (e example) start(t *testing.T) {
	t.Helper()
	parts := map[string]any{}
	for _, part := range []string{"input", "pipeline", "output"} {
		if v, ok := e[part]; ok {
			parts[part] = v
		}
	}
	text, err := yaml.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	b := service.NewStreamBuilder()
	b.SetLogger(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err := b.SetYAML(string(text)); err != nil {
		t.Fatal(err)
	}
	stream, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- stream.Run(context.Background()) }()
	t.Cleanup(func() {
		if err := stream.StopWithin(20 * time.Second); err != nil {
			t.Error("stopping:", err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(logged.String())
		}
	})
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	const patience = 3 * time.Minute
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}
