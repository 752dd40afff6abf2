package convert

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// stream converts a config of Redpanda Connect or Bento. Everything but the two components stays as it is.
func (c *conversion) stream(top *yaml.Node) error {
	config := clean(top)
	found, ours, others := 0, false, false
	var failed error
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		if n.Kind == yaml.SequenceNode {
			for i, item := range n.Content {
				walk(item, fmt.Sprintf("%s.%d", path, i))
			}
			return
		}
		if n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			here := strings.TrimPrefix(path+"."+key.Value, ".")
			switch {
			case key.Value == "aws_kinesis" && isInput(here):
				found++
				others = true
				replacement, err := c.kinesis(value, here)
				if err != nil {
					failed = errors.Join(failed, err)
					continue
				}
				if len(replacement) == 1 {
					key.Value, n.Content[i+1] = "kinesis_pulsar", replacement[0].Node
					continue
				}
				inputs := &yaml.Node{Kind: yaml.SequenceNode}
				for _, r := range replacement {
					one := newMapping()
					one.add("kinesis_pulsar", r.Node)
					inputs.Content = append(inputs.Content, one.Node)
				}
				broker := newMapping()
				broker.add("inputs", inputs)
				key.Value, n.Content[i+1] = "broker", broker.Node
			case key.Value == "kinesis_pulsar" && isInput(here):
				ours = true
			case key.Value == "pulsar" && isOutput(here):
				found++
				c.pulsar(value, here)
			default:
				walk(value, here)
			}
		}
	}
	walk(config, "")
	if failed != nil {
		return failed
	}
	if ours && !others {
		return ErrOurs
	}
	if found == 0 {
		return ErrUnknown
	}
	c.ofOtherComponents(config)
	c.config = config
	return nil
}

func isInput(path string) bool {
	return strings.HasPrefix(path, "input.") || strings.HasPrefix(path, "input_resources.")
}

func isOutput(path string) bool {
	return strings.HasPrefix(path, "output.") || strings.HasPrefix(path, "output_resources.")
}

// kinesis converts an aws_kinesis input, to one of ours for each stream.
func (c *conversion) kinesis(n *yaml.Node, path string) ([]mapping, error) {
	var streams []string
	if list := at(n, "streams"); list != nil {
		for _, s := range list.Content {
			streams = append(streams, text(s))
		}
	}
	if s := text(at(n, "stream")); s != "" {
		streams = append(streams, s)
	}
	if len(streams) == 0 {
		return nil, fmt.Errorf("%s.streams: there is none; it names the streams to read", path)
	}
	var all []mapping
	for i, stream := range streams {
		name := stream
		if !strings.HasPrefix(stream, "arn:") && !interpolation.MatchString(stream) { // whose default may be anything
			if before, shards, explicit := strings.Cut(stream, ":"); explicit {
				name = before
				c.note(NotPossible, path+".streams", "%s reads single shards (%s) by hand; here the workers of one applicationName share all of them", stream, shards)
			}
		}
		in := newMapping()
		in.addText("awsKinesisStreamName", name)
		c.kinesisOf(n, path, in, name, i == 0)
		all = append(all, in)
	}
	return all, nil
}

func (c *conversion) kinesisOf(n *yaml.Node, path string, in mapping, stream string, first bool) {
	note := func(verdict Verdict, field, format string, args ...any) {
		if first { // once, not for each stream
			c.note(verdict, path+"."+field, format, args...)
		}
	}
	region := text(at(n, "region"))
	if parts := strings.Split(stream, ":"); len(parts) > 3 {
		region = parts[3] // what an ARN says is where the stream is
	}
	if region == "" {
		region = "${AWS_REGION:us-east-1}"
		note(Changed, "region", "it was left to the environment; awsRegion has to be there, so that it is clear which stream is read")
	}
	in.addText("awsRegion", region)
	if endpoint := text(at(n, "endpoint")); endpoint != "" {
		in.addText("awsEndpoint", endpoint)
		in.addText("dynamoEndpoint", endpoint, "It was the endpoint of both.")
	}
	application := applicationFor(stream)
	in.addText("applicationName", application, "The name of a new lease table: that of aws_kinesis has a form of its own, and its positions cannot be read.")
	note(NotPossible, "dynamodb", "the positions in its table cannot be taken over. Set initialPositionInStream: AT_TIMESTAMP with a startAtTime just before the old pipeline was stopped, and some records come twice rather than never")
	if oldest := at(n, "start_from_oldest"); oldest == nil || isTrue(oldest) {
		in.addText("initialPositionInStream", "TRIM_HORIZON", "start_from_oldest was true. For what came since the old pipeline stopped: AT_TIMESTAMP, with startAtTime.")
	} else {
		in.addText("initialPositionInStream", "LATEST", "start_from_oldest was false.")
	}
	fanOut := at(n, "enhanced_fan_out")
	in.add("useEnhancedFanOut", plain(fmt.Sprint(isTrue(at(fanOut, "enabled")))))
	if name := text(at(fanOut, "consumer_name")); name != "" {
		in.addText("consumerName", name)
	}
	if arn := text(at(fanOut, "consumer_arn")); arn != "" {
		in.addText("consumerArn", arn)
	}
	c.credentials(at(n, "credentials"), in, note)
	for _, f := range []string{"lease_period", "rebalance_period", "steal_grace_period"} {
		if at(n, f) != nil {
			note(NotNeeded, f, "shards are shared by asking and giving, without a gap; failoverTimeMillis is how long a dead worker's shards wait")
		}
	}
	for _, f := range []string{"checkpoint_limit", "commit_period", "auto_replay_nacks"} {
		if at(n, f) != nil {
			note(NotNeeded, f, "one batch of a shard is under way at a time, failed records are replayed, and positions are written three times in failoverTimeMillis")
		}
	}
	if at(n, "batching") != nil {
		note(NotNeeded, "batching", "batches grow by themselves while the one before is under way")
	}
	if at(n, "poll_period") != nil {
		note(Changed, "poll_period", "idleTimeBetweenReadsInMillis is the least time between two reads of a shard; its default, 250, is what Kinesis allows")
	}
}

var interpolation = regexp.MustCompile(`\$\{[^{}]*\}`)

// applicationFor names the application that reads a stream. A variable in the stream's name stays one.
func applicationFor(stream string) string {
	if v := interpolation.FindString(stream); v != "" {
		return v + "-to-pulsar"
	}
	return legalName(stream[strings.LastIndexAny(stream, "/:")+1:] + "-to-pulsar")
}

// credentials converts the credentials block.
func (c *conversion) credentials(n *yaml.Node, in mapping, note func(Verdict, string, string, ...any)) {
	if role := text(at(n, "role")); role != "" {
		in.addText("awsCredentialPluginName", "org.apache.pulsar.io.aws.STSAssumeRoleProviderPlugin")
		param := fmt.Sprintf(`{"roleArn":%q,"roleSessionName":"kinesis-pulsar"`, role)
		if id := text(at(n, "role_external_id")); id != "" {
			param += fmt.Sprintf(`,"externalId":%q`, id)
		}
		value := textNode(param + "}")
		value.Style = yaml.SingleQuotedStyle
		in.add("awsCredentialPluginParam", value)
		if text(at(n, "id")) != "" {
			note(Changed, "credentials.id", "the role is assumed with the credentials of the AWS SDK's own chain: give the keys as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
		}
	} else if id := text(at(n, "id")); id != "" {
		param := fmt.Sprintf(`{"accessKey":%q,"secretKey":%q`, id, text(at(n, "secret")))
		if token := text(at(n, "token")); token != "" {
			param += fmt.Sprintf(`,"sessionToken":%q`, token)
		}
		value := textNode(param + "}")
		value.Style = yaml.SingleQuotedStyle
		in.add("awsCredentialPluginParam", value)
	}
	if profile := text(at(n, "profile")); profile != "" {
		note(Changed, "credentials.profile", "set AWS_PROFILE=%s in the environment", profile)
	}
	if isTrue(at(n, "from_ec2_role")) {
		note(NotNeeded, "credentials.from_ec2_role", "the AWS SDK's own chain finds the instance's role")
	}
	if at(n, "expiry_window") != nil {
		note(NotNeeded, "credentials.expiry_window", "credentials are renewed in time")
	}
}

// pulsar completes a pulsar output, whose fields work as they are.
func (c *conversion) pulsar(n *yaml.Node, path string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	out := mapping{n}
	if at(n, "hashing_scheme") == nil {
		out.addText("hashing_scheme", "java_string", "What that output placed keys by. Without this line it is Murmur3, as the Java connector has it; either way, do not change it later.")
	}
	if at(n, "properties") == nil {
		properties := newMapping()
		properties.add("include_prefixes", &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle})
		out.add("properties", properties.Node, "That output sent no properties. Leave this out to send the metadata kinesis.*, as the Java connector does.")
	}
	if at(n, "key") == nil {
		out.addText("key", "", "That output sent no key by default. Leave this out for the key of the Kinesis record, by which records of a key stay in one partition and in order.")
		c.note(Changed, path+".key", "messages had no key, so they have none; without `key: \"\"` they would have that of the Kinesis record")
	}
	if at(n, "batching") != nil {
		c.note(NotNeeded, path+".batching", "the output cuts its own batches, see producer_batching")
		remove(n, "batching")
	}
	if file := text(at(n, "tls", "root_cas_file")); file != "" {
		c.note(Changed, path+".tls", "root_cas_file is there as before; the other fields of Benthos' tls work, too")
	}
}

// ofOtherComponents notes what other parts of the config may rely on.
func (c *conversion) ofOtherComponents(config *yaml.Node) {
	written, err := yaml.Marshal(config)
	if err != nil {
		return
	}
	for _, renamed := range [][2]string{
		{"kinesis_stream", `@"kinesis.stream.name" (to be listed in kinesisRecordProperties)`},
		{"kinesis_shard", `@"kinesis.shard.id" (to be listed in kinesisRecordProperties)`},
		{"kinesis_partition_key", `@"kinesis.partition.key"`},
		{"kinesis_sequence_number", `@"kinesis.sequence.number"`},
	} {
		if strings.Contains(string(written), renamed[0]) {
			c.note(NotPossible, renamed[0], "the metadata is called %s here; change it where it is used", renamed[1])
		}
	}
	if buffer := at(config, "buffer"); buffer != nil && at(buffer, "none") == nil {
		c.note(NotPossible, "buffer", "a buffer acknowledges records before Pulsar has them: take it away, lint refuses it")
	}
}

func remove(n *yaml.Node, key string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = append(n.Content[:i], n.Content[i+2:]...)
			return
		}
	}
}
