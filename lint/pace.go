package lint

import "time"

// A stop takes the input up to three seconds: the final checkpoints and the release of the leases. Benthos leaves a quarter of
// shutdown_timeout for that when batches do not get through.
const (
	stopNeeds              = 4 * time.Second
	defaultShutdownTimeout = "20s"
)

var paceRules = []Rule{
	{
		Name: "one-in-flight", Level: Warning, Title: "`max_in_flight: 1` at a `pulsar` output",
		Why:     "One batch of a shard is under way at a time whatever `max_in_flight` is, so the order of records needs no such limit; with 1, all shards wait for each other.",
		Instead: "Leave `max_in_flight` out.",
		Bad:     badInput + "output: { pulsar: { url: \"pulsar://localhost:6650\", topic: t, max_in_flight: 1 } }\n",
		check: func(c *Config, found report) {
			if len(c.inputs()) == 0 || len(c.reshaping("split")) > 0 {
				return
			}
			for _, o := range c.outputs() {
				if n, known := o.number(64, "max_in_flight"); known && n == 1 {
					found(o.at("max_in_flight"), join(o.path, "pulsar.max_in_flight"), "with 1 all shards wait for each other, and order does not need it: a shard has one batch under way anyway; leave max_in_flight out")
				}
			}
		},
	},
	{
		Name: "small-queue", Level: Warning, Title: "a `receiveQueueSize` below 100",
		Why:     "A batch takes at most `receiveQueueSize` records, and all shards share that many. Small batches cost much more for each record.",
		Instead: "Leave `receiveQueueSize` out; memory is bounded by `maxBufferedBytes`.",
		Bad:     "input: { kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: us-east-1, receiveQueueSize: 10 } }\n" + badOutput,
		check: func(c *Config, found report) {
			for _, in := range c.inputs() {
				if n, known := in.number(1000, "receiveQueueSize"); known && n > 0 && n < 100 {
					found(in.at("receiveQueueSize"), join(in.path, "kinesis_pulsar.receiveQueueSize"), "batches have at most %d records then, over all shards; leave it out, memory is bounded by maxBufferedBytes", n)
				}
			}
		},
	},
	{
		Name: "send-timeout", Level: Warning, Title: "a `send_timeout` behind `kinesis_pulsar`",
		Why:     "A message that has timed out may still be stored, and is sent again: a duplicate. Without a timeout the client sends until it is told, the shard waits, and nothing is lost by that.",
		Instead: "Leave `send_timeout` out, as the Java connector does.",
		Bad:     badInput + "output: { pulsar: { url: \"pulsar://localhost:6650\", topic: t, send_timeout: 30s } }\n",
		check: func(c *Config, found report) {
			if len(c.inputs()) == 0 {
				return
			}
			for _, o := range c.outputs() {
				s, known := o.text("", "send_timeout")
				if d, err := time.ParseDuration(s); known && err == nil && d > 0 {
					found(o.at("send_timeout"), join(o.path, "pulsar.send_timeout"), "a message that timed out may be stored all the same, and is sent again; leave send_timeout out, the input waits")
				}
			}
		},
	},
	{
		Name: "short-shutdown", Level: Warning, Title: "a `shutdown_timeout` too short to release the leases",
		Why: "Three quarters of `shutdown_timeout` are for what is under way, one quarter for the rest when that gets stuck: the final checkpoints and the release of the leases, which need up to " + stopNeeds.String() + ". " +
			"Leases that are not released have to expire, and their shards wait for `failoverTimeMillis`.",
		Instead: "Give it " + (4 * stopNeeds).String() + " or more; the default is " + defaultShutdownTimeout + ".",
		Bad:     badInput + badOutput + "shutdown_timeout: 5s\n",
		check: func(c *Config, found report) {
			if len(c.inputs()) == 0 {
				return
			}
			n := c.setting("shutdown_timeout")
			s, ok := text(n)
			if d, err := time.ParseDuration(s); ok && err == nil && d < 4*stopNeeds {
				found(n, "shutdown_timeout", "a quarter of it is what is left to release the leases when Pulsar does not answer, and that takes up to %s; write %s or more", stopNeeds, 4*stopNeeds)
			}
		},
	},
}
