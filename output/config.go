package output

import (
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
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
	fieldSendTimeout       = "send_timeout"
	fieldConnectionTimeout = "connection_timeout"
	fieldOperationTimeout  = "operation_timeout"
)

// defaultKey names the metadata entry in which the kinesis_pulsar input puts a record's message key.
const defaultKey = `${! metadata("pulsar_key").or("") }`

// defaultPropertyPrefix selects the metadata that the kinesis_pulsar input adds for consumers.
const defaultPropertyPrefix = "kinesis."

var compressions = map[string]pulsar.CompressionType{
	"lz4":    pulsar.LZ4,
	"none":   pulsar.NoCompression,
	"zstd":   pulsar.ZSTD,
	"zlib":   pulsar.ZLib,
	"snappy": pulsar.SNAPPY,
}

// serviceURL holds one or more brokers or proxies, as the client takes them.
var serviceURL = regexp.MustCompile(`^pulsar(\+ssl)?://[^/?#,\s]+(,[^/?#,\s]+)*/?$`)

// topicName is topic, tenant/namespace/topic, or either with persistent:// or non-persistent:// and all three parts.
var topicName = regexp.MustCompile(`^([^/:\s]+|[^/:\s]+/[^/:\s]+/[^/\s]+|(non-)?persistent://[^/:\s]+/[^/:\s]+/\S+)$`)

const (
	urlRule   = `must be pulsar://host:6650, or pulsar+ssl://host:6651 with TLS (several hosts: pulsar://a:6650,b:6650)`
	topicRule = `must be a topic name such as orders, tenant/namespace/orders or persistent://tenant/namespace/orders`
)

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
				LintRule(lintUnless(fmt.Sprintf(`this.contains("${!") || this.re_match(%q)`, topicName), fieldTopic+": "+topicRule)),
			service.NewInterpolatedStringField(fieldKey).
				Description("The key of each message. It chooses the partition, and messages of one key stay in order. An empty key means none: such messages go to the partitions in turn, one batch to each. By default it is the metadata entry `pulsar_key`, which the `kinesis_pulsar` input sets; messages of other inputs have none. A lone reference to a metadata entry that a message does not have gives no key, where other interpolations would give the text `null`.").
				Default(defaultKey).
				Example("${! json(\"customer.id\") }").
				Example(""),
			service.NewInterpolatedStringField(fieldOrderingKey).
				Description("The ordering key of each message, for Key_Shared subscriptions that must group by something else than the key. If it is not empty it chooses the partition too, instead of the key. By default there is none, as with the Java connector.").
				Default("").
				Example("${! @tenant }").
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
			service.NewStringField(fieldSendTimeout).
				Description("How long a message may wait for Pulsar's confirmation before it fails. `0s`, the default, means for ever, as with the Java connector: the client re-sends when the broker is back. With a limit, a message that timed out may still be stored, and what follows it arrives before its repetition: duplicates, and a broken order, in exchange for an error.").
				Default("0s").
				Example("30s").
				LintRule(lintUnless(isDuration, fieldSendTimeout+`: must be a duration such as "30s", or "0s" for no limit`)).
				Advanced(),
			durationField(fieldConnectionTimeout, "5s", "How long the establishment of a connection may take, TLS included. Without a limit of its own the operating system's would count, which is about two minutes.").Advanced(),
			durationField(fieldOperationTimeout, "30s", "How long a question to the broker, such as for a topic's partitions or for a new producer, may take with all its repetitions. The default is the client's: a topic that has to be loaded by another broker can take long.").Advanced(),
		).
		LintRule(`root = if this.url.or("").string().has_prefix("pulsar://") && (this.tls.root_cas_file.or("") != "" || this.tls.root_cas.or("") != "" || this.tls.skip_cert_verify.or(false) == true || this.tls.client_certs.or([]).length() > 0) {
  [ "tls: has no effect with a url that begins with pulsar://, write pulsar+ssl://" ]
}`).
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

func authField() *service.ConfigField {
	return service.NewObjectField(fieldAuth,
		service.NewObjectField("oauth2",
			service.NewBoolField("enabled").Description("Whether to ask an authorization server for a token, by the client credentials flow.").Default(false),
			service.NewStringField("audience").Description("The audience that the token is for. Some servers need none.").Default(""),
			service.NewStringField("issuer_url").Description("The URL of the authorization server.").Default(""),
			service.NewStringField("scope").Description("The scopes to ask for, separated by spaces. By default none.").Default(""),
			service.NewStringField("private_key_file").Description("The path of the file with the client's id and secret, as JSON.").Default(""),
		).
			Description("Parameters for OAuth 2.0 authentication.").
			LintRule(`root = match {
  !this.enabled.or(false) => [],
  this.issuer_url.or("").re_match("^https?://.+") == false => [ "auth.oauth2.issuer_url: must be the https:// URL of the authorization server when auth.oauth2.enabled is true" ],
  this.private_key_file.or("") == "" => [ "auth.oauth2.private_key_file: must name the file with the client's credentials when auth.oauth2.enabled is true" ],
  _ => [],
}`),
		service.NewObjectField("token",
			service.NewBoolField("enabled").Description("Whether to present the token.").Default(false),
			service.NewStringField("token").Description("The token, usually a JSON Web Token. Better `${PULSAR_TOKEN}` than the token itself.").Default("").Secret(),
		).
			Description("Parameters for token authentication.").
			LintRule(`root = if this.enabled.or(false) && this.token.or("") == "" { [ "auth.token.token: must not be empty when auth.token.enabled is true" ] }`),
	).
		Description("How to authenticate with the brokers. At most one method can be enabled; by default none is.").
		Optional().
		LintRule(`root = if this.oauth2.enabled.or(false) && this.token.enabled.or(false) { [ "auth: token and oauth2 are both enabled, enable one of them" ] }`)
}

// isDuration is parse_duration for lint rules. Those are compiled when this package is initialised, before the package
// with that method may be, and a rule that does not compile is a complaint about every value.
const isDuration = `this.re_match("^\\+?([0-9]+\\.?[0-9]*|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+\\.?[0-9]*|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*$|^0$")`

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

// config is the configuration with its values checked and in Go's types.
type config struct {
	url               string
	topic             text
	key               text
	orderingKey       text
	properties        *service.MetadataFilter
	eventTime         eventTime
	maxInFlight       int
	tls               *tls.Config // nil without TLS
	auth              authConfig
	compression       pulsar.CompressionType
	hashing           hashingScheme
	batching          batchingConfig
	sendTimeout       time.Duration // negative: none
	connectionTimeout time.Duration
	operationTimeout  time.Duration
}

type batchingConfig struct {
	enabled         bool
	maxPublishDelay time.Duration
	maxMessages     int
	maxSize         int // bytes
}

// parseConfig reads and checks the configuration. The checks are those of the lint rules too: not everything that is run
// was linted before. It reads the TLS files, and uses no network.
func parseConfig(p *service.ParsedConfig) (*config, error) {
	c := &config{}
	var err error
	read := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	read(func() error { c.url, err = p.FieldString(fieldURL); return err })
	read(func() error { return c.readTexts(p) })
	read(func() error { return c.readEventTime(p) })
	read(func() error {
		c.properties, err = p.FieldMetadataFilter(fieldProperties)
		return inField(fieldProperties, err)
	})
	read(func() error { c.maxInFlight, err = p.FieldMaxInFlight(); return err })
	read(func() error { return c.readTLS(p) })
	read(func() error { return c.readAuth(p.Namespace(fieldAuth)) })
	read(func() error { return c.readEnums(p) })
	read(func() error { return c.readBatching(p.Namespace(fieldBatching)) })
	read(func() error { c.sendTimeout, err = duration(p, fieldSendTimeout, 0); return err })
	read(func() error { c.connectionTimeout, err = duration(p, fieldConnectionTimeout, 1); return err })
	read(func() error { c.operationTimeout, err = duration(p, fieldOperationTimeout, 1); return err })
	if err != nil {
		return nil, err
	}
	if c.sendTimeout == 0 {
		c.sendTimeout = -1 // 0 means 30 s to the client
	}
	return c, c.validate()
}

func inField(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

func (c *config) readTexts(p *service.ParsedConfig) error {
	for name, to := range map[string]*text{fieldTopic: &c.topic, fieldKey: &c.key, fieldOrderingKey: &c.orderingKey} {
		raw, err := p.FieldString(name)
		if err != nil {
			return err
		}
		expr, err := p.FieldInterpolatedString(name)
		if err != nil {
			return inField(name, err)
		}
		*to = newText(raw, expr)
	}
	return nil
}

func (c *config) readEventTime(p *service.ParsedConfig) error {
	raw, err := p.FieldString(fieldEventTime)
	if err != nil {
		return err
	}
	expr, err := p.FieldInterpolatedString(fieldEventTime)
	if err != nil {
		return inField(fieldEventTime, err)
	}
	c.eventTime, err = newEventTime(raw, expr)
	return inField(fieldEventTime, err)
}

func (c *config) readTLS(p *service.ParsedConfig) error {
	settings, err := p.FieldTLS(fieldTLS)
	if err != nil {
		return inField(fieldTLS, err)
	}
	if strings.HasPrefix(c.url, "pulsar+ssl://") {
		c.tls = settings
	}
	return nil
}

func (c *config) readAuth(p *service.ParsedConfig) error {
	for _, f := range []struct {
		path []string
		to   any
	}{
		{[]string{"token", "enabled"}, &c.auth.token.enabled},
		{[]string{"token", "token"}, &c.auth.token.token},
		{[]string{"oauth2", "enabled"}, &c.auth.oauth2.enabled},
		{[]string{"oauth2", "audience"}, &c.auth.oauth2.audience},
		{[]string{"oauth2", "issuer_url"}, &c.auth.oauth2.issuerURL},
		{[]string{"oauth2", "scope"}, &c.auth.oauth2.scope},
		{[]string{"oauth2", "private_key_file"}, &c.auth.oauth2.privateKeyFile},
	} {
		if !p.Contains(f.path...) {
			continue
		}
		var err error
		switch to := f.to.(type) {
		case *bool:
			*to, err = p.FieldBool(f.path...)
		case *string:
			*to, err = p.FieldString(f.path...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *config) readEnums(p *service.ParsedConfig) error {
	name, err := p.FieldString(fieldCompression)
	if err != nil {
		return err
	}
	var ok bool
	if c.compression, ok = compressions[strings.ToLower(name)]; !ok {
		return fmt.Errorf("%s: %q is not one of lz4, none, zstd, zlib, snappy", fieldCompression, name)
	}
	if name, err = p.FieldString(fieldHashingScheme); err != nil {
		return err
	}
	switch c.hashing = hashingScheme(strings.ToLower(name)); c.hashing {
	case hashMurmur3, hashJavaString:
		return nil
	default:
		return fmt.Errorf("%s: %q is not one of %s, %s", fieldHashingScheme, name, hashMurmur3, hashJavaString)
	}
}

func (c *config) readBatching(p *service.ParsedConfig) error {
	b := &c.batching
	var err error
	if b.enabled, err = p.FieldBool("enabled"); err != nil {
		return err
	}
	if b.maxPublishDelay, err = duration(p, "max_publish_delay", 1); err != nil {
		return inField(fieldBatching, err)
	}
	for name, to := range map[string]*int{"max_messages": &b.maxMessages, "max_size": &b.maxSize} {
		if *to, err = p.FieldInt(name); err != nil {
			return err
		}
		if *to < 1 {
			return fmt.Errorf("%s.%s: must be at least 1, is %d", fieldBatching, name, *to)
		}
	}
	return nil
}

func duration(p *service.ParsedConfig, name string, atLeast time.Duration) (time.Duration, error) {
	raw, err := p.FieldString(name)
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(raw)
	if err != nil || d < atLeast {
		return 0, fmt.Errorf(`%s: %q is not a duration such as "30s"`, name, raw)
	}
	return d, nil
}

func (c *config) validate() error {
	if !serviceURL.MatchString(c.url) {
		return errors.New(fieldURL + ": " + urlRule)
	}
	if name, ok := c.topic.static(); ok && !topicName.MatchString(name) {
		return errors.New(fieldTopic + ": " + topicRule)
	}
	if c.maxInFlight < 1 {
		return fmt.Errorf("%s: must be at least 1, is %d", fieldMaxInFlight, c.maxInFlight)
	}
	return c.auth.validate()
}
