package lint

import "gopkg.in/yaml.v3"

var deduplicationRules = []Rule{
	{
		Name: "deduplication-wrapped", Level: Error, Title: "an output with `deduplication` inside another output, or behind `error_handling.strict`",
		Why: "With `deduplication` every record has a number, and Pulsar takes numbers in ascending order only. Whatever takes a failed record away and lets the ones behind it go on (`fallback`, `drop_on`, `reject_errored`, a `switch`, " +
			"strict error handling), or sends a batch again by itself (`retry`, `broker`), makes Pulsar drop a record without an error when it comes again.",
		Instead: "Make it the pipeline's only output, give it its `dead_letter_topic` for records that can never be published, and let mappings `catch` what fails in them.",
		Bad: badInput + `output:
  fallback:
    - pulsar: { url: "pulsar://localhost:6650", topic: t, deduplication: true }
    - drop: {}
`,
		check: func(c *Config, found report) {
			strict := c.setting("error_handling", "strict")
			for _, o := range c.deduplicating() {
				if w := c.around(o); len(w) > 0 {
					found(o.at("deduplication"), join(o.path, "pulsar.deduplication"), "%s takes failed records away or sends them again by itself, and what comes again behind others is dropped by Pulsar's de-duplication without an error; make this the only output, with a dead_letter_topic", w[0].name)
				}
				if s, ok := text(strict); ok && s == "true" {
					found(strict, "error_handling.strict", "it takes records away whose processors failed, and when they come again behind others they are dropped by the de-duplication of %s without an error; leave strict out and catch what fails", o.path)
				}
			}
		},
	},
	{
		Name: "deduplication-reordered", Level: Error, Title: "processors that reorder or copy records before an output with `deduplication`",
		Why:     "`split`, `group_by` and `group_by_value` make several batches of one, which are written at the same time; `unarchive` makes several messages of one record. Numbers then do not ascend, or come twice, and Pulsar drops records.",
		Instead: "Do it behind Pulsar, or without `deduplication`.",
		Bad:     badInput + "pipeline: { processors: [ { group_by_value: { value: '${! @pulsar_key }' } } ] }\noutput: { pulsar: { url: \"pulsar://localhost:6650\", topic: t, deduplication: true } }\n",
		check: func(c *Config, found report) {
			if len(c.deduplicating()) == 0 {
				return
			}
			for _, p := range c.reshaping("split", "group_by", "group_by_value", "unarchive", "archive") {
				found(p.node, p.path, "%s changes the order or the number of the records, which de-duplication counts; take it away, or deduplication at %s", p.name, join(c.deduplicating()[0].path, "pulsar"))
			}
		},
	},
	{
		Name: "deduplication-without-kinesis", Level: Error, Title: "`deduplication` behind another input than `kinesis_pulsar`",
		Why:     "The numbers that Pulsar de-duplicates by come from the lease table of `kinesis_pulsar`. Records of another input have none, and none of them would be sent.",
		Instead: "Leave `deduplication` out for other inputs.",
		Bad:     "input: { generate: { mapping: 'root = \"x\"' } }\noutput: { pulsar: { url: \"pulsar://localhost:6650\", topic: t, deduplication: true } }\n",
		check: func(c *Config, found report) {
			if len(c.inputs()) > 0 {
				return
			}
			if at(c.root, "input") == nil {
				return // a file of resources
			}
			for _, o := range c.deduplicating() {
				found(o.at("deduplication"), join(o.path, "pulsar.deduplication"), "only kinesis_pulsar gives records the numbers that de-duplication needs; leave deduplication out for other inputs")
			}
		},
	},
}

func (c *Config) deduplicating() (found []*component) {
	for _, o := range c.outputs() {
		if o.enabled("deduplication") {
			found = append(found, o)
		}
	}
	return found
}

// batches tells whether a batching policy is more than its defaults, which do nothing.
func batches(policy *yaml.Node) bool {
	for _, e := range entries(policy) {
		value, _ := text(e.value)
		switch e.key.Value {
		case "count", "byte_size", "jitter":
			if value != "" && value != "0" && value != "1" {
				return true
			}
		case "period", "check":
			if value != "" {
				return true
			}
		case "processors":
			if e.value.Kind == yaml.SequenceNode && len(e.value.Content) > 0 {
				return true
			}
		}
	}
	return false
}
