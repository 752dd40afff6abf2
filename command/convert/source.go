package convert

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// The keys of the connector's own config, in the order in which they are written.
var configsFields = []string{
	"awsKinesisStreamName", "awsRegion", "awsEndpoint", "dynamoEndpoint", "cloudwatchEndpoint",
	"awsCredentialPluginName", "awsCredentialPluginParam", "applicationName",
	"initialPositionInStream", "startAtTime", "useEnhancedFanOut", "messageKeyMode", "kinesisRecordProperties",
	"checkpointInterval", "backoffTime", "numRetries", "receiveQueueSize",
}

// isConfigs tells whether a mapping is the block below configs: itself.
func isConfigs(n *yaml.Node) bool { return at(n, "awsKinesisStreamName") != nil }

// source converts the config of a Pulsar source.
func (c *conversion) source(top *yaml.Node) error {
	configs := at(top, "configs")
	if configs == nil {
		configs, top = top, newMapping().Node
	}
	if configs.Kind != yaml.MappingNode {
		return errors.New("configs: this must be a mapping, with awsKinesisStreamName and the rest below it")
	}
	if class := text(at(top, "className")); class != "" && !strings.Contains(class, "Kinesis") {
		return fmt.Errorf("className: %s is another connector; only the Kinesis source can be converted", class)
	}
	if archive := text(at(top, "archive")); archive != "" && !strings.Contains(strings.ToLower(archive), "kinesis") {
		return fmt.Errorf("archive: %s is another connector; only the Kinesis source can be converted", archive)
	}
	in, err := c.configs(configs, at(top, "secrets"))
	if err != nil {
		return err
	}
	out := newMapping()
	out.addText("url", c.options.URL, "Where Pulsar is: a source runs inside of it, so its config does not say. With TLS pulsar+ssl://host:6651, and see `tls` and `auth`.")
	topic := text(at(top, "topicName"))
	if named := at(top, "topicName"); topic == "" && named != nil && named.Kind != yaml.ScalarNode {
		return errors.New("topicName: this must be the name of one topic")
	}
	if topic == "" {
		topic = c.options.Topic
	}
	if topic == "" {
		return errors.New("topicName: there is none; give the topic to write to by --topic")
	}
	out.addText("topic", topic)
	switch guarantee := text(at(top, "processingGuarantees")); guarantee {
	case "", "ATLEAST_ONCE":
	case "EFFECTIVELY_ONCE":
		out.add("deduplication", plain("true"), "From processingGuarantees. The namespace needs de-duplication switched on.")
		c.note(Changed, "processingGuarantees", "EFFECTIVELY_ONCE, which the Java connector cannot do, is deduplication: true of the output")
	case "ATMOST_ONCE":
		c.note(NotPossible, "processingGuarantees", "ATMOST_ONCE may lose records; here they are delivered at least once")
	default:
		c.note(NotPossible, "processingGuarantees", "%s: records are delivered at least once, and checkpoints follow what Pulsar has confirmed", guarantee)
	}
	c.producer(at(top, "producerConfig"), out)

	input, output, config := newMapping(), newMapping(), newMapping()
	input.add("kinesis_pulsar", in.Node)
	output.add("pulsar", out.Node)
	config.add("input", input.Node)
	config.add("output", output.Node)
	c.config = config.Node

	each(top, func(key string, value *yaml.Node) { c.frame(key, value) })
	return nil
}

// configs converts the connector's own block.
func (c *conversion) configs(configs, secrets *yaml.Node) (mapping, error) {
	in := newMapping()
	each(configs, func(key string, value *yaml.Node) {
		if !slices.Contains(configsFields, key) && value.Tag != "!!null" {
			if key == "propertiesToInclude" {
				c.note(NotNeeded, "configs."+key, "the Java connector overwrites it by kinesisRecordProperties")
				return
			}
			c.note(NotPossible, "configs."+key, "the Java connector knows no such key, and neither does this one")
		}
	})
	if text(at(configs, "awsKinesisStreamName")) == "" {
		return in, errors.New("configs.awsKinesisStreamName: there is none; it names the stream to read")
	}
	for _, key := range configsFields {
		value := at(configs, key)
		if value == nil || value.Tag == "!!null" {
			if key == "applicationName" {
				in.addText(key, "pulsar-kinesis", "It was not set, and this is what the connector calls its lease table then. (Versions before 3.1 had a default that is no possible name.)")
			}
			if key == "awsCredentialPluginParam" && at(secrets, key) != nil {
				in.addText(key, "${AWS_CREDENTIAL_PLUGIN_PARAM:}", "It was a secret of the function runtime; give it in this variable.")
				c.note(Changed, "secrets."+key, "secrets are environment variables here: set AWS_CREDENTIAL_PLUGIN_PARAM to what the secret holds")
			}
			continue
		}
		switch key {
		case "applicationName":
			name := text(value)
			if legal := legalName(name); legal != name {
				in.addText(key, legal, fmt.Sprintf("It was %q, which cannot be the name of a lease table; a connector with it has never got anywhere.", name))
				c.note(Changed, "configs."+key, "%q cannot be the name of a DynamoDB table: it is %s now", name, legal)
				continue
			}
			in.add(key, clean(value), "The name of the lease table. Stop the connector first: its positions are found there, and taken over.")
		case "awsCredentialPluginParam":
			comment := ""
			if strings.Contains(text(value), "secretKey") {
				comment = "Better than keys in a file: leave this out, and the AWS SDK's own chain is used (environment, web identity, shared files, container, instance)."
			}
			in.add(key, clean(value), comment)
		case "cloudwatchEndpoint":
			in.add(key, clean(value), "Nothing is sent to CloudWatch by this version.")
		case "startAtTime":
			if position := text(at(configs, "initialPositionInStream")); position != "AT_TIMESTAMP" && position != "2" {
				c.note(NotNeeded, "configs."+key, "initialPositionInStream is not AT_TIMESTAMP, so it is not used; carried over as it was")
			}
			in.add(key, clean(value))
		default:
			in.add(key, clean(value))
		}
	}
	if at(configs, "useEnhancedFanOut") == nil {
		in.add("useEnhancedFanOut", plain("true"), "The connector's default: enhanced fan-out, which AWS charges for, with the consumer that the connector has registered. false is polling.")
	}
	return in, nil
}

var impossible = regexp.MustCompile(`[^a-zA-Z0-9_.-]+`)

// legalName is the name itself when it can be that of a lease table, else something like it.
func legalName(name string) string {
	legal := strings.Trim(impossible.ReplaceAllString(name, "-"), "-")
	for len(legal) < 3 {
		legal += "-app"
	}
	if len(legal) > 255 {
		legal = legal[:255]
	}
	return legal
}

// frame tells what becomes of a source's fields outside of configs.
func (c *conversion) frame(key string, value *yaml.Node) {
	if value.Tag == "!!null" {
		return // as pulsar-admin prints what is not set
	}
	switch key {
	case "configs", "topicName", "processingGuarantees", "producerConfig":
	case "tenant", "namespace", "name":
		c.note(NotNeeded, key, "nothing is registered in Pulsar; a process is known by its config")
	case "archive", "className", "sourceType":
		c.note(NotNeeded, key, "no connector is loaded; this program is the connector")
	case "parallelism":
		if n, err := strconv.Atoi(text(value)); err == nil && n > 1 {
			c.note(Changed, key, "start %d processes with this config: those of one applicationName share the shards", n)
		} else {
			c.note(NotNeeded, key, "one process; any number of more share the shards with it")
		}
	case "secrets":
		each(value, func(secret string, _ *yaml.Node) {
			if secret != "awsCredentialPluginParam" {
				c.note(NotPossible, "secrets."+secret, "no field of the connector takes it; environment variables can be put into any field")
			}
		})
	case "resources":
		c.note(NotNeeded, key, "limits of CPU and memory are those of the process or container; memory stays near 200 MiB, see maxBufferedBytes")
	case "schemaType", "serdeClassName":
		if s := text(value); s != "" && !strings.EqualFold(s, "bytes") {
			c.note(NotPossible, key, "%s: messages are bytes, as they were in Kinesis, without a schema", s)
		} else {
			c.note(NotNeeded, key, "messages are bytes")
		}
	case "logTopic":
		c.note(NotPossible, key, "logs go to the standard output; `logger` can send them to a file")
	case "runtimeFlags", "customRuntimeOptions", "batchSourceConfig", "batchBuilder":
		c.note(NotNeeded, key, "it is about the Java runtime of functions")
	default:
		c.note(NotPossible, key, "this field of a source is not known here")
	}
}

// producer converts producerConfig.
func (c *conversion) producer(p *yaml.Node, out mapping) {
	each(p, func(key string, value *yaml.Node) {
		field := "producerConfig." + key
		s := text(value)
		switch key {
		case "compressionType":
			if name := strings.ToLower(s); slices.Contains([]string{"none", "lz4", "zlib", "zstd", "snappy"}, name) {
				out.addText("compression", name, "From "+field+".")
			} else if s != "" {
				c.note(NotPossible, field, "%s is no compression of Pulsar; lz4 is used", s)
			}
		case "batchingConfig":
			c.batching(value, out)
		case "batchBuilder":
			c.batchBuilder(field, s)
		case "maxPendingMessages", "maxPendingMessagesAcrossPartitions":
			c.note(NotNeeded, field, "what is under way is bounded by bytes, over all shards: maxBufferedBytes of the input")
		case "useThreadLocalProducers":
			c.note(NotNeeded, field, "one producer serves all threads")
		case "cryptoConfig":
			if value.Kind == yaml.MappingNode && len(value.Content) > 0 {
				c.note(NotPossible, field, "messages are not encrypted end to end; do not go on if that is required")
			}
		default:
			c.note(NotPossible, field, "this field of a producer is not known here")
		}
	})
}

func (c *conversion) batchBuilder(field, s string) {
	if strings.EqualFold(s, "KEY_BASED") {
		c.note(NotPossible, field, "KEY_BASED: batches are cut by partition, not by key. Consumers of a Key_Shared subscription need producer_batching: { enabled: false }")
	}
}

func (c *conversion) batching(n *yaml.Node, out mapping) {
	batching := newMapping()
	each(n, func(key string, value *yaml.Node) {
		s := text(value)
		number, err := strconv.Atoi(s)
		switch {
		case s == "":
		case key == "enabled":
			batching.add("enabled", plain(s))
		case key == "batchBuilder":
			c.batchBuilder("producerConfig.batchingConfig."+key, s)
		case key == "batchingMaxPublishDelayMs" && err == nil && number > 0:
			batching.addText("max_publish_delay", s+"ms")
		case key == "batchingMaxMessages" && err == nil && number > 0:
			batching.add("max_messages", plain(s))
		case key == "batchingMaxBytes" && err == nil && number > 0:
			batching.add("max_size", plain(s))
		case key == "roundRobinRouterBatchingPartitionSwitchFrequency":
			c.note(NotNeeded, "producerConfig.batchingConfig."+key, "records of Kinesis have keys, and are placed by them")
		default:
			c.note(NotPossible, "producerConfig.batchingConfig."+key, "%s is not known here", s)
		}
	})
	if len(batching.Content) > 0 {
		out.add("producer_batching", batching.Node, "From producerConfig.batchingConfig.")
	}
}
