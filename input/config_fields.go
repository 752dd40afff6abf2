package input

import (
	"errors"
	"math"
	"strings"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/credentials"
)

// field is one field of the configuration: what the reference says about it, and how a value is read.
//
// All of them are declared to Benthos as fields of any type. Its int and bool fields refuse "30000" and "true" when the
// input is built, which lint has then passed; its string fields refuse a list without naming the field, and numbers when
// a config comes through the streams API. So every value reaches set as YAML or JSON has it.
type field struct {
	name        string
	description string
	// byDefault is set when the field is absent or null; nil: there is no default.
	byDefault any
	required  bool
	advanced  bool
	secret    bool
	example   any
	// hint is what Benthos is not told; see [Hints].
	hint Hint
	// set gets a value that is not nil. Its error says what is wrong with the value and what to write instead; the name
	// of the field is put before it.
	set func(c *Config, v any) error
}

const defaultProperties = string(PropertyArrivalTimestamp + "," + PropertyEncryptionType + "," + PropertyPartitionKey + "," + PropertySequenceNumber)

// fields are in the order of the reference. The names before failoverTimeMillis and their defaults are those of the
// Java connector; the rest have KCL's names where KCL has one.
var fields = append([]field{
	{
		name: "awsKinesisStreamName", required: true, example: "my-stream",
		description: "The Kinesis stream to read: its name, or its ARN (`arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`).",
		set:         func(c *Config, v any) (err error) { c.StreamName, c.StreamARN, err = parseStream(v); return },
	},
	{
		name: "awsRegion", example: "us-east-1",
		description: "The AWS region of the stream and of the lease table. May be left out only when `awsEndpoint`, `dynamoEndpoint` and `cloudwatchEndpoint` are all set.",
		set:         func(c *Config, v any) (err error) { c.Region, err = parseRegion(v); return },
	},
	{
		name: "awsEndpoint", byDefault: "", example: "https://some.endpoint.aws",
		description: "The URL of Kinesis, when it is not the region's own.",
		set:         func(c *Config, v any) (err error) { c.Endpoint, err = parseEndpoint(v); return },
	},
	{
		name: "dynamoEndpoint", byDefault: "", example: "https://some.endpoint.aws",
		description: "The URL of DynamoDB, which holds the lease table, when it is not the region's own.",
		set:         func(c *Config, v any) (err error) { c.DynamoEndpoint, err = parseEndpoint(v); return },
	},
	{
		name: "cloudwatchEndpoint", byDefault: "", example: "https://some.endpoint.aws",
		description: "The URL of CloudWatch, when it is not the region's own.",
		set:         func(c *Config, v any) (err error) { c.CloudWatchEndpoint, err = parseEndpoint(v); return },
	},
	{
		name: "awsCredentialPluginName", byDefault: "", example: credentials.AssumeRoleClass,
		description: "Where credentials come from, by the class name of the Java connector's plugin: `" + credentials.DefaultChainClass + "` for the AWS SDK's default chain " +
			"(environment, web identity, shared files, container, instance), `" + credentials.AssumeRoleClass + "` for a role assumed through STS with the credentials of that chain. " +
			"Empty: static keys in `awsCredentialPluginParam`; when that is empty too, the default chain. The same class names in the package `org.apache.pulsar.io.kinesis` are accepted.",
		set: func(c *Config, v any) (err error) { c.CredentialPluginName, err = parsePluginName(v); return },
	},
	{
		name: "awsCredentialPluginParam", byDefault: "", secret: true, example: `{"accessKey":"myKey","secretKey":"my-Secret"}`,
		description: "What the plugin needs, as a JSON text (in YAML best in single quotes): for static keys `accessKey`, `secretKey` and optionally `sessionToken`; " +
			"for an assumed role `roleArn`, `roleSessionName` and optionally `externalId` and `durationSeconds`. The default chain ignores it.",
		set: func(c *Config, v any) (err error) { c.CredentialPluginParam, err = parsePluginParam(v); return },
	},
	{
		name: "initialPositionInStream", byDefault: string(Latest), example: string(TrimHorizon), hint: oneOf(Latest, TrimHorizon, AtTimestamp),
		description: "Where to begin when the lease table holds no checkpoint yet: `LATEST` (what comes after the first start; that moment is stored, so that restarts lose nothing), " +
			"`TRIM_HORIZON` (the oldest record kept), or `AT_TIMESTAMP` (the moment in `startAtTime`).",
		set: func(c *Config, v any) (err error) {
			c.InitialPosition, err = coerceEnum(v, Latest, TrimHorizon, AtTimestamp)
			return
		},
	},
	{
		name: "startAtTime", example: "2019-03-05T19:28:58.000Z",
		description: "With `AT_TIMESTAMP`, the moment to begin at: `2019-03-05T19:28:58.000Z` (fraction, seconds and time may be missing; the zone may be `Z`, `+02:00`, `+0200`, `+02` or missing, which is UTC), " +
			"`Tue, 05 Mar 2019 19:28:58 GMT`, or milliseconds since 1970.",
		set: func(c *Config, v any) (err error) { c.StartAtTime, err = coerceTime(v); return },
	},
	{
		name: "applicationName", byDefault: "pulsar-kinesis", example: "my-test-application",
		description: "The name of the application: inputs of one name share the stream's shards among them. It is the name of the lease table in DynamoDB (unless `tableName` is another) and of the consumer of enhanced fan-out, " +
			"so it may have 3 to 255 (with enhanced fan-out 128) of the characters `a-z A-Z 0-9 _ . -`.",
		set: func(c *Config, v any) (err error) { c.ApplicationName, err = parseApplicationName(v); return },
	},
	{
		name: "checkpointInterval", byDefault: 60000,
		description: "The longest time, in milliseconds, that the position of delivered records stays unwritten. Positions are written with each renewal of a lease, every third of `failoverTimeMillis`; a smaller interval shortens that.",
		set:         func(c *Config, v any) (err error) { c.CheckpointInterval, err = coerceMillis(v, 1, "60000"); return },
	},
	{
		name: "backoffTime", byDefault: 3000,
		description: "How long to pause, in milliseconds, after Kinesis or DynamoDB has throttled a request. A write that keeps a lease is never put off beyond the lease's end.",
		set:         func(c *Config, v any) (err error) { c.BackoffTime, err = coerceMillis(v, 1, "3000"); return },
	},
	{
		name: "numRetries", byDefault: 3,
		description: "How many writes of a checkpoint may fail in a row before a warning is logged. Writing is tried on until the lease is lost.",
		set: func(c *Config, v any) error {
			n, err := coerceInt(v, 0, math.MaxInt32, "a number of tries", "3")
			c.NumRetries = int(n)
			return err
		},
	},
	{
		name: "receiveQueueSize", byDefault: 1000,
		description: "The most records that are held ready to be delivered, over all shards, those under way to Pulsar excluded.",
		set: func(c *Config, v any) error {
			n, err := coerceInt(v, 1, math.MaxInt32, "a number of records", "1000")
			c.ReceiveQueueSize = int(n)
			return err
		},
	},
	{
		name: "useEnhancedFanOut", byDefault: true,
		description: "Whether to read with enhanced fan-out (records are pushed as they come, with a throughput of its own for this application, at a price) or by polling (shared with other readers of the stream). " +
			"For enhanced fan-out a consumer is registered with the stream if there is none of its name, and kept when the input stops.",
		set: func(c *Config, v any) (err error) { c.UseEnhancedFanOut, err = coerceBool(v); return },
	},
	{
		name: "kinesisRecordProperties", byDefault: defaultProperties, example: "kinesis.partition.key,kinesis.shard.id",
		description: "Which metadata of a record become properties of its message, separated by commas or as a list: `" + strings.Join(knownProperties(), "`, `") + "`. Empty: none. " +
			"The last two are not known to the Java connector: the index of a record in the aggregated record of the Kinesis Producer Library that it came in (0 otherwise), and the stream's name.",
		set: func(c *Config, v any) (err error) { c.RecordProperties, err = parseProperties(v); return },
	},
	{
		name: "messageKeyMode", byDefault: string(KeyModePartitionKey), example: string(KeyModeShardID), hint: oneOf(KeyModePartitionKey, KeyModeShardID),
		description: "What becomes the key of a message, and so decides its partition: `PARTITION_KEY` (the record's own) or `SHARD_ID` (the shard it was read from).",
		set: func(c *Config, v any) (err error) {
			c.MessageKeyMode, err = coerceEnum(v, KeyModePartitionKey, KeyModeShardID)
			return
		},
	},
	{
		name: "consumerName", byDefault: "", advanced: true, example: "my-consumer",
		description: "The name of the consumer of enhanced fan-out, up to 128 of the characters `a-z A-Z 0-9 _ . -`. Empty: `applicationName`. Registering and finding it takes the permissions " +
			"`kinesis:DescribeStreamConsumer` and `kinesis:RegisterStreamConsumer`, reading with it `kinesis:SubscribeToShard`.",
		set: func(c *Config, v any) (err error) { c.ConsumerName, err = parseConsumerName(v); return },
	},
	{
		name: "consumerArn", byDefault: "", advanced: true, example: "arn:aws:kinesis:us-east-1:123456789012:stream/my-stream/consumer/my-consumer:1525898737",
		description: "The ARN of a registered consumer of enhanced fan-out, in place of its name. It is used as it is: neither looked for nor registered.",
		set:         func(c *Config, v any) (err error) { c.ConsumerARN, err = parseConsumerARN(v); return },
	},
	{
		name: "recreatedStream", byDefault: string(RefuseRecreated), advanced: true, example: string(StartOver), hint: oneOf(RefuseRecreated, StartOver),
		description: "What to do when the stream was deleted and created again under its name, which makes every position in the lease table void: `REFUSE` reports it and reads nothing, " +
			"`START_OVER` drops the old positions and reads the new stream from its beginning. Refusing is the default, since a stream deleted by mistake may be restored from elsewhere.",
		set: func(c *Config, v any) (err error) {
			c.RecreatedStream, err = coerceEnum(v, RefuseRecreated, StartOver)
			return
		},
	},
	{
		name: "failoverTimeMillis", byDefault: 10000, advanced: true,
		description: "How long a lease that is not renewed is respected by other workers, in milliseconds, at least 3000. It must be the same for all workers of an application.",
		set:         func(c *Config, v any) (err error) { c.FailoverTime, err = coerceMillis(v, 3000, "10000"); return },
	},
	{
		name: "maxRecords", byDefault: 10000, advanced: true,
		description: "The most records that one GetRecords call asks for, 1 to 10000.",
		set: func(c *Config, v any) error {
			n, err := coerceInt(v, 1, 10000, "a number of records", "10000")
			c.MaxRecords = int(n)
			return err
		},
	},
	{
		name: "idleTimeBetweenReadsInMillis", byDefault: 250, advanced: true,
		description: "The time from one GetRecords call of a shard to the next, in milliseconds, at least 200: Kinesis allows 5 calls a second for each shard, all readers together, " +
			"and the default leaves one of them to another reader. 0 turns pacing off, for emulators.",
		set: func(c *Config, v any) error {
			d, err := coerceMillis(v, 0, "250")
			if err == nil && d != 0 && d < minIdleTime {
				return errors.New(shown(v) + " is more than 5 reads a second, which Kinesis throttles: write 200 or more (250 leaves room for another reader), or 0 for an emulator without limits")
			}
			c.IdleTimeBetweenReads = d
			return err
		},
	},
	{
		name: "maxLeasesForWorker", advanced: true, example: 20, hint: Hint{Number: true},
		description: "The most shards that this input reads at a time. No limit by default.",
		set: func(c *Config, v any) error {
			n, err := coerceInt(v, 1, math.MaxInt32, "a number of leases, or leave the field out for no limit", "20")
			c.MaxLeasesForWorker = int(n)
			return err
		},
	},
	{
		name: "maxBufferedBytes", byDefault: 64 << 20, advanced: true,
		description: "The most bytes of records held in memory, over all shards of this input: decoded, waiting, or under way to Pulsar. At least 1048576 (1 MiB).",
		set: func(c *Config, v any) (err error) {
			c.MaxBufferedBytes, err = coerceInt(v, 1<<20, math.MaxInt64, "a number of bytes", "67108864")
			return
		},
	},
}, tableFields...)

// minIdleTime is the pace that Kinesis allows for a shard: 5 GetRecords calls a second.
const minIdleTime = 200 * time.Millisecond
