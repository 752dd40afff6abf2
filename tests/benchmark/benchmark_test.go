package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestMain lets this binary be its own children, as the command is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{roleStandIns, roleBareLoop, roleSender, roleSink}, os.Args[1]) {
		main()
		return
	}
	os.Exit(m.Run())
}

// The smoke run fails by itself when a record is missing, changed, out of order or there twice, when a message lacks its
// key or properties, or when no checkpoint was written.
func TestQuickRunBringsEveryRecordInOrder(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("processor time and memory are read from /proc, which this system does not have")
	}
	t.Run("polling", func(t *testing.T) { quickRun(t, false) })
	t.Run("fan-out", func(t *testing.T) { quickRun(t, true) })
}

func quickRun(t *testing.T, fanOut bool) {
	var table, progress bytes.Buffer
	if err := run(t.Context(), []string{"-quick", fmt.Sprintf("-fan-out=%t", fanOut)}, &table, &progress); err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(table.String()) {
		cells := strings.Split(line, "|")
		if len(cells) > 3 {
			rows[strings.TrimSpace(cells[1])+"/"+strings.TrimSpace(cells[2])] = cells
		}
	}
	columns := len(rows["case/"])
	for _, c := range cases {
		for _, x := range []string{"pipeline", "bare loop, key", "bare loop, key + 4 properties"} {
			cells, ok := rows[c.name+"/"+x]
			if c.fanOut != fanOut || c.pipelineOnly && x != "pipeline" {
				if ok {
					t.Errorf("a row for %s, %s", c.name, x)
				}
				continue
			}
			if !ok || len(cells) != columns {
				t.Errorf("no row, or a broken one, for %s, %s: %q", c.name, x, cells)
				continue
			}
			// From the end: allocations, bytes allocated, records a second, MiB/s, cores, peak RSS. None can be zero.
			for _, cell := range cells[len(cells)-7 : len(cells)-1] {
				if v, err := strconv.ParseFloat(strings.TrimSpace(cell), 64); err != nil || v <= 0 {
					t.Errorf("%s, %s: %q is not a positive number", c.name, x, cell)
				}
			}
		}
	}
	if t.Failed() {
		t.Logf("the table:\n%s", &table)
	}
}

// Every way to send brings its messages as they were, and has figures.
func TestQuickRunOfTheOutputAlone(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("processor time and memory are read from /proc, which this system does not have")
	}
	var table, progress bytes.Buffer
	if err := run(t.Context(), []string{subcommandOutput, "-quick"}, &table, &progress); err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	rows := 0
	for _, group := range wayGroups {
		rows += len(group.ways)
	}
	if got := strings.Count(table.String(), "\n| key"); got != rows {
		t.Errorf("%d rows, want %d", got, rows)
	}
	if strings.Contains(table.String(), "| 0 |") {
		t.Error("a figure is 0")
	}
	if t.Failed() {
		t.Logf("the table:\n%s", &table)
	}
}

func TestMistakesInFlagsAreTold(t *testing.T) {
	for args, want := range map[string]string{
		"-cases=1KiB":        `there is no case "1KiB", only: 100 B, 1 KiB`,
		"-rounds=0":          "-rounds must be at least 1",
		"-time=-1s":          "-time positive",
		"-binary=./other":    "write NAME=PATH",
		"-with=maxRecords":   "write FIELD=VALUE",
		"stray":              `unexpected argument "stray"`,
		"-binary==somewhere": "write NAME=PATH",
	} {
		err := run(context.Background(), []string{args}, &bytes.Buffer{}, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}
