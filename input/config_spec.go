package input

import (
	"strings"
	"sync"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// lintMethod is the Bloblang method that the lint rules consist of.
//
// Benthos lints with Bloblang alone, and a second set of rules in another language would drift from the parser: dates
// and credentials are beyond what a mapping can say clearly. So the parser itself is what the rules call. It is pure,
// which is what a method has to be to be seen by lint.
const lintMethod = "kinesis_pulsar_lint"

var registerLint = sync.OnceFunc(func() {
	spec := bloblang.NewPluginSpec().
		Category("Plugin").
		Description("Checks a field of the `kinesis_pulsar` input, or with an empty name the fields of a whole config against each other. Returns the list of what is wrong. It is what the input's lint rules call.").
		Param(bloblang.NewStringParam("field").Description("The name of the field.").Default(""))
	err := bloblang.RegisterMethodV2(lintMethod, spec, func(args *bloblang.ParsedParams) (bloblang.Method, error) {
		name, err := args.GetString("field")
		if err != nil {
			return nil, err
		}
		return func(v any) (any, error) { return lint(name, v), nil }, nil
	})
	if err != nil {
		panic(err) // only a name that breaks Bloblang's rules
	}
})

// lint lists what is wrong with a field, or for an empty name with the combination of fields that are right.
func lint(name string, v any) []any {
	var errs []error
	if raw, ok := v.(map[string]any); ok && name == "" {
		c, bad := decode(raw)
		errs = crossErrors(&c, bad)
	}
	for _, f := range fields {
		if f.name == name {
			if err := f.apply(&Config{}, v); err != nil {
				errs = append(errs, err)
			}
		}
	}
	lints := []any{}
	for _, err := range errs {
		lints = append(lints, err.Error())
	}
	return lints
}

// Spec is the input's specification: what the reference says, what lint checks.
func Spec() *service.ConfigSpec {
	registerLint()
	spec := service.NewConfigSpec().
		Beta().
		Categories("Services", "AWS").
		Summary("Reads an AWS Kinesis stream, with the configuration and the lease table of Apache Pulsar's Kinesis source connector.").
		Description(strings.TrimSpace(description)).
		LintRule(`root = this.` + lintMethod + `("")`)
	for _, f := range fields {
		spec = spec.Field(f.spec())
	}
	for _, e := range examples {
		spec = spec.Example(e.title, e.summary, strings.TrimSpace(e.config))
	}
	return spec
}

func (f *field) spec() *service.ConfigField {
	s := service.NewAnyField(f.name).Description(f.description).LintRule(`root = this.` + lintMethod + `("` + f.name + `")`)
	switch {
	case f.byDefault != nil:
		s = s.Default(f.byDefault)
	case !f.required:
		s = s.Optional()
	}
	if f.advanced {
		s = s.Advanced()
	}
	if f.secret {
		s = s.Secret()
	}
	if f.example != nil {
		s = s.Example(f.example)
	}
	return s
}

const description = `
The fields up to ` + "`messageKeyMode`" + ` are those of the connector, so the ` + "`configs`" + ` of a Pulsar source can be pasted here. Numbers and booleans may also be written as texts.

Shards are shared among all inputs of one ` + "`applicationName`" + ` through leases in a DynamoDB table of that name, in the format of the Kinesis Client Library. The position of a shard is moved only behind records that the output has confirmed.

Each message carries the record's bytes unchanged, the metadata listed in ` + "`kinesisRecordProperties`" + `, and ` + "`pulsar_key`" + `, the key that ` + "`messageKeyMode`" + ` asks for.
`

var examples = []struct{ title, summary, config string }{
	{
		"A stream into a topic", "The whole of a plain migration: records keep their keys and properties, and with them their partitions.", `
input:
  kinesis_pulsar:
    awsKinesisStreamName: my-stream
    awsRegion: us-east-1
    applicationName: my-test-application
    initialPositionInStream: TRIM_HORIZON
`,
	},
	{
		"A configuration of the connector", "Pasted as it was, texts for numbers included.", `
input:
  kinesis_pulsar:
    awsEndpoint: https://some.endpoint.aws
    awsRegion: us-east-1
    awsKinesisStreamName: my-stream
    awsCredentialPluginParam: '{"accessKey":"myKey","secretKey":"my-Secret"}'
    applicationName: my-test-application
    checkpointInterval: "30000"
    backoffTime: "4000"
    numRetries: "3"
    receiveQueueSize: 2000
    initialPositionInStream: TRIM_HORIZON
    startAtTime: "2019-03-05T19:28:58.000Z"
`,
	},
	{
		"With a role of another account", "The role is assumed with the credentials found in the environment, and renewed before it expires.", `
input:
  kinesis_pulsar:
    awsKinesisStreamName: arn:aws:kinesis:eu-west-1:123456789012:stream/orders
    awsRegion: eu-west-1
    awsCredentialPluginName: org.apache.pulsar.io.aws.STSAssumeRoleProviderPlugin
    awsCredentialPluginParam: '{"roleArn":"arn:aws:iam::123456789012:role/read-orders","roleSessionName":"pulsar-kinesis"}'
    applicationName: orders-to-pulsar
    initialPositionInStream: AT_TIMESTAMP
    startAtTime: 2019-03-05T19:28:58.000Z
`,
	},
}
