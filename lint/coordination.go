package lint

import (
	"slices"

	"gopkg.in/yaml.v3"
)

var coordinationRules = []Rule{
	{
		Name: "one-table-two-streams", Level: Error, Title: "one lease table for two streams",
		Why:     "Rows of a lease table are named by shard ids, and those are the same in every stream: two streams would take each other's positions for their own. The second to start refuses the table.",
		Instead: "Give every stream an `applicationName` (or `tableName`) of its own. Several workers of one stream share one.",
		Bad: `input:
  broker:
    inputs:
      - kinesis_pulsar: { awsKinesisStreamName: orders, awsRegion: us-east-1 }
      - kinesis_pulsar: { awsKinesisStreamName: payments, awsRegion: us-east-1 }
` + badOutput,
		check: func(c *Config, found report) { sharedTables([]*Config{c}, func(int) report { return found }, nil) },
	},
}

// CheckTogether looks for what is wrong between configs that run side by side, such as the files of a streams directory. The
// findings of each are in its place.
func CheckTogether(configs []*Config, names []string) [][]Finding {
	all := make([][]Finding, len(configs))
	rule := coordinationRules[0]
	sharedTables(configs, func(i int) report {
		if slices.Contains(slices.Concat(configs[i].allowed, configs[i].Allowed()), rule.Name) {
			return func(*yaml.Node, string, string, ...any) {}
		}
		return configs[i].reporter(rule, &all[i])
	}, names)
	return all
}

// sharedTables reports every input whose table an earlier one of another stream has. With names, only inputs of different
// configs are compared.
func sharedTables(configs []*Config, found func(config int) report, names []string) {
	type user struct {
		config int
		stream string
		path   string
	}
	first := map[string]user{}
	for i, c := range configs {
		for _, in := range c.inputs() {
			stream, known := in.text("", "awsKinesisStreamName")
			if !known || stream == "" {
				continue
			}
			name, known := in.text("pulsar-kinesis", "applicationName")
			if !known {
				continue
			}
			table, known := in.text(name, "tableName")
			if !known {
				continue
			}
			region, _ := in.text("", "awsRegion")
			endpoint, _ := in.text("", "dynamoEndpoint")
			where := region + "|" + endpoint + "|" + table
			earlier, has := first[where]
			if !has {
				first[where] = user{i, stream, join(in.path, in.name)}
				continue
			}
			if earlier.stream == stream || names != nil && earlier.config == i {
				continue
			}
			other := earlier.path
			if names != nil {
				other = names[earlier.config] + " (" + other + ")"
			}
			node, field := in.at("tableName"), "tableName"
			if node == nil {
				node, field = in.at("applicationName"), "applicationName"
			}
			if node == nil {
				node = in.node
			}
			found(i)(node, join(join(in.path, in.name), field), "the lease table %s is already that of stream %s at %s, and shards of all streams have the same names; give stream %s an applicationName of its own", table, earlier.stream, other, stream)
		}
	}
}
