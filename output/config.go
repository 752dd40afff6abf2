package output

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// Field names. Those up to fieldAuth are the ones of Redpanda Connect's pulsar output.
const (
	fieldURL               = "url"
	fieldTopic             = "topic"
	fieldKey               = "key"
	fieldOrderingKey       = "ordering_key"
	fieldMaxInFlight       = "max_in_flight"
	fieldTLS               = "tls"
	fieldAuth              = "auth"
	fieldProperties        = "properties"
	fieldEventTime         = "event_time"
	fieldHashingScheme     = "hashing_scheme"
	fieldCompression       = "compression"
	fieldBatching          = "producer_batching"
	fieldCompressionLevel  = "compression_level"
	fieldChunking          = "chunking"
	fieldDeadLetterTopic   = "dead_letter_topic"
	fieldProducerName      = "producer_name"
	fieldMaxPending        = "max_pending_messages"
	fieldMaxPendingBytes   = "max_pending_bytes"
	fieldSendTimeout       = "send_timeout"
	fieldConnectionTimeout = "connection_timeout"
	fieldOperationTimeout  = "operation_timeout"
	fieldReconnectBackoff  = "reconnect_backoff"
)

// defaultKey names the metadata entry in which the kinesis_pulsar input puts a record's message key.
const defaultKey = `${! metadata("pulsar_key").or("") }`

// defaultPropertyPrefix selects the metadata that the kinesis_pulsar input adds for consumers.
const defaultPropertyPrefix = "kinesis."

// serviceURL holds one or more brokers or proxies, as the client takes them.
var serviceURL = regexp.MustCompile(`^pulsar(\+ssl)?://[^/?#,\s]+(,[^/?#,\s]+)*/?$`)

// topicName is topic, tenant/namespace/topic, or either with persistent:// or non-persistent:// and all three parts.
var topicName = regexp.MustCompile(`^([^/:\s]+|[^/:\s]+/[^/:\s]+/[^/\s]+|(non-)?persistent://[^/:\s]+/[^/:\s]+/\S+)$`)

// producerName is what a configured name must look like: brokers take nearly anything, operators and their tools do not.
var producerName = regexp.MustCompile(`^\S{0,128}$`)

// Values of the field chunking.
const (
	chunkingAuto = "auto"
	chunkingOff  = "off"
)

// mostPending bounds max_pending_messages: the client makes room for all of them for every partition.
const mostPending = 1 << 20

const (
	urlRule   = `must be pulsar://host:6650, or pulsar+ssl://host:6651 with TLS (several hosts: pulsar://a:6650,b:6650)`
	topicRule = `must be a topic name such as orders, tenant/namespace/orders or persistent://tenant/namespace/orders`

	deadLetterRule = `must be another topic than ` + fieldTopic + `: consumers would get the refused records in between the others`
	tlsRule        = `has no effect with a url that begins with pulsar://, write pulsar+ssl://`
	levelRule      = `has an effect with compression: zstd only, leave it out`
	backoffRule    = `initial_interval must not be longer than max_interval`

	producerNameRule = `must have at most 128 characters, and no white space among them`
)

// fieldsRule is about fields that contradict each other. A spec has one rule only.
const fieldsRule = `
root = [
  if this.url.or("").string().has_prefix("pulsar://") && (this.tls.root_cas_file.or("") != "" || this.tls.root_cas.or("") != "" || this.tls.skip_cert_verify.or(false) == true || this.tls.client_certs.or([]).length() > 0) {
    "` + fieldTLS + `: ` + tlsRule + `"
  } else { deleted() },
  if this.compression_level.or("default").string().lowercase() != "default" && this.compression.or("lz4").string().lowercase() != "zstd" {
    "` + fieldCompressionLevel + `: ` + levelRule + `"
  } else { deleted() },
  if this.dead_letter_topic.or("") != "" && this.dead_letter_topic == this.topic.or("") {
    "` + fieldDeadLetterTopic + `: ` + deadLetterRule + `"
  } else { deleted() },
  ` + exactRule + `
]
`

// Spec describes the output's configuration.
func Spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Categories("Services").
		Summary("Writes messages to an Apache Pulsar topic.").
		Description(`
A whole batch is handed to Pulsar at once and waited for once, so throughput does not depend on `+"`max_in_flight`"+` but on the size of batches.
Messages of a batch keep their order, and a batch that failed half way tells which of its messages are missing.

Together with the `+"`kinesis_pulsar`"+` input and with no other fields than `+"`url`"+` and `+"`topic`"+`, it writes what Apache Pulsar's own Kinesis source connector writes:
the same key, bytes and properties, into the same partition. A configuration of Redpanda Connect's `+"`pulsar`"+` output works as it is, but for one thing:
that output places keys by Java's String hash; set `+"`hashing_scheme: java_string`"+` to stay in its partitions.

There is no `+"`batching`"+` policy: one that merges batches would mix the shards of a stream, and Pulsar's own batches are cut by `+"`producer_batching`"+`.

Messages are delivered at least once. Pulsar's client re-sends what it is not sure of by itself, so a connection that breaks can leave duplicates behind unless the namespace de-duplicates.
`).
		Fields(
			service.NewStringField(fieldURL).
				Description("The service URL of the Pulsar cluster: `pulsar://host:6650`, or `pulsar+ssl://host:6651` for TLS. Several hosts may be given, separated by commas: they are tried in turn.").
				Example("pulsar://localhost:6650").
				Example("pulsar+ssl://pulsar.example.com:6651").
				LintRule(lintUnless(fmt.Sprintf("this.re_match(%q)", serviceURL), fieldURL+": "+urlRule)),
			service.NewInterpolatedStringField(fieldTopic).
				Description(fmt.Sprintf("The topic to write to. Partitioned topics are found out by themselves, and so are partitions that are added later. A topic without interpolation costs nothing per message and is verified when the output starts. With interpolation up to %d topics are held open, and closed after %s without a message.", maxTopics, idleLimit)).
				Example("persistent://public/default/orders").
				Example(`orders-${! json("region") }`).
				LintRule(textRule(fieldTopic, fmt.Sprintf(`this.re_match(%q)`, topicName), topicRule)),
			service.NewInterpolatedStringField(fieldKey).
				Description("The key of each message. It chooses the partition, and messages of one key stay in order. An empty key means none: such messages go to the partitions in turn, one batch to each. By default it is the metadata entry `pulsar_key`, which the `kinesis_pulsar` input sets; messages of other inputs have none. A lone reference to a metadata entry that a message does not have gives no key, where other interpolations would give the text `null`.").
				Default(defaultKey).
				Example("${! json(\"customer.id\") }").
				Example("").
				LintRule(textRule(fieldKey, "true", "")),
			service.NewInterpolatedStringField(fieldOrderingKey).
				Description("The ordering key of each message, for Key_Shared subscriptions that must group by something else than the key. If it is not empty it chooses the partition too, instead of the key. By default there is none, as with the Java connector.").
				Default("").
				Example("${! @tenant }").
				LintRule(textRule(fieldOrderingKey, "true", "")).
				Advanced(),
			service.NewMetadataFilterField(fieldProperties).
				Description("Which metadata become properties of the message, under their full names. By default those that begin with `kinesis.`, which the `kinesis_pulsar` input sets. Each property costs about 1 µs a message; for none, set `include_prefixes: []`.").
				Default(map[string]any{"include_prefixes": []any{defaultPropertyPrefix}, "include_patterns": []any{}}).
				Example(map[string]any{"include_prefixes": []any{"kinesis.", "trace_"}}),
			eventTimeField(),
			service.NewOutputMaxInFlightField().
				LintRule(lintUnless("this > 0", fieldMaxInFlight+": must be at least 1")),
			service.NewTLSField(fieldTLS).
				Description("How to speak TLS, when `"+fieldURL+"` begins with `pulsar+ssl://`. Nothing has to be set if the brokers' certificates are signed by an authority that this system trusts."),
			authField(),
			service.NewStringAnnotatedEnumField(fieldCompression, map[string]string{
				"lz4":    "Cheap, and what the Java connector uses.",
				"none":   "For data that is compressed already, or where CPU is short.",
				"zstd":   "Smallest for most data, at about twice the CPU of lz4.",
				"zlib":   "For old consumers.",
				"snappy": "Like lz4.",
			}).
				Description("How batches are compressed on the way and in storage. Consumers see nothing of it.").
				Default("lz4").
				LintRule(enumRule(fieldCompression, "lz4", "none", "zstd", "zlib", "snappy")),
			service.NewStringAnnotatedEnumField(fieldCompressionLevel, map[string]string{
				"default": "What the codec's authors chose.",
				"faster":  "Less CPU, larger.",
				"better":  "Smaller, for more CPU.",
			}).
				Description("How hard `zstd` tries. The other codecs of the client have no levels, so setting it beside them is an error.").
				Default("default").
				LintRule(enumRule(fieldCompressionLevel, "default", "faster", "better")).
				Advanced(),
			service.NewStringAnnotatedEnumField(fieldHashingScheme, map[string]string{
				string(hashMurmur3):    "Pulsar IO's own choice, so the partitions that the Java Kinesis connector has used.",
				string(hashJavaString): "The Pulsar client's default, so the partitions that Redpanda Connect's output has used.",
			}).
				Description("How the key chooses the partition. If it changes, so do the partitions of the keys, and the order of a key's messages is lost at that point.").
				Default(string(hashMurmur3)).
				LintRule(enumRule(fieldHashingScheme, string(hashMurmur3), string(hashJavaString))),
			service.NewObjectField(fieldBatching,
				service.NewBoolField("enabled").
					Description("Whether messages of a partition are packed together. Without it each message is an entry of its own in Pulsar's storage, at several times the CPU on both sides.").
					Default(true),
				durationField("max_publish_delay", "10ms", "How long a message may wait for others to share its packet, at most. The end of a batch of this output never waits for it: packets are sent at once then. The default is the Java connector's."),
				positiveIntField("max_messages", 1000, "The most messages in a packet. The default is the client's."),
				positiveIntField("max_size", 128<<10, "The most bytes in a packet, before compression. A larger message travels alone. The default is the client's; larger ones bring little."),
			).
				Description("How messages are packed for Pulsar. This is not Benthos' `batching`: it neither delays nor merges the batches of a pipeline.").
				Advanced(),
			service.NewStringAnnotatedEnumField(fieldChunking, map[string]string{
				chunkingAuto: "It is cut into chunks that the consumers' clients put together again, in its place among the others.",
				chunkingOff:  "It is refused: an error of that record alone, see `" + fieldDeadLetterTopic + "`. For consumers that can't read chunks, and for compacted topics.",
			}).
				Description("What happens to a message that is larger than the broker's `maxMessageSize`, which the broker tells when the client connects (5 MiB unless it was changed; Kinesis records can have 10 MiB). Chunks are sent by a second producer of the same partition, which is made when it is needed first, after everything that comes before the message is confirmed, and nothing that comes after is sent before the message is; so each such message costs its batch two round trips. Topics that begin with `non-persistent://` cannot hold chunks: there it is `off`.\n\nA topic may have a lower limit of its own, of which clients are not told. Messages above it, unless they go in chunks, are not taken: they wait, and the gauge `pulsar_partition_blocked` and a warning tell of it.").
				Default(chunkingAuto).
				LintRule(enumRule(fieldChunking, chunkingAuto, chunkingOff)).
				Advanced(),
			service.NewStringField(fieldDeadLetterTopic).
				Description("A topic for messages that can never be published as they are: too large with `"+fieldChunking+": off`, or with a field such as `"+fieldTopic+"` or `"+fieldEventTime+"` that resolves to nothing valid. Such a message goes there as it is, whatever its size, with its key and its properties and with these on top: `dead_letter.cause`, `dead_letter.topic`, `dead_letter.shard` and `dead_letter.sequence_number`, the last two if the `kinesis_pulsar` input has set them. It is confirmed there before what follows it is sent, and then counts as delivered. While the dead-letter topic itself can't be written to, the message is tried again, and its shard waits.\n\nWithout it, the default, the message is an error of its own: Benthos' `fallback` output can catch it; if nothing does, it stops its shard, which tries it again every minute, and no other.").
				Default("").
				Example("persistent://public/default/orders-refused").
				LintRule(lintUnless(fmt.Sprintf(`this == "" || this.re_match(%q)`, topicName), fieldDeadLetterTopic+": "+topicRule)).
				Advanced(),
			deduplicationField(),
			adminURLField(),
			service.NewStringField(fieldProducerName).
				Description("What the names of this output's producers begin with, as operators see them in the statistics of a topic. Each gets a unique ending, since a broker refuses a name that is connected already. By default the broker makes the names.").
				Default("").
				Example("orders-from-kinesis").
				LintRule(lintUnless(fmt.Sprintf(`this.re_match(%q)`, producerName), fieldProducerName+": "+producerNameRule)).
				Advanced(),
			positiveIntField(fieldMaxPending, maxInFlight, "The most messages of one partition that may wait for Pulsar's confirmation; what comes then waits before it is sent. The default allows 800,000 messages a second if a confirmation takes 10 ms. Each costs about 100 bytes per partition, whether it is in use or not.").
				LintRule(lintUnless(fmt.Sprintf(`this > 0 && this <= %d`, mostPending), fmt.Sprintf("%s: must be from 1 to %d", fieldMaxPending, mostPending))).
				Advanced(),
			positiveIntField(fieldMaxPendingBytes, maxBytesInFlight, "The most bytes of payload of one partition that may wait for Pulsar's confirmation. The client needs up to two and a half times as much memory for them. A message that is larger is sent when no other is waiting. The default, 4 MiB, allows 400 MB a second if a confirmation takes 10 ms. Together with the number of partitions it bounds what the output holds; the input's `maxBufferedBytes` bounds it too.").
				Advanced(),
			service.NewStringField(fieldSendTimeout).
				Description("How long a message may wait for Pulsar's confirmation before it fails. `0s`, the default, means for ever, as with the Java connector: the client re-sends when the broker is back. With a limit, a message that timed out may still be stored, and what follows it arrives before its repetition: duplicates, and a broken order, in exchange for an error.").
				Default("0s").
				Example("30s").
				LintRule(lintUnless(isDuration, fieldSendTimeout+`: must be a duration such as "30s", or "0s" for no limit`)).
				Advanced(),
			durationField(fieldConnectionTimeout, "5s", "How long the establishment of a connection may take, TLS included. Without a limit of its own the operating system's would count, which is about two minutes.").Advanced(),
			durationField(fieldOperationTimeout, "30s", "How long a question to the broker, such as for a topic's partitions or for a new producer, may take with all its repetitions. The default is the client's: a topic that has to be loaded by another broker can take long.").Advanced(),
			service.NewObjectField(fieldReconnectBackoff,
				durationField("initial_interval", "100ms", "The pause after the first try."),
				durationField("max_interval", "5s", "The longest pause. Each is twice the one before. The client's own would grow to a minute, and leave a topic alone for as long after an outage."),
			).
				Description("The pauses between tries to connect a producer again after a connection was lost, or to make one that was refused. They have up to a fifth of chance in them, so that producers do not come back all at once.").
				Advanced(),
		).
		LintRule(fieldsRule).
		Example("Kinesis to Pulsar", "The plain pair: what the Java connector does, without its losses.", `
input:
  kinesis_pulsar:
    awsKinesisStreamName: orders
    awsRegion: eu-central-1
    initialPositionInStream: TRIM_HORIZON

output:
  pulsar:
    url: pulsar://localhost:6650
    topic: persistent://public/default/orders
`).
		Example("With TLS and a token", "The token is read from the environment, so that it is in no file.", `
output:
  pulsar:
    url: pulsar+ssl://pulsar.example.com:6651
    topic: orders
    auth:
      token:
        enabled: true
        token: "${PULSAR_TOKEN:none}"
`)
}

// isDuration is parse_duration for lint rules. Those are compiled when this package is initialised, before the package
// with that method may be, and a rule that does not compile is a complaint about every value.
const isDuration = `this.re_match("^\\+?([0-9]+\\.?[0-9]*|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+\\.?[0-9]*|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*$|^0$")`

// textRule is a lint rule for an interpolated field: whether a constant is good is told by the condition, and an
// interpolation must not refer to a metadata entry as one would guess it.
func textRule(name, constantIsGood, complaint string) string {
	return fmt.Sprintf(`root = match {
  this.contains("${!") && this.re_match(%q) => [ %q ],
  this.contains("${!") || %s => [],
  _ => [ %q ],
}`, dottedMetadata, name+": "+dottedRuleOf(name), constantIsGood, name+": "+complaint)
}

// lintUnless is a lint rule that complains unless a Bloblang condition holds.
func lintUnless(condition, complaint string) string {
	return fmt.Sprintf("root = if !(%s) { [ %q ] }", condition, complaint)
}

func enumRule(name string, options ...string) string {
	quoted := fmt.Sprintf("%q", options)
	return lintUnless(strings.ReplaceAll(quoted, " ", ", ")+".contains(this.lowercase())",
		fmt.Sprintf("%s: must be one of %s", name, strings.Join(options, ", ")))
}

func durationField(name, byDefault, description string) *service.ConfigField {
	return service.NewStringField(name).
		Description(description).
		Default(byDefault).
		LintRule(lintUnless(isDuration+` && this.re_match("[1-9]")`, name+`: must be a positive duration such as "`+byDefault+`"`))
}

func positiveIntField(name string, byDefault int, description string) *service.ConfigField {
	return service.NewIntField(name).
		Description(description).
		Default(byDefault).
		LintRule(lintUnless(`this > 0`, name+": must be at least 1"))
}
