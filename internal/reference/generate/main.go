// Command generate writes docs/reference. Run it in the root of the project.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"

	_ "github.com/kinesis-pulsar/kinesis-pulsar/input"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/reference"
	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/metrics"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/output"
)

func main() {
	if err := write("docs/reference"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(folder string) error {
	pages, err := reference.Pages(service.GlobalEnvironment().FullConfigSchema("", "").Field(lint.Field()))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for name, page := range pages {
		if err := os.WriteFile(filepath.Join(folder, name), page, 0o644); err != nil {
			return err
		}
	}
	return nil
}
