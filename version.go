package main

import (
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
)

// Version and Commit are set by the linker for releases; otherwise what the build knows of the module is used.
var (
	Version = ""
	Commit  = ""
)

func version() string {
	if Version != "" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// askedForVersion tells whether the version alone is asked for. Benthos' own --version knows a version and a date, and not what
// a report of a fault needs.
func askedForVersion(args []string) bool {
	return len(args) == 2 && slices.Contains([]string{"--version", "-version", "-v"}, args[1])
}

// dependencies are the modules whose versions matter for what a pipeline does.
var dependencies = []string{
	"github.com/redpanda-data/benthos/v4", "github.com/apache/pulsar-client-go", "github.com/aws/aws-sdk-go-v2",
	"github.com/aws/aws-sdk-go-v2/service/kinesis", "github.com/aws/aws-sdk-go-v2/service/dynamodb",
}

func printVersion(w io.Writer) error {
	var b strings.Builder
	commit := Commit
	info, ok := debug.ReadBuildInfo()
	if ok && commit == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	fmt.Fprintf(&b, "%s %s\n", name, version())
	if commit != "" {
		fmt.Fprintf(&b, "commit %s\n", commit)
	}
	if ok {
		fmt.Fprintf(&b, "%s\n", info.GoVersion)
		for _, d := range info.Deps {
			if slices.Contains(dependencies, d.Path) {
				fmt.Fprintf(&b, "%s %s\n", d.Path, d.Version)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
