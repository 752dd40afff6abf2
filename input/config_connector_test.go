package input

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/credentials"
)

// The tests of this file ask what the Java connector's own tests of its source configuration and of its credentials ask,
// in the order of those. Where the answer is meant to be another here, the name says so.

const connectorBase = `
awsEndpoint: https://some.endpoint.aws
awsRegion: us-east-1
awsKinesisStreamName: my-stream
awsCredentialPluginParam: '{"accessKey":"myKey","secretKey":"my-Secret"}'
checkpointInterval: "30000"
backoffTime: "4000"
numRetries: "3"
receiveQueueSize: 2000
initialPositionInStream: TRIM_HORIZON
startAtTime: 2019-03-05T19:28:58.000Z
`

func TestConnectorConfigLoadsWithDefaultApplicationName(t *testing.T) {
	env := newConfigTester(t, nil)
	if lints := env.lint(t, connectorBase); len(lints) != 0 {
		t.Fatal(lints)
	}
	c, err := env.parse(t, connectorBase)
	if err != nil {
		t.Fatal(err)
	}
	if c.Endpoint != "https://some.endpoint.aws" || c.Region != "us-east-1" || c.StreamName != "my-stream" ||
		c.CredentialPluginParam != `{"accessKey":"myKey","secretKey":"my-Secret"}` || c.ApplicationName != "pulsar-kinesis" ||
		c.CheckpointInterval != 30*time.Second || c.BackoffTime != 4*time.Second || c.NumRetries != 3 || c.ReceiveQueueSize != 2000 ||
		c.InitialPosition != TrimHorizon || c.StartAtTime.UnixMilli() != 1551814138000 {
		t.Errorf("got %+v", c)
	}
}

// The Java connector's test gives the param as a secret; with Benthos it is an environment variable, whose test is
// TestEnvironmentVariablesReachTheConfig. What is left is the name.
func TestConnectorConfigWithItsOwnApplicationName(t *testing.T) {
	c, err := newConfigTester(t, nil).parse(t, connectorBase+"applicationName: my-test-application\n")
	if err != nil || c.ApplicationName != "my-test-application" {
		t.Errorf("%q, %v", c.ApplicationName, err)
	}
}

func TestConnectorConfigMissingCredentialParamIsTheDefaultChainHere(t *testing.T) {
	c, err := newConfigTester(t, nil).parse(t, minimal)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := credentials.Parse(c.CredentialPluginName, c.CredentialPluginParam); err != nil || p.Kind != credentials.DefaultChain {
		t.Errorf("%v, %v", p, err)
	}
}

func TestConnectorConfigAtTimestampNeedsStartAtTime(t *testing.T) {
	env := newConfigTester(t, nil)
	const want = "When initialPositionInStream is AT_TIMESTAMP, startAtTime must be specified"
	for _, at := range []string{"", "startAtTime: null\n", "startAtTime: ''\n"} {
		yaml := minimal + "initialPositionInStream: AT_TIMESTAMP\n" + at
		if _, err := env.parse(t, yaml); err == nil || err.Error() != want {
			t.Errorf("%q: %v", at, err)
		}
		if lints := env.lint(t, yaml); !slices.Equal(lints, []string{want}) {
			t.Errorf("%q: lints are %q", at, lints)
		}
	}
	c, err := env.parse(t, minimal+"initialPositionInStream: AT_TIMESTAMP\nstartAtTime: 2019-03-05T19:28:58.000Z\n")
	if err != nil || c.InitialPosition != AtTimestamp || c.StartAtTime.UnixMilli() != 1551814138000 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestConnectorConfigEndpointAloneIsNotEnough(t *testing.T) {
	env := newConfigTester(t, nil)
	for _, endpoints := range []string{"", "awsEndpoint: https://a\n", "awsEndpoint: https://a\ndynamoEndpoint: https://b\n", "cloudwatchEndpoint: https://a\ndynamoEndpoint: https://b\n", "awsRegion: '  '\n"} {
		yaml := "awsKinesisStreamName: my-stream\n" + endpoints
		if _, err := env.parse(t, yaml); err == nil || err.Error() != regionRule {
			t.Errorf("%q: %v", endpoints, err)
		}
		if lints := env.lint(t, yaml); !slices.Equal(lints, []string{regionRule}) {
			t.Errorf("%q: lints are %q", endpoints, lints)
		}
	}
}

func TestConnectorConfigProperties(t *testing.T) {
	env := newConfigTester(t, nil)
	for _, c := range []struct {
		name, yaml string
		want       []Property
	}{
		{"four by default", "", []Property{"kinesis.arrival.timestamp", "kinesis.encryption.type", "kinesis.partition.key", "kinesis.sequence.number"}},
		{"two of them, with spaces", "kinesisRecordProperties: ' kinesis.shard.id , kinesis.millis.behind.latest '\n", []Property{"kinesis.shard.id", "kinesis.millis.behind.latest"}},
		{"none for an empty text", "kinesisRecordProperties: ''\n", nil},
	} {
		if got, err := env.parse(t, minimal+c.yaml); err != nil || !slices.Equal(got.RecordProperties, c.want) {
			t.Errorf("%s: %q, %v", c.name, got.RecordProperties, err)
		}
	}
}

func TestConnectorConfigMessageKeyMode(t *testing.T) {
	env := newConfigTester(t, nil)
	for yaml, want := range map[string]MessageKeyMode{"": KeyModePartitionKey, "messageKeyMode: \"SHARD_ID\"\n": KeyModeShardID} {
		if got, err := env.parse(t, minimal+yaml); err != nil || got.MessageKeyMode != want {
			t.Errorf("%q: %q, %v", yaml, got.MessageKeyMode, err)
		}
	}
}

// A static pair lacks a key: each of the two, and both.
func TestConnectorCredentialsNeedBothKeys(t *testing.T) {
	env := newConfigTester(t, nil)
	for _, param := range []string{`{"accessKey":"myKey"}`, `{"secretKey":"my-Secret"}`, `{}`} {
		yaml := fmt.Sprintf("%sawsCredentialPluginParam: '%s'\n", minimal, param)
		for _, told := range []string{fmt.Sprint(env.lint(t, yaml)), fmt.Sprint(errOf(env.parse(t, yaml)))} {
			if !strings.Contains(told, "accessKey and secretKey must be present into json-map") || strings.Contains(told, "my-Secret") || strings.Contains(told, "myKey") {
				t.Errorf("%s: %s", param, told)
			}
		}
	}
}

func TestConnectorCredentialsWithoutPluginNameAreStatic(t *testing.T) {
	for _, name := range []string{"", "awsCredentialPluginName: null\n", "awsCredentialPluginName: ''\n"} {
		c, err := newConfigTester(t, nil).parse(t, connectorBase+name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := credentials.New(credentials.Options{PluginName: c.CredentialPluginName, PluginParam: c.CredentialPluginParam})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Retrieve(t.Context()); err != nil || got.AccessKeyID != "myKey" || got.SecretAccessKey != "my-Secret" || got.SessionToken != "" {
			t.Errorf("%q: %q, %v", name, got.AccessKeyID, err)
		}
	}
}

// The Java connector's test loads a class of its own that hands out a session token. There are no classes here: the
// class is refused with what to write instead, and the token is a key of the static param.
func TestConnectorCredentialsSessionTokenNeedsNoPluginHere(t *testing.T) {
	env := newConfigTester(t, nil)
	custom := minimal + "awsCredentialPluginName: org.apache.pulsar.io.kinesis.KinesisSinkAuthTest$AwsCredentialProviderPluginImpl\nawsCredentialPluginParam: '{}'\n"
	for _, told := range []string{fmt.Sprint(env.lint(t, custom)), fmt.Sprint(errOf(env.parse(t, custom)))} {
		if !strings.Contains(told, "invalid authplugin name org.apache") || !strings.Contains(told, credentials.AssumeRoleClass) || !strings.Contains(told, "leave awsCredentialPluginName out") {
			t.Errorf("told %s", told)
		}
	}
	c, err := env.parse(t, minimal+`awsCredentialPluginParam: '{"accessKey":"a","secretKey":"b","sessionToken":"c"}'`+"\n")
	if err != nil {
		t.Fatal(err)
	}
	p, err := credentials.New(credentials.Options{PluginParam: c.CredentialPluginParam})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Retrieve(t.Context()); err != nil || got.SessionToken != "c" {
		t.Errorf("%q, %v", got.SessionToken, err)
	}
}

func errOf(_ Config, err error) error { return err }
