package output

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/service"
)

const (
	fieldDeduplication = "deduplication"
	fieldAdminURL      = "admin_url"
)

// webURL is the address of an admin API.
var webURL = regexp.MustCompile(`^https?://[^/?#,\s@]+(/[^?#,\s]*)?$`)

// Rules about de-duplication and other fields.
const (
	exactTopicRule   = `must be one topic, without interpolation, with ` + fieldDeduplication
	exactTimeoutRule = `must be 0s with ` + fieldDeduplication + `: a message that times out may be stored, and what follows it too`
	exactStoredRule  = `must be a persistent topic with ` + fieldDeduplication
	exactNameRule    = `has no effect with ` + fieldDeduplication + `, where the names of producers are part of what Pulsar knows messages by; leave it out`
	adminURLRule     = `must be http://host:8080, or https://host:8443 with TLS: the web service URL of the Pulsar cluster`
	adminAloneRule   = `has an effect with ` + fieldDeduplication + `: true only, leave it out`
)

// exactRule is their part of fieldsRule.
const exactRule = `
  if this.deduplication.or(false) == true && this.topic.or("").string().contains("${!") {
    "` + fieldTopic + `: ` + exactTopicRule + `"
  } else { deleted() },
  if this.deduplication.or(false) == true && this.topic.or("").string().has_prefix("non-persistent://") {
    "` + fieldTopic + `: ` + exactStoredRule + `"
  } else { deleted() },
  if this.admin_url.or("") != "" && this.deduplication.or(false) != true {
    "` + fieldAdminURL + `: ` + adminAloneRule + `"
  } else { deleted() },
  if this.deduplication.or(false) == true && this.send_timeout.or("0s").string().re_match("[1-9]") {
    "` + fieldSendTimeout + `: ` + exactTimeoutRule + `"
  } else { deleted() },
  if this.deduplication.or(false) == true && this.producer_name.or("") != "" {
    "` + fieldProducerName + `: ` + exactNameRule + `"
  } else { deleted() },
`

func deduplicationField() *service.ConfigField {
	return service.NewBoolField(fieldDeduplication).
		Description(`Exactly one copy of each record in the topic, through restarts, kills, hand-overs between workers and failures of the broker. It works with the ` + "`kinesis_pulsar`" + ` input, which numbers the records of each shard and keeps the count in the lease table, and with Pulsar's de-duplication, which drops what it has stored before; that must be switched on for the topic or its namespace (` + "`pulsar-admin namespaces set-deduplication --enable tenant/namespace`" + `). A topic without it is noticed by the first message, which is sent twice, and nothing more is written then; with ` + "`admin_url`" + ` it is noticed, and mended, before.

Every record is a message of its own in Pulsar's storage (` + "`producer_batching`" + ` has no effect), by a producer of its shard and partition, which costs several times the CPU, here and at the broker. Its producers are named ` + "`application/stream/shard/random`" + `. Messages without a key go to the partition of their Kinesis partition key.

What it asks for:

- The same record must give the same message, key and topic every time: no processors that depend on time, chance or on other messages. Records may be filtered out. Processors that copy, sort or merge messages, or replace their metadata, are an error of the batch, and stop its shard. Those that make several batches of one (` + "`split`, `group_by`, `group_by_value`" + `) have one part wait for another and names change, which costs the order, and copies when a process is killed in between: ` + "`lint`, `run`" + ` and the streams API refuse them.
- The number of partitions must not change: then every shard stops, with an error that says what to do.
- A record that can never be published (too large: ` + "`chunking`" + ` is off with it) goes to ` + "`dead_letter_topic`" + `, or stops its shard. No other output may be around this one (` + "`fallback`, `retry`, `drop_on`, `reject_errored`, `switch`, `broker`" + `), nor ` + "`error_handling.strict`" + ` be set: they take records away, or send them again, out of turn, and Pulsar drops what comes out of turn. ` + "`lint`, `run`" + ` and the streams API refuse that.
- Consumers see each record once, but Pulsar forgets a producer that has sent nothing for six hours (` + "`brokerDeduplicationProducerInactivityTimeoutMinutes`" + `): records that were stored without being confirmed just before a longer stop come twice. A topic remembers 10,000 producers at most.
- Don't limit the size of messages by a policy of the topic below the broker's limit: such a refusal is told to nobody, and later records are stored.

Where it is not certain that the count is sound (KCL has moved the checkpoint, it was reset by hand, or records behind it have left the stream) numbering begins anew, and records that were not confirmed then may come twice rather than be lost. After a kill, and after a failure that leaves open what was stored, the shard reads what the topic has of it behind the checkpoint, which takes the right to consume. It knows messages by the property ` + "`kinesis.sequence.number`" + ` (for records that the Kinesis Producer Library has put together, ` + "`kinesis.subsequence.number`" + ` beside it), or, where they do not have it, by their content.`).
		Default(false).
		Advanced()
}

func adminURLField() *service.ConfigField {
	return service.NewStringField(fieldAdminURL).
		Description("The web service URL of the Pulsar cluster, for `" + fieldDeduplication + "`: at the start its admin API is asked whether the topic de-duplicates. If it does not, and the role of `" + fieldAuth + "` may do so, it is switched on for the topic, which is told in the log; if it may not, the output does not start. `" + fieldTLS + "` and `" + fieldAuth + "` are the same as for `" + fieldURL + "`. If the admin API does not answer there is a warning, and the first message tells. By default nothing is asked.").
		Default("").
		Example("http://localhost:8080").
		LintRule(lintUnless(fmt.Sprintf(`this == "" || this.re_match(%q)`, webURL), fieldAdminURL+": "+adminURLRule)).
		Advanced()
}

// checkExact is what exactRule says.
func (c *config) checkExact() error {
	if c.adminURL != "" && !webURL.MatchString(c.adminURL) {
		return errors.New(fieldAdminURL + ": " + adminURLRule)
	}
	if !c.deduplication {
		if c.adminURL != "" {
			return errors.New(fieldAdminURL + ": " + adminAloneRule)
		}
		return nil
	}
	if topic, _ := c.topic.static(); strings.HasPrefix(topic, "non-persistent://") {
		return errors.New(fieldTopic + ": " + exactStoredRule)
	}
	if _, constant := c.topic.static(); !constant {
		return errors.New(fieldTopic + ": " + exactTopicRule)
	}
	if c.sendTimeout > 0 {
		return errors.New(fieldSendTimeout + ": " + exactTimeoutRule)
	}
	if c.producerName != "" {
		return errors.New(fieldProducerName + ": " + exactNameRule)
	}
	// A message in chunks goes through another producer, of which the broker knows other numbers.
	c.chunking = false
	return nil
}
