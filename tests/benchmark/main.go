// Command benchmark measures the whole pipeline as a user runs it: the built binary with leases, checkpoints and acks,
// reading a Kinesis stand-in and writing to a Pulsar stand-in that checks every record. Beside it, in the same run, it
// measures a bare loop of the AWS SDK into the Pulsar client, which is what anybody could write in an hour and what
// nothing built on the two can be expected to beat by much.
//
//	go run ./tests/benchmark                     # the table of polling, about seven minutes
//	go run ./tests/benchmark -fan-out            # that of enhanced fan-out
//	go run ./tests/benchmark output              # that of the output alone, beside the Pulsar client alone; four minutes
//	go run ./tests/benchmark -quick              # every case once, for a second: does it still run?
//	go run ./tests/benchmark -cases '1 KiB' -binary old=./before   # the working tree against another build of it
//
// What it promises:
//   - The measured process does nothing but the measured work: the stand-ins run in another one, and the time to start
//     is left out, since CPU time and records are the differences between two moments of the running process.
//   - Every record is checked by the sink: its bytes, its key, its properties, its place in the order of its key. A run
//     in which one is wrong, missing in between, or there twice has no result but an error.
//   - Contenders take turns in every round, and a ratio is formed within a round: what the machine does to one of them it
//     does to the others.
//
// Processor time and memory are read from /proc, so it needs Linux.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// module is what is built and measured.
const module = "github.com/kinesis-pulsar/kinesis-pulsar"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "benchmark:", err)
		os.Exit(1)
	}
}

// run is the command: the benchmark itself or, in a process that it has started, one of the parts.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case roleStandIns:
			return serveStandIns(args[1:], os.Stdin, stdout)
		case roleBareLoop:
			return runBareLoop(ctx, args[1:], os.Stdin, stdout)
		case roleSender:
			return runSender(ctx, args[1:], os.Stdin, stdout)
		case roleSink:
			return serveSink(args[1:], os.Stdin, stdout)
		case subcommandOutput:
			return runAlone(ctx, args[1:], stdout, stderr)
		}
	}
	plan, err := parsePlan(args, stderr)
	if err != nil {
		return err
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return errors.New("processor time and memory are read from /proc, which this system does not have: run it on Linux")
	}
	dir, err := os.MkdirTemp("", "kinesis-pulsar-benchmark-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	plan.dir = dir
	if err := plan.build(ctx, stderr); err != nil {
		return err
	}
	results, err := plan.measure(ctx, stderr)
	if err != nil {
		return err
	}
	writeReport(stdout, plan, results)
	return nil
}

// plan is what to measure, and how long.
type plan struct {
	cases      []testCase
	contenders []contender
	rounds     int
	warmUp     time.Duration
	length     time.Duration // of one measurement
	profiles   string        // directory for profiles, empty: none
	arguments  string        // as given, for the report

	dir string // scratch
}

func parsePlan(args []string, stderr io.Writer) (*plan, error) {
	p := &plan{arguments: strings.Join(args, " ")}
	flags := flag.NewFlagSet("benchmark", flag.ContinueOnError)
	flags.SetOutput(stderr)
	quick := flags.Bool("quick", false, "a smoke run: every case once, with few records, which must all arrive")
	fanOut := flags.Bool("fan-out", false, "the cases with enhanced fan-out instead of those with polling")
	names := flags.String("cases", "", "the cases to run, separated by commas: "+strings.Join(caseNames(), ", ")+" (default all with polling)")
	flags.IntVar(&p.rounds, "rounds", 5, "how often each contender is measured in each case; the table shows medians")
	flags.DurationVar(&p.length, "time", 5*time.Second, "the length of one measurement")
	flags.DurationVar(&p.warmUp, "warm-up", 2*time.Second, "how long a process runs before it is measured")
	flags.StringVar(&p.profiles, "profiles", "", "a directory to write CPU and allocation profiles of the measured processes to (they cost some percent)")
	pipeline := contender{name: "pipeline", kind: pipelineKind}
	p.contenders = []contender{pipeline, {name: "bare loop, key", kind: bareKind}, {name: "bare loop, key + 4 properties", kind: bareKind, properties: true}}
	flags.Func("binary", "NAME=PATH: measure another build of kinesis-pulsar too; may be repeated", func(v string) error {
		name, path, ok := strings.Cut(v, "=")
		if !ok || name == "" || path == "" {
			return errors.New("write NAME=PATH")
		}
		absolute, err := filepath.Abs(path)
		p.contenders = append(p.contenders, contender{name: name, kind: pipelineKind, binary: absolute})
		return err
	})
	flags.Func("with", "FIELD=VALUE: measure the pipeline with this field of its input, too; may be repeated", func(v string) error {
		if name, value, ok := strings.Cut(v, "="); !ok || name == "" || value == "" {
			return errors.New("write FIELD=VALUE")
		}
		p.contenders = append(p.contenders, contender{name: "pipeline, " + v, kind: pipelineKind, input: []string{v}})
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if p.rounds < 1 || p.length <= 0 || p.warmUp < 0 {
		return nil, errors.New("-rounds must be at least 1, -time positive, -warm-up not negative")
	}
	for _, c := range cases {
		if c.fanOut == *fanOut {
			p.cases = append(p.cases, c)
		}
	}
	if *names != "" {
		p.cases = nil
		for name := range strings.SplitSeq(*names, ",") {
			name = strings.TrimSpace(name)
			i := slices.IndexFunc(cases, func(c testCase) bool { return c.name == name })
			if i < 0 {
				return nil, fmt.Errorf("-cases: there is no case %q, only: %s", name, strings.Join(caseNames(), ", "))
			}
			p.cases = append(p.cases, cases[i])
		}
	}
	if *quick {
		p.rounds, p.warmUp, p.length = 1, 0, 0
		p.cases = slices.Clone(p.cases)
		for i := range p.cases {
			p.cases[i] = p.cases[i].quick()
		}
	}
	return p, nil
}

// build makes the binary that is measured, as a user does.
func (p *plan) build(ctx context.Context, stderr io.Writer) error {
	binary := filepath.Join(p.dir, "kinesis-pulsar")
	fmt.Fprintln(stderr, "building", module)
	// Without the stamp: where git does not trust the checkout, Go could not make it.
	out, err := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", binary, module).CombinedOutput()
	if err != nil {
		return fmt.Errorf("building %s: %w\n%s", module, err, out)
	}
	for i := range p.contenders {
		if c := &p.contenders[i]; c.kind == pipelineKind && c.binary == "" {
			c.binary = binary
		}
	}
	return nil
}

// result is what was measured: by case, by contender, by round.
type result map[string]map[string][]sample

func (p *plan) measure(ctx context.Context, stderr io.Writer) (result, error) {
	results := result{}
	for _, c := range p.cases {
		results[c.name] = map[string][]sample{}
	}
	for round := range p.rounds {
		for _, c := range p.cases {
			in := slices.DeleteFunc(slices.Clone(p.contenders), func(x contender) bool { return c.pipelineOnly && x.kind != pipelineKind })
			// Another one begins each time.
			for i := range in {
				x := in[(i+round)%len(in)]
				s, err := p.one(ctx, c, x, round)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", c.name, x.name, err)
				}
				results[c.name][x.name] = append(results[c.name][x.name], s)
				fmt.Fprintf(stderr, "round %d, %s, %s: %s\n", round+1, c.name, x.name, s)
			}
		}
	}
	return results, nil
}
