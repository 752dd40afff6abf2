// Command kinesis-pulsar moves Amazon Kinesis streams into Apache Pulsar: Benthos with the input kinesis_pulsar and the
// output pulsar, under a name of its own.
package main

import (
	"context"
	"os"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/command"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/input"
	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/metrics"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/output"
)

const name = "kinesis-pulsar"

func main() {
	if askedForVersion(os.Args) {
		if err := printVersion(os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	tuneMemory()
	service.RunCLI(context.Background(), options(os.Args)...)
}

// options turn Benthos' command line into ours. Args begin with the program's name.
func options(args []string) []service.CLIOptFunc {
	commands := command.Binary{Name: name, Version: version(), Schema: schema}
	commands.SetHelp(args, "moves Amazon Kinesis streams into Apache Pulsar")
	return append([]service.CLIOptFunc{
		service.CLIOptSetArgs(commands.Arguments(args)...),
		service.CLIOptSetBinaryName(name),
		service.CLIOptSetProductName(name),
		service.CLIOptSetVersion(version(), ""),
		service.CLIOptSetDefaultConfigPaths(defaultConfigs(args)...),
		service.CLIOptSetMainSchemaFrom(schema),
	}, commands.Options()...)
}

// defaultConfigs are looked for when no config is named. Streams mode takes none: what is found there is a pipeline, and the service's
// config of streams mode, which Benthos would take it for, may not have one.
func defaultConfigs(args []string) []string {
	if len(args) > 1 && args[1] == "streams" {
		return nil
	}
	return []string{"./kinesis-pulsar.yaml", "/kinesis-pulsar.yaml", "/etc/kinesis-pulsar/config.yaml"}
}

// schema is Benthos' own, but for the name that every log line carries, and the exporter of metrics: Benthos' default is
// none at all.
func schema() *service.ConfigSchema {
	s := service.GlobalEnvironment().FullConfigSchema(version(), "")
	s.SetFieldDefault(map[string]any{"@service": name}, "logger", "static_fields")
	s.SetFieldDefault(map[string]any{"prometheus": map[string]any{}}, "metrics")
	return s.Field(lint.Field())
}
