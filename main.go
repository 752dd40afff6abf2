// Command kinesis-pulsar moves Amazon Kinesis streams into Apache Pulsar: Benthos with the input kinesis_pulsar and the
// output pulsar.
package main

import (
	"context"
	"os"
	"runtime/debug"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"

	_ "github.com/kinesis-pulsar/kinesis-pulsar/input"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/output"
)

// Version is set at release builds by the linker; else the module's own version is used.
var Version = ""

// gcPercent is the collector's target unless the environment sets one. Records live for some tens of milliseconds, so
// the default of 100 spends a seventh of the CPU on marking a small heap again and again.
const gcPercent = 200

func main() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(gcPercent)
	}
	service.RunCLI(context.Background(),
		service.CLIOptSetBinaryName("kinesis-pulsar"),
		service.CLIOptSetProductName("kinesis-pulsar"),
		service.CLIOptSetVersion(version(), ""),
		service.CLIOptSetDefaultConfigPaths("kinesis-pulsar.yaml", "/kinesis-pulsar.yaml", "/etc/kinesis-pulsar/config.yaml"),
	)
}

func version() string {
	if Version != "" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
