package command_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// converted converts a config, lints what comes out, and returns it with the notes.
func converted(t *testing.T, text string, flags ...string) (yaml, notes string) {
	t.Helper()
	dir := write(t, map[string]string{"old": text})
	out := filepath.Join(dir, "new.yaml")
	code, _, notes := run(t, append(append([]string{"convert"}, flags...), "-o", out, filepath.Join(dir, "old"))...)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, notes)
	}
	if code, _, complaints := run(t, "lint", "--skip-env-var-check", out); code != 0 || complaints != "" {
		t.Errorf("what was written does not lint clean: %s", complaints)
	}
	written, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(written), notes
}

func wants(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, w := range wants {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in:\n%s", w, text)
		}
	}
}

// The example of the connector's documentation, as a source config.
func TestConvertTheDocumentedSource(t *testing.T) {
	yaml, notes := converted(t, `{
  "tenant": "public", "namespace": "default", "name": "kinesis", "archive": "connectors/pulsar-io-kinesis-4.0.0.nar",
  "topicName": "persistent://public/default/orders", "parallelism": 3, "processingGuarantees": "ATLEAST_ONCE",
  "configs": {
    "awsEndpoint": "https://some.endpoint.aws", "awsRegion": "us-east-1", "awsKinesisStreamName": "my-stream",
    "awsCredentialPluginParam": "{\"accessKey\":\"myKey\",\"secretKey\":\"my-Secret\"}",
    "applicationName": "My test application", "checkpointInterval": "30000", "backoffTime": "4000", "numRetries": "3",
    "receiveQueueSize": 2000, "initialPositionInStream": "TRIM_HORIZON", "startAtTime": "2019-03-05T19:28:58.000Z"
  },
  "producerConfig": { "compressionType": "ZSTD", "maxPendingMessages": 500, "batchBuilder": "KEY_BASED",
    "batchingConfig": { "enabled": true, "batchingMaxPublishDelayMs": 5, "batchingMaxMessages": 200, "batchingMaxBytes": 100000 } },
  "resources": { "cpu": 1 }, "schemaType": "AVRO"
}`, "--pulsar-url", "pulsar+ssl://broker:6651")
	wants(t, yaml,
		"    awsKinesisStreamName: my-stream\n", "    awsRegion: us-east-1\n", `    awsCredentialPluginParam: '{"accessKey":"myKey","secretKey":"my-Secret"}'`,
		"    applicationName: My-test-application\n", `    checkpointInterval: "30000"`, "    receiveQueueSize: 2000\n", "    useEnhancedFanOut: true\n",
		"    url: pulsar+ssl://broker:6651\n", "    topic: persistent://public/default/orders\n", "    compression: zstd\n",
		"      max_publish_delay: 5ms\n", "      max_messages: 200\n", "      max_size: 100000\n",
		"# - parallelism: start 3 processes")
	wants(t, notes, "parallelism (changed)", "producerConfig.batchBuilder (not possible)", "schemaType (not possible)", "resources (not needed)",
		"configs.applicationName (changed)", "configs.startAtTime (not needed)", "archive (not needed)", "producerConfig.maxPendingMessages (not needed)")
	if strings.Contains(notes, "my-Secret") {
		t.Errorf("a secret is told: %s", notes)
	}
}

func TestConvertNamesEverythingThatItDoesNotKnow(t *testing.T) {
	_, notes := converted(t, `
topicName: t
newFeature: true
configs: { awsKinesisStreamName: s, awsRegion: r, newKey: 1, awsCredentialPluginParam: ~ }
secrets: { awsCredentialPluginParam: { path: p, key: k }, other: { path: p, key: k } }
producerConfig: { newOption: 1, cryptoConfig: { encryptionKeys: [ a ] }, batchingConfig: { newLimit: 1 } }
processingGuarantees: MANUAL
`)
	wants(t, notes, "newFeature (not possible)", "configs.newKey (not possible)", "secrets.awsCredentialPluginParam (changed)", "secrets.other (not possible)",
		"producerConfig.newOption (not possible)", "producerConfig.cryptoConfig (not possible)", "producerConfig.batchingConfig.newLimit (not possible)", "processingGuarantees (not possible)")
}

func TestConvertTheBlockAlone(t *testing.T) {
	yaml, _ := converted(t, "awsKinesisStreamName: s\nawsRegion: r\nuseEnhancedFanOut: 'false'\n", "--topic", "orders")
	wants(t, yaml, "awsKinesisStreamName: s\n", `useEnhancedFanOut: "false"`, "applicationName: pulsar-kinesis\n", "topic: orders\n", "url: pulsar://localhost:6650\n")
}

func TestConvertRedpandaConnect(t *testing.T) {
	yaml, notes := converted(t, `
http: { address: 0.0.0.0:4195 }
input:
  label: orders
  aws_kinesis:
    streams: [ orders, "arn:aws:kinesis:eu-west-1:123456789012:stream/payments", "single:shardId-000000000001" ]
    region: us-east-1
    dynamodb: { table: bento, create: true }
    start_from_oldest: false
    commit_period: 5s
    lease_period: 30s
    enhanced_fan_out: { enabled: true, consumer_name: mine }
    credentials: { role: "arn:aws:iam::123456789012:role/reader", role_external_id: ext-1, profile: dev }
    batching: { count: 10 }
pipeline:
  processors:
    # kept
    - mapping: 'meta shard = @kinesis_shard'
output:
  pulsar:
    url: pulsar://broker:6650
    topic: orders
    key: ${! @kinesis_partition_key }
    auth: { token: { enabled: true, token: "${PULSAR_TOKEN:x}" } }
`)
	wants(t, yaml, "label: orders", "inputs:", "awsKinesisStreamName: orders\n", "awsKinesisStreamName: arn:aws:kinesis:eu-west-1:123456789012:stream/payments\n",
		"applicationName: payments-to-pulsar\n", "applicationName: single-to-pulsar\n", "consumerName: mine\n", "initialPositionInStream: LATEST\n",
		`'{"roleArn":"arn:aws:iam::123456789012:role/reader","roleSessionName":"kinesis-pulsar","externalId":"ext-1"}'`,
		"hashing_scheme: java_string\n", "include_prefixes: []\n", "# kept", "mapping: meta shard = @kinesis_shard", "address: 0.0.0.0:4195")
	wants(t, notes, "input.aws_kinesis.dynamodb (not possible)", "input.aws_kinesis.batching (not needed)", "input.aws_kinesis.credentials.profile (changed)",
		"kinesis_shard (not possible)", "kinesis_partition_key (not possible)", "input.aws_kinesis.streams (not possible)")
}

// A config of another machine has variables that nobody has set here.
func TestConvertKeepsVariables(t *testing.T) {
	yaml, notes := converted(t, "input: { aws_kinesis: { streams: [ \"${STREAM}\", \"${OTHER:payments}\" ], region: \"${REGION_OF_TEST}\" } }\noutput:\n  pulsar:\n    url: ${BROKER_OF_TEST}\n    topic: t\n    key: a\n    max_in_flight: ${IN_FLIGHT_OF_TEST}\n")
	wants(t, yaml, "awsKinesisStreamName: ${STREAM}\n", "applicationName: ${STREAM}-to-pulsar\n", "awsKinesisStreamName: ${OTHER:payments}\n", "applicationName: ${OTHER:payments}-to-pulsar\n", "awsRegion: ${REGION_OF_TEST}\n")
	if strings.Contains(notes, "new.yaml(") {
		t.Errorf("found fault with: %s", notes)
	}
}

// What is wrong in the old config, or needs what this program does not have, is told at once, and what could be written is there.
func TestConvertTellsWhatLintFindsInTheResult(t *testing.T) {
	for old, want := range map[string]string{
		"topicName: t\nconfigs: { awsKinesisStreamName: s, awsRegion: r, checkpointInterval: soon }":                                           `checkpointInterval "soon"`,
		"input: { aws_kinesis: { streams: [ s ], region: r } }\noutput: { kafka_franz: { topic: t } }":                                         "kafka_franz",
		"input: { aws_kinesis: { streams: [ s ], region: r } }\nbuffer: { memory: {} }\noutput: { pulsar: { url: 'pulsar://b:1', topic: t } }": "[buffer-acks-early]",
	} {
		dir := write(t, map[string]string{"old": old})
		out := filepath.Join(dir, "new.yaml")
		code, _, complaints := run(t, "convert", filepath.Join(dir, "old"), "-o", out)
		if wants(t, complaints, out+"(", want, "no conversion can mend: 1"); code != 1 {
			t.Errorf("exit code %d: %s", code, complaints)
		}
		if _, err := os.Stat(out); err != nil {
			t.Error(err)
		}
	}
}

func TestConvertAPulsarOutputAlone(t *testing.T) {
	yaml, notes := converted(t, "input: { generate: { mapping: root = 1 } }\noutput: { fallback: [ { pulsar: { url: \"pulsar://b:6650\", topic: t } }, { drop: {} } ] }\n")
	wants(t, yaml, "hashing_scheme: java_string\n", `key: ""`)
	wants(t, notes, "output.fallback.0.pulsar.key (changed)")
}

// A config of this program has a pulsar output, as one of Redpanda Connect has. It was given that one's hashing and its messages without a
// key: other partitions, and no order.
func TestConvertLeavesOurOwnConfigsAlone(t *testing.T) {
	dir := write(t, map[string]string{"ours.yaml": goodInput + goodOutput, "mixed.yaml": "input:\n  broker:\n    inputs:\n      - kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: us-east-1 }\n      - aws_kinesis: { streams: [ old ], region: us-east-1 }\n" + goodOutput})
	code, out, complaints := run(t, "convert", filepath.Join(dir, "ours.yaml"))
	if code != 1 || out != "" || !strings.Contains(complaints, "nothing to convert") {
		t.Errorf("exit code %d: %s%s", code, out, complaints)
	}
	if code, out, complaints := run(t, "convert", filepath.Join(dir, "mixed.yaml")); code != 0 || !strings.Contains(out, "awsKinesisStreamName: old") {
		t.Errorf("one input is old: exit code %d: %s%s", code, out, complaints)
	}
}

func TestConvertRefusesWhatIsNoConfig(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "neither",
		"- a":                                   "neither",
		"a: b":                                  "neither",
		"{ half":                                "line 1",
		"input: { file: {} }\noutput: { x: 1 }": "neither",
		"configs: { awsRegion: r }":             "configs.awsKinesisStreamName",
		"configs: 3":                            "configs:",
		"topicName: [ a ]\nconfigs: { awsKinesisStreamName: s }":                                  "topicName: this must be",
		"topicName: a\n---\ntopicName: b":                                                         "a second config",
		"configs: { awsKinesisStreamName: s }":                                                    "topicName",
		"className: org.apache.pulsar.io.kafka.KafkaSource\nconfigs: { awsKinesisStreamName: s }": "className",
		"archive: connectors/pulsar-io-kafka.nar\nconfigs: { a: s }":                              "archive",
		"input: { aws_kinesis: {} }":                                                              "input.aws_kinesis.streams",
	} {
		dir := write(t, map[string]string{"old": text})
		code, out, complaints := run(t, "convert", filepath.Join(dir, "old"))
		if code != 1 || out != "" || !strings.Contains(complaints, want) || strings.Contains(strings.TrimSpace(complaints), "\n") {
			t.Errorf("%q: exit code %d, %q", text, code, complaints)
		}
	}
	dir := write(t, map[string]string{"old": "awsKinesisStreamName: s\nawsRegion: r", "kept": "mine"})
	for _, args := range [][]string{{"convert"}, {"convert", "a", "b"}, {"convert", filepath.Join(dir, "none")}, {"convert", "--nope", "x"},
		{"convert", "--topic", "t", "-o", filepath.Join(dir, "kept"), filepath.Join(dir, "old")}} {
		if code, _, complaints := run(t, args...); code != 1 || strings.Contains(strings.TrimSpace(complaints), "\n") || complaints == "" {
			t.Errorf("%v: exit code %d, %q", args, code, complaints)
		}
	}
	if kept, _ := os.ReadFile(filepath.Join(dir, "kept")); string(kept) != "mine" {
		t.Error("a file was overwritten")
	}
}
