package input

import (
	"errors"
	"fmt"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/credentials"
)

// InitialPosition says where a stream without checkpoints is read from. Its values are KCL's.
type InitialPosition string

// The initial positions.
const (
	Latest      InitialPosition = "LATEST"
	TrimHorizon InitialPosition = "TRIM_HORIZON"
	AtTimestamp InitialPosition = "AT_TIMESTAMP"
)

// MessageKeyMode says what becomes the key of a message.
type MessageKeyMode string

// The message key modes.
const (
	KeyModePartitionKey MessageKeyMode = "PARTITION_KEY"
	KeyModeShardID      MessageKeyMode = "SHARD_ID"
)

// RecreatedStream says what to do with the leases of a stream that was deleted and created again under its name.
type RecreatedStream string

// What to do with them.
const (
	RefuseRecreated RecreatedStream = "REFUSE"
	StartOver       RecreatedStream = "START_OVER"
)

// Property is the name of a piece of record metadata that may become a message property.
type Property string

// The properties that kinesisRecordProperties may list.
const (
	PropertyArrivalTimestamp   Property = "kinesis.arrival.timestamp"
	PropertyEncryptionType     Property = "kinesis.encryption.type"
	PropertyPartitionKey       Property = "kinesis.partition.key"
	PropertySequenceNumber     Property = "kinesis.sequence.number"
	PropertyShardID            Property = "kinesis.shard.id"
	PropertyMillisBehindLatest Property = "kinesis.millis.behind.latest"
	// The connector does not have these two.
	PropertySubSequenceNumber Property = "kinesis.subsequence.number"
	PropertyStreamName        Property = "kinesis.stream.name"
)

// Config is a checked configuration: every value is in its range and fits the others. It may be logged: the only secret
// in it prints as hidden.
type Config struct {
	// StreamName is the name alone; StreamARN is set when the stream was given by its ARN.
	StreamName string
	StreamARN  string

	// Region may be empty only when all three endpoints are set. Endpoints are http or https URLs, or empty.
	Region             string
	Endpoint           string
	DynamoEndpoint     string
	CloudWatchEndpoint string

	// CredentialPluginName and CredentialPluginParam are as written, and fit each other.
	CredentialPluginName  string
	CredentialPluginParam credentials.Secret

	InitialPosition InitialPosition
	// StartAtTime is in UTC and cut to milliseconds; zero unless it was given. Only AtTimestamp uses it.
	StartAtTime time.Time
	// ApplicationName is a valid DynamoDB table name, and that of the lease table unless TableName is another.
	ApplicationName string

	CheckpointInterval time.Duration // at least 1 ms
	BackoffTime        time.Duration // at least 1 ms
	NumRetries         int           // from 0
	ReceiveQueueSize   int           // records, from 1
	UseEnhancedFanOut  bool
	// ConsumerName and ConsumerARN say which consumer enhanced fan-out reads with; one of them at most. Both empty: the one
	// that has ApplicationName for its name.
	ConsumerName string
	ConsumerARN  string
	// RecordProperties are in the order of the config, each once; empty: none.
	RecordProperties []Property
	MessageKeyMode   MessageKeyMode
	RecreatedStream  RecreatedStream

	MaxBufferedBytes     int64         // at least 1 MiB
	FailoverTime         time.Duration // at least 3 s
	MaxRecords           int           // of one GetRecords call, 1 to 10000
	IdleTimeBetweenReads time.Duration // between two GetRecords calls of a shard: 0 (no pacing) or at least 200 ms
	MaxLeasesForWorker   int           // from 1; 0: no limit

	// TableName is a valid DynamoDB table name; empty: ApplicationName.
	TableName string
	// How the lease table is made where there is none, if CreateTable is true.
	CreateTable         bool
	BillingMode         BillingMode
	TableReadCapacity   int64 // units per second, from 1; 0: not given
	TableWriteCapacity  int64
	TableTags           map[string]string
	DeletionProtection  bool
	PointInTimeRecovery bool
}

// consumerName is the name of the consumer that enhanced fan-out reads with, unless it is given by its ARN.
func (c *Config) consumerName() string {
	if c.ConsumerName != "" {
		return c.ConsumerName
	}
	return c.ApplicationName
}

// ParseConfig checks a whole configuration. Its error joins all that is wrong with it; each line names its field and what
// to write instead, and none holds a secret.
func ParseConfig(parsed *service.ParsedConfig) (Config, error) {
	return parseConfig(rawFields(parsed), time.Now())
}

// rawFields are the fields that are present, as YAML or JSON gave them.
func rawFields(parsed *service.ParsedConfig) map[string]any {
	raw := map[string]any{}
	for _, f := range fields {
		if v, err := parsed.FieldAny(f.name); err == nil { // the only error is absence
			raw[f.name] = v
		}
	}
	return raw
}

// parseConfig is ParseConfig at a given time.
func parseConfig(raw map[string]any, now time.Time) (Config, error) {
	c, bad := decode(raw)
	var errs []error
	for _, f := range fields {
		errs = append(errs, bad[f.name])
	}
	errs = append(errs, crossErrors(&c, bad)...)
	// Not a rule of lint: a config for tomorrow is a good one today, and lint must not depend on the day it runs.
	if c.InitialPosition == AtTimestamp && c.StartAtTime.After(now) {
		errs = append(errs, fmt.Errorf("startAtTime %s is in the future (it is %s): write a moment that has passed, or LATEST in initialPositionInStream",
			c.StartAtTime.Format(time.RFC3339), now.UTC().Format(time.RFC3339)))
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	return c, nil
}

// decode sets each field by itself, to its default where it is absent or null, as the Java connector does. The error of
// each field that is wrong is in the map.
func decode(raw map[string]any) (Config, map[string]error) {
	var c Config
	bad := map[string]error{}
	for _, f := range fields {
		if err := f.apply(&c, raw[f.name]); err != nil {
			bad[f.name] = err
		}
	}
	return c, bad
}

// apply sets one field from a value as YAML or JSON gave it.
func (f *field) apply(c *Config, v any) error {
	if v == nil {
		v = f.byDefault
	}
	if v == nil {
		if f.required {
			return fmt.Errorf("%s cannot be null", f.name)
		}
		return nil
	}
	if err := f.set(c, v); err != nil {
		return fmt.Errorf("%s %w", f.name, err)
	}
	return nil
}

// crossErrors checks fields against each other, where the fields by themselves are right.
func crossErrors(c *Config, bad map[string]error) []error {
	var errs []error
rules:
	for _, r := range crossRules {
		for _, name := range r.fields {
			if bad[name] != nil {
				continue rules
			}
		}
		if err := r.check(c); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// crossRule is a rule about more than one field.
type crossRule struct {
	fields []string
	check  func(*Config) error
}

// crossRules are all of them. Two of the texts are the Java connector's.
var crossRules = append([]crossRule{
	{[]string{"awsRegion", "awsEndpoint", "cloudwatchEndpoint", "dynamoEndpoint"}, func(c *Config) error {
		if c.Region == "" && (c.Endpoint == "" || c.CloudWatchEndpoint == "" || c.DynamoEndpoint == "") {
			//lint:ignore ST1005 the Java connector's text, which people search for
			return errors.New(`Either "awsRegion" must be set OR all of [ "awsEndpoint", "cloudwatchEndpoint", and "dynamoEndpoint" ] must be set.`)
		}
		return nil
	}},
	{[]string{"initialPositionInStream", "startAtTime"}, func(c *Config) error {
		if c.InitialPosition == AtTimestamp && c.StartAtTime.IsZero() {
			//lint:ignore ST1005 the Java connector's text, which people search for
			return errors.New("When initialPositionInStream is AT_TIMESTAMP, startAtTime must be specified")
		}
		return nil
	}},
	{[]string{"awsCredentialPluginName", "awsCredentialPluginParam"}, func(c *Config) error {
		return credentials.Check(c.CredentialPluginName, c.CredentialPluginParam)
	}},
	{[]string{"awsKinesisStreamName", "awsRegion"}, func(c *Config) error {
		if region := arnRegion(c.StreamARN); region != "" && c.Region != "" && region != c.Region {
			return fmt.Errorf("awsRegion %s is not the region of awsKinesisStreamName, an ARN in %s: write the same in both", c.Region, region)
		}
		return nil
	}},
	{[]string{"applicationName", "useEnhancedFanOut", "consumerName", "consumerArn"}, func(c *Config) error {
		if c.UseEnhancedFanOut && c.ConsumerARN == "" && len(c.consumerName()) > maxConsumerName {
			return fmt.Errorf("applicationName has %d characters and names the consumer of enhanced fan-out, which may have %d: write a shorter one, another name in consumerName, or set useEnhancedFanOut: false",
				len(c.ApplicationName), maxConsumerName)
		}
		return nil
	}},
	{[]string{"consumerName", "consumerArn"}, func(c *Config) error {
		if c.ConsumerName != "" && c.ConsumerARN != "" {
			return errors.New("consumerName and consumerArn name the same thing in two ways: write one of them")
		}
		return nil
	}},
	{[]string{"consumerArn", "awsKinesisStreamName"}, func(c *Config) error {
		m := consumerARN.FindStringSubmatch(c.ConsumerARN)
		switch {
		case m == nil:
		case m[3] != c.StreamName:
			return fmt.Errorf("consumerArn is of a consumer of stream %s, not of %s, which awsKinesisStreamName names: write a consumer of that stream", m[3], c.StreamName)
		case c.StreamARN != "" && m[1] != c.StreamARN:
			return fmt.Errorf("consumerArn is of a consumer of %s, not of %s, which awsKinesisStreamName names: write a consumer of that stream", m[1], c.StreamARN)
		}
		return nil
	}},
	{[]string{"consumerArn", "awsRegion"}, func(c *Config) error {
		if m := consumerARN.FindStringSubmatch(c.ConsumerARN); m != nil && c.Region != "" && m[2] != c.Region {
			return fmt.Errorf("awsRegion %s is not the region of consumerArn, an ARN in %s: write the same in both", c.Region, m[2])
		}
		return nil
	}},
}, tableRules...)
