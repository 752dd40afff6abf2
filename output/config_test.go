package output

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
)

func lint(t *testing.T, yaml string) []string {
	t.Helper()
	lints, err := service.GlobalEnvironment().NewComponentConfigLinter().LintOutputYAML([]byte(yaml))
	if err != nil {
		return []string{err.Error()}
	}
	var texts []string
	for _, l := range lints {
		texts = append(texts, l.What)
	}
	return texts
}

func parse(t testing.TB, yaml string) (*config, error) {
	t.Helper()
	p, err := Spec().ParseYAML(yaml, service.NewEnvironment())
	if err != nil {
		return nil, err
	}
	return parseConfig(p)
}

func under(yaml string) string {
	return "pulsar:\n  " + strings.ReplaceAll(strings.TrimSpace(yaml), "\n", "\n  ")
}

// Every mistake is told at lint, again when the output is made (not everything that runs was linted), and names its field.
func TestBadConfigsNameTheirField(t *testing.T) {
	const good = "url: pulsar://localhost:6650\ntopic: orders\n"
	for name, c := range map[string]struct {
		yaml  string
		field string
		only  string // "lint" or "parse" where the other can't know
	}{
		"no url":                    {yaml: "topic: orders", field: "url"},
		"no topic":                  {yaml: "url: pulsar://localhost:6650", field: "topic"},
		"empty url":                 {yaml: "url: ''\ntopic: orders", field: "url"},
		"http url":                  {yaml: "url: http://localhost:8080\ntopic: orders", field: "url"},
		"ssh url":                   {yaml: "url: pulsar+ssh://localhost:6651\ntopic: orders", field: "url"},
		"url without scheme":        {yaml: "url: localhost:6650\ntopic: orders", field: "url"},
		"url with path":             {yaml: "url: pulsar://localhost:6650/orders\ntopic: orders", field: "url"},
		"empty topic":               {yaml: "url: pulsar://localhost:6650\ntopic: ''", field: "topic"},
		"topic of two parts":        {yaml: "url: pulsar://localhost:6650\ntopic: public/orders", field: "topic"},
		"topic of a strange domain": {yaml: "url: pulsar://localhost:6650\ntopic: durable://public/default/orders", field: "topic"},
		"topic with a space":        {yaml: "url: pulsar://localhost:6650\ntopic: my orders", field: "topic"},
		"broken interpolation":      {yaml: "url: pulsar://localhost:6650\ntopic: '${! json( }'", field: "topic"},
		"broken key":                {yaml: good + "key: '${! nope( }'", field: "key"},
		"broken event time":         {yaml: good + "event_time: '${! nope( }'", field: "event_time"},
		"event time in words":       {yaml: good + "event_time: kinesis.arrival.timestamp", field: "event_time"},
		"event time in seconds":     {yaml: good + "event_time: '1700000000'", field: "event_time"},
		"event time without zone":   {yaml: good + "event_time: '2026-01-31T12:00:00'", field: "event_time"},
		"event time of no calendar": {yaml: good + "event_time: '2026-02-31T12:00:00Z'", field: "event_time", only: "parse"},
		"both auth methods":         {yaml: good + "auth:\n  oauth2:\n    enabled: true\n    issuer_url: https://issuer\n    private_key_file: /k\n  token:\n    enabled: true\n    token: x", field: "auth"},
		"empty token":               {yaml: good + "auth:\n  token:\n    enabled: true", field: "auth.token.token"},
		"oauth2 without issuer":     {yaml: good + "auth:\n  oauth2:\n    enabled: true\n    private_key_file: /k", field: "auth.oauth2.issuer_url"},
		"oauth2 without key file":   {yaml: good + "auth:\n  oauth2:\n    enabled: true\n    issuer_url: https://issuer", field: "auth.oauth2.private_key_file"},
		"compression":               {yaml: good + "compression: gzip", field: "compression"},
		"hashing scheme":            {yaml: good + "hashing_scheme: crc32", field: "hashing_scheme"},
		"admin url of a broker":     {yaml: good + "deduplication: true\nadmin_url: pulsar://localhost:6650", field: "admin_url"},
		"admin url with a question": {yaml: good + "deduplication: true\nadmin_url: http://localhost:8080?x=1", field: "admin_url"},
		"admin url with a secret":   {yaml: good + "deduplication: true\nadmin_url: http://me:hush@localhost:8080", field: "admin_url"},
		"admin url for nothing":     {yaml: good + "admin_url: http://localhost:8080", field: "admin_url"},
		"exactly once, not stored":  {yaml: "url: pulsar://localhost:6650\ntopic: non-persistent://public/default/orders\ndeduplication: true", field: "topic"},
		"batch of none":             {yaml: good + "producer_batching:\n  max_messages: 0", field: "max_messages"},
		"batch of no bytes":         {yaml: good + "producer_batching:\n  max_size: -1", field: "max_size"},
		"publish delay of zero":     {yaml: good + "producer_batching:\n  max_publish_delay: 0s", field: "max_publish_delay"},
		"publish delay as number":   {yaml: good + "producer_batching:\n  max_publish_delay: 10", field: "max_publish_delay"},
		"send timeout":              {yaml: good + "send_timeout: -5s", field: "send_timeout"},
		"connection timeout":        {yaml: good + "connection_timeout: soon", field: "connection_timeout"},
		"operation timeout":         {yaml: good + "operation_timeout: 0s", field: "operation_timeout"},
		"token and file":            {yaml: good + "auth:\n  token:\n    enabled: true\n    token: x\n    file: /t", field: "auth.token"},
		"missing token file":        {yaml: good + "auth:\n  token:\n    enabled: true\n    file: /no/such/token", field: "auth.token.file", only: "parse"},
		"missing key file":          {yaml: good + "auth:\n  oauth2:\n    enabled: true\n    issuer_url: https://issuer\n    private_key_file: /no/such/key", field: "auth.oauth2.private_key_file", only: "parse"},
		"compression level":         {yaml: good + "compression: zstd\ncompression_level: best", field: "compression_level"},
		"level without levels":      {yaml: good + "compression_level: better", field: "compression_level"},
		"chunking":                  {yaml: good + "chunking: maybe", field: "chunking"},
		"dead letters to nowhere":   {yaml: good + "dead_letter_topic: a/b", field: "dead_letter_topic"},
		"dead letters to itself":    {yaml: good + "dead_letter_topic: orders", field: "dead_letter_topic"},
		"interpolated dead letters": {yaml: good + "dead_letter_topic: dead-${! @x }", field: "dead_letter_topic"},
		"producer name":             {yaml: good + "producer_name: my producer", field: "producer_name"},
		"no pending messages":       {yaml: good + "max_pending_messages: 0", field: "max_pending_messages"},
		"many pending messages":     {yaml: good + "max_pending_messages: 100000000", field: "max_pending_messages"},
		"no pending bytes":          {yaml: good + "max_pending_bytes: 0", field: "max_pending_bytes"},
		"backoff of nothing":        {yaml: good + "reconnect_backoff:\n  initial_interval: 0s", field: "initial_interval"},
		"backoff as a number":       {yaml: good + "reconnect_backoff:\n  max_interval: 5", field: "max_interval"},
		"backoff that shrinks":      {yaml: good + "reconnect_backoff:\n  initial_interval: 10s", field: "reconnect_backoff", only: "parse"},
		"key with dots":             {yaml: good + "key: '${! @kinesis.partition.key }'", field: "key"},
		"ordering key with dots":    {yaml: good + "ordering_key: 'x-${! @kinesis.partition.key.or(\"\") }'", field: "ordering_key"},
		"topic with dots":           {yaml: "url: pulsar://localhost:6650\ntopic: 'orders-${! @kinesis.shard.id }'", field: "topic"},
		"event time with dots":      {yaml: good + "event_time: '${! @kinesis.arrival.timestamp }'", field: "event_time"},
		"tls without TLS":           {yaml: good + "tls:\n  root_cas_file: /ca.pem", field: "tls", only: "lint"},
		"missing CA file":           {yaml: "url: pulsar+ssl://localhost:6651\ntopic: orders\ntls:\n  root_cas_file: /no/such/ca.pem", field: "tls", only: "parse"},
		"unknown field":             {yaml: good + "serviceUrl: x", field: "serviceUrl", only: "lint"},
		"batching policy":           {yaml: good + "batching:\n  count: 10", field: "batching", only: "lint"},
		"max_in_flight":             {yaml: good + "max_in_flight: 0", field: "max_in_flight"},
		"properties pattern":        {yaml: good + "properties:\n  include_patterns: ['(']", field: "properties", only: "parse"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.only != "parse" {
				texts := lint(t, under(c.yaml))
				if len(texts) == 0 {
					t.Errorf("lints clean")
				} else if !strings.Contains(name, "broken") && !strings.Contains(strings.Join(texts, "\n"), c.field) {
					// Benthos' own lint of an interpolation tells the line only.
					t.Errorf("lints do not name %s: %q", c.field, texts)
				}
			}
			if c.only != "lint" {
				if _, err := parse(t, c.yaml); err == nil {
					t.Errorf("is parsed")
				} else if !strings.Contains(err.Error(), c.field) {
					t.Errorf("error does not name %s: %v", c.field, err)
				}
			}
		})
	}
}

func TestGoodConfigsLintClean(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, yaml := range map[string]string{
		"minimal":         "url: pulsar://localhost:6650\ntopic: orders",
		"several hosts":   "url: pulsar://a:6650,b:6650\ntopic: public/default/orders",
		"no port":         "url: pulsar://localhost\ntopic: non-persistent://public/default/orders",
		"tls":             "url: pulsar+ssl://localhost:6651\ntopic: persistent://public/default/orders\ntls:\n  skip_cert_verify: true",
		"partition topic": "url: pulsar://localhost:6650\ntopic: orders-partition-3",
		"interpolated":    "url: pulsar://localhost:6650\ntopic: 'orders-${! @region }'\nkey: '${! json(\"id\") }'\nordering_key: '${! @tenant }'",
		"arrival time":    "url: pulsar://localhost:6650\ntopic: orders\nevent_time: '${! @\"kinesis.arrival.timestamp\" }'",
		"event time":      "url: pulsar://localhost:6650\ntopic: orders\nevent_time: '${! json(\"created_ms\").or(\"\") }'",
		"constant time":   "url: pulsar://localhost:6650\ntopic: orders\nevent_time: '2026-01-31T12:00:00.5+01:00'",
		"constant millis": "url: pulsar://localhost:6650\ntopic: orders\nevent_time: '1700000000123'",
		"no properties":   "url: pulsar://localhost:6650\ntopic: orders\nproperties:\n  include_prefixes: []",
		"key in a file":   "url: pulsar+ssl://localhost:6651\ntopic: orders\nauth:\n  oauth2:\n    enabled: true\n    issuer_url: https://issuer\n    private_key_file: file://" + token,
		"token in a file": "url: pulsar+ssl://localhost:6651\ntopic: orders\nauth:\n  token:\n    enabled: true\n    file: " + token,
		"dotted metadata": "url: pulsar://localhost:6650\ntopic: 'orders-${! @\"kinesis.shard.id\" }'\nkey: '${! @\"kinesis.partition.key\" }'\nordering_key: '${! metadata(\"kinesis.partition.key\") }'",
		"upper case enum": "url: pulsar://localhost:6650\ntopic: orders\ncompression: LZ4\nhashing_scheme: Murmur3_32",
		"every field": `
url: pulsar://localhost:6650
topic: orders
key: ""
ordering_key: ""
event_time: ""
properties:
  include_prefixes: ["kinesis.", "x_"]
  include_patterns: ["^y"]
max_in_flight: 1
compression: zstd
compression_level: better
hashing_scheme: java_string
chunking: "off"
dead_letter_topic: refused
producer_name: me
max_pending_messages: 1
max_pending_bytes: 1
reconnect_backoff:
  initial_interval: 1s
  max_interval: 1s
producer_batching:
  enabled: false
  max_publish_delay: 1ms
  max_messages: 10
  max_size: 1024
send_timeout: 30s
connection_timeout: 1s
operation_timeout: 1m`,
		// All fields of Redpanda Connect's output, with its defaults.
		"redpanda connect": `
url: pulsar://localhost:6650
topic: orders
tls:
  root_cas_file: ""
key: ""
ordering_key: ""
max_in_flight: 64
auth:
  oauth2:
    enabled: false
    audience: ""
    issuer_url: ""
    scope: ""
    private_key_file: ""
  token:
    enabled: false
    token: ""`,
	} {
		t.Run(name, func(t *testing.T) {
			if texts := lint(t, under(yaml)); len(texts) > 0 {
				t.Errorf("lints: %q", texts)
			}
			if _, err := parse(t, yaml); err != nil {
				t.Errorf("parsing: %v", err)
			}
		})
	}
}

// The defaults are the Java connector's producer.
func TestDefaults(t *testing.T) {
	c, err := parse(t, "url: pulsar://localhost:6650\ntopic: orders")
	if err != nil {
		t.Fatal(err)
	}
	if c.key.metadata != "pulsar_key" || c.key.expr != nil {
		t.Errorf("the default key goes through Bloblang: %+v", c.key)
	}
	if s, ok := c.orderingKey.static(); !ok || s != "" {
		t.Errorf("ordering key %+v", c.orderingKey)
	}
	if c.eventTime != (eventTime{}) {
		t.Errorf("event time %+v: the Java connector sets none", c.eventTime)
	}
	if !c.properties.Match("kinesis.sequence.number") || c.properties.Match("pulsar_key") || c.properties.Match("kp_record") {
		t.Errorf("properties")
	}
	if c.compression != pulsar.LZ4 || c.hashing != hashMurmur3 || c.maxInFlight != 64 || c.tls != nil {
		t.Errorf("%+v", c)
	}
	if c.batching != (batchingConfig{true, 10 * time.Millisecond, 1000, 131072}) {
		t.Errorf("batching %+v", c.batching)
	}
	if !c.chunking || c.deadLetterTopic != "" || c.producerName != "" || c.compressionLevel != pulsar.Default {
		t.Errorf("%+v", c)
	}
	if c.maxPending != 8192 || c.maxPendingBytes != 4<<20 || c.firstReconnect != 100*time.Millisecond || c.lastReconnect != 5*time.Second {
		t.Errorf("%+v", c)
	}
	if c.sendTimeout >= 0 {
		t.Errorf("send timeout %v: 0 is 30 s to the client", c.sendTimeout)
	}
}

func TestSpecExamplesLint(t *testing.T) {
	// The first example needs the input, which is another package; its output part is linted by the minimal config above.
	view, ok := service.GlobalEnvironment().GetOutputConfig(Name)
	if !ok {
		t.Fatal("not registered by import")
	}
	data, err := view.TemplateData()
	if err != nil {
		t.Fatal(err)
	}
	if len(data.Examples) < 2 || data.Summary == "" {
		t.Errorf("%d examples", len(data.Examples))
	}
	for _, f := range data.Fields {
		if strings.HasPrefix(f.FullName, "tls.") {
			continue
		}
		if f.Description == "" {
			t.Errorf("%s has no description", f.FullName)
		}
	}
}

// A configured authentication that cannot be used is an error: the client's own shorthand would connect without one.
func TestBrokenAuthIsNeverAnonymous(t *testing.T) {
	dir := t.TempDir()
	anonymous := filepath.Join(dir, "anonymous.json")
	if err := os.WriteFile(anonymous, []byte(`{"type":"client_credentials","client_id":"me"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(dir, "key.json")
	if err := os.WriteFile(garbage, []byte("{not json"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		auth authConfig
		text string
	}{
		"missing file": {authConfig{oauth2: oauth2Config{enabled: true, issuerURL: "https://issuer.invalid", privateKeyFile: filepath.Join(dir, "none")}}, "auth.oauth2.private_key_file"},
		"broken file":  {authConfig{oauth2: oauth2Config{enabled: true, issuerURL: "https://issuer.invalid", privateKeyFile: garbage}}, "auth.oauth2.private_key_file"},
		"no secret":    {authConfig{oauth2: oauth2Config{enabled: true, issuerURL: "https://issuer.invalid", privateKeyFile: anonymous}}, "client_secret"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := c.auth.provider()
			if err == nil {
				t.Fatalf("provider %v without an error", p)
			}
			if !strings.Contains(err.Error(), c.text) {
				t.Errorf("error does not name %s: %v", c.text, err)
			}
		})
	}
	if p, err := (authConfig{}).provider(); p != nil || err != nil {
		t.Errorf("no auth: %v, %v", p, err)
	}
}

func TestSecretsAreScrubbed(t *testing.T) {
	view, _ := service.GlobalEnvironment().GetOutputConfig(Name)
	data, err := view.TemplateData()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range data.Fields {
		if f.FullName == "auth.token.token" && f.IsSecret {
			return
		}
	}
	t.Error("auth.token.token is not a secret field")
}

func TestMetadataReferences(t *testing.T) {
	for raw, want := range map[string]string{
		defaultKey:                                "pulsar_key",
		`${! @pulsar_key }`:                       "pulsar_key",
		`${!@pulsar_key}`:                         "pulsar_key",
		`${! meta("kafka key") }`:                 "kafka key",
		`${! metadata("kinesis.shard.id") }`:      "kinesis.shard.id",
		`${! @a.or("") }`:                         "a",
		`${! @a | "" }`:                           "a",
		`${! @"kinesis.arrival.timestamp" }`:      "kinesis.arrival.timestamp",
		`${!@"a b".or("")}`:                       "a b",
		`${! @"a" + "b" }`:                        "",
		`${! @"with \"quotes\"" }`:                "",
		`${! @a.b }`:                              "", // field b of entry a
		`${! @a.or("none") }`:                     "",
		`${! @a.uppercase() }`:                    "",
		`x${! @a }`:                               "",
		`${! @a }${! @b }`:                        "",
		`${! json("id") }`:                        "",
		`${! metadata("a" + "b").or("") }`:        "",
		`${! metadata("with \"quotes\"").or("")}`: "",
	} {
		expr, err := service.NewInterpolatedString(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if got := newText(raw, expr); got.metadata != want {
			t.Errorf("%s: reference to %q, want %q", raw, got.metadata, want)
		}
	}
}

// A missing metadata entry must not become the key "null", which is what Bloblang makes of it.
func TestAbsentMetadataIsNoKey(t *testing.T) {
	null := service.NewMessage(nil)
	null.MetaSetMut("k", nil)
	number := service.NewMessage(nil)
	number.MetaSetMut("k", 7)
	str := service.NewMessage(nil)
	str.MetaSetMut("k", "v")
	batch := service.MessageBatch{service.NewMessage(nil), null, number, str}
	for _, raw := range []string{`${! @k }`, `${! @"k" }`, `${! meta("k") }`, `${! metadata("k").or("") }`} {
		expr, err := service.NewInterpolatedString(raw)
		if err != nil {
			t.Fatal(err)
		}
		b := newText(raw, expr).over(batch)
		for i, want := range []string{"", "", "7", "v"} {
			if got, err := b.at(i); err != nil || got != want {
				t.Errorf("%s of message %d is %q (%v), want %q", raw, i, got, err, want)
			}
		}
	}
}
