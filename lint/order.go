package lint

import "slices"

var orderRules = []Rule{
	{
		Name: "buffer-acks-early", Level: Error, Title: "a `buffer` behind `kinesis_pulsar`",
		Why: "A buffer acknowledges a record as soon as it holds it. The checkpoint then passes records that Pulsar has never seen, and a crash loses them; " +
			"and with the next batch of a shard coming before the last is delivered, the order of records is gone too.",
		Instead: "Leave `buffer` out. The input holds up to `maxBufferedBytes` by itself, and Kinesis holds the rest.",
		Bad:     badInput + "buffer: { memory: {} }\n" + badOutput,
		check: func(c *Config, found report) {
			if len(c.inputs()) == 0 {
				return
			}
			for _, b := range c.components {
				if b.kind == "buffer" && b.name != "none" {
					found(b.node, b.path, "a buffer (%s) acknowledges records before Pulsar has them: a crash loses them, and their order is lost at once; leave buffer out, the input holds up to maxBufferedBytes by itself", b.name)
				}
			}
		},
	},
	{
		Name: "batching-mixes-shards", Level: Error, Title: "a batching policy between `kinesis_pulsar` and `pulsar`",
		Why: "The input hands out one batch of a shard at a time, which is what keeps the order. A policy that merges batches lets a failed record fail the batches of other shards with it, " +
			"and one that waits for more records waits for the batch that is only handed out when this one is done.",
		Instead: "Leave `batching` out: batches grow by themselves while the one before is under way, and `producer_batching` of the output decides what goes to Pulsar together.",
		Bad: `input:
  broker:
    inputs: [ { kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: us-east-1 } } ]
    batching: { count: 100, period: 1s }
` + badOutput,
		check: func(c *Config, found report) {
			if len(c.inputs()) == 0 {
				return
			}
			seen := map[*component]bool{}
			for _, leaf := range slices.Concat(c.inputs(), c.outputs()) {
				for _, k := range c.around(leaf) {
					policy, field := k.at("batching"), "batching"
					if k.kind == "input" && k.name == "batched" {
						policy, field = k.at("policy"), "policy"
					}
					if seen[k] || !batches(policy) {
						continue
					}
					seen[k] = true
					found(policy, join(join(k.path, k.name), field), "a batching policy merges batches of different shards, and waits for records that only come when this batch is delivered; leave it out, batches grow by themselves")
				}
			}
		},
	},
	{
		Name: "split-overtakes", Level: Error, Title: "`split` before a `pulsar` output with more than one batch in flight",
		Why:     "The parts of a split batch are written at the same time, up to `max_in_flight` of them, so the second part of a shard's records can reach Pulsar before the first.",
		Instead: "Leave `split` out (the output cuts its own batches), or set `max_in_flight: 1` on the output.",
		Bad:     badInput + "pipeline: { processors: [ { split: { size: 10 } } ] }\n" + badOutput,
		check: func(c *Config, found report) {
			if len(c.inputs()) == 0 {
				return
			}
			parallel := slices.IndexFunc(c.outputs(), func(o *component) bool {
				n, known := o.number(64, "max_in_flight")
				return known && n != 1
			})
			if parallel < 0 {
				return
			}
			for _, p := range c.reshaping("split") {
				found(p.node, p.path, "the parts of a split batch are written at the same time and overtake each other; leave split out, or set max_in_flight: 1 at %s", join(c.outputs()[parallel].path, "pulsar"))
			}
		},
	},
	{
		Name: "archive-merges", Level: Error, Title: "`archive` between `kinesis_pulsar` and `pulsar`",
		Why: "An archive makes one message of a batch: the records of many keys then travel under the key of the first one, into its partition, so that a key's records are in several partitions and out of order. " +
			"The properties of all but the first are lost.",
		Instead: "Leave `archive` out. Pulsar's own batches (`producer_batching`) make large entries of small messages, and consumers still see each record.",
		Bad:     badInput + "pipeline: { processors: [ { archive: { format: lines } } ] }\n" + badOutput,
		check: func(c *Config, found report) {
			if len(c.inputs()) == 0 || len(c.outputs()) == 0 {
				return
			}
			for _, p := range c.reshaping("archive") {
				found(p.node, p.path, "archive puts records of many keys into one message under the first one's key, so their order is lost; leave it out, producer_batching makes large entries of small messages")
			}
		},
	},
}

const (
	badInput  = "input: { kinesis_pulsar: { awsKinesisStreamName: s, awsRegion: us-east-1 } }\n"
	badOutput = "output: { pulsar: { url: \"pulsar://localhost:6650\", topic: t } }\n"
)

// reshaping are the processors of a name whose work the output sees. A branch works on copies, and for_each on one message
// at a time: what they do to batches stays with them.
func (c *Config) reshaping(names ...string) (found []*component) {
	for _, p := range c.used("processor", names...) {
		if !c.apart(p, 0) {
			found = append(found, p)
		}
	}
	return found
}

// apart tells whether what a processor does to a batch stays where it is; a resource, wherever it is used.
func (c *Config) apart(p *component, depth int) bool {
	if p.parent.within("processor", "branch", "workflow", "for_each", "cached") != nil {
		return true
	}
	if !p.top().isResource() || depth > maxDepth {
		return false
	}
	return !slices.ContainsFunc(c.users(p.top()), func(user *component) bool { return !c.apart(user, depth+1) })
}
