// Command demo shows the whole pipeline at work, and proves it: a Kinesis stream is filled and flows into Pulsar through
// the binary and a file of config_examples, run as a process of its own. In the middle that process is killed hard and
// started again. At the end every record of the stream is looked for in the topic.
//
//	go run ./tests/demo
//
// It ends with exit code 0 if and only if the account balances, and leaves nothing behind: no process, no file outside
// the caches of Go and of the services.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// settings are what the flags say.
type settings struct {
	records, size, shards int
	rate                  float64 // records a second
	services              string
	kill                  bool
	binary                string // path of one that is built already; "": build it
}

const usage = `Usage: go run ./tests/demo [flags]

Fills a Kinesis stream, moves it into Pulsar with the kinesis-pulsar binary and config_examples/demo.yaml, kills the
process hard in the middle, starts it again, and then looks for every record in the topic. Takes about half a minute;
the first time longer, for compiling and for fetching the services. Exit code 0: every record is there, unchanged and in order.

Kinesis is a stand-in with the limits of AWS. Pulsar and DynamoDB Local are the real ones where Java 17 and Maven are
installed, otherwise stand-ins too.

Flags:
`

// defaultRate is what a stream of four shards bears with ease.
const defaultRate = 3000

// parse reads the command line. Its errors name the flag and what to write instead.
func parse(args []string, out io.Writer) (settings, error) {
	s := settings{}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.IntVar(&s.records, "records", 60000, "how many records to put into the stream")
	flags.IntVar(&s.size, "size", 1024, "bytes of most records; some are empty, some 16 times as large")
	flags.IntVar(&s.shards, "shards", 4, "how many shards the stream has")
	flags.Float64Var(&s.rate, "rate", 0, "records put in a second; 0: three quarters of what Kinesis takes for the shards, at most 3000")
	flags.StringVar(&s.services, "services", servicesAuto, "Pulsar and DynamoDB: real, embedded, or auto (real where they can run)")
	flags.BoolVar(&s.kill, "kill", true, "kill the pipeline's process in the middle (-kill=false: don't)")
	flags.Usage = func() {
		fmt.Fprint(out, usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if s.size < 0 || s.size > maxPayload {
		return s, fmt.Errorf("-size %d: write 0 to %d", s.size, maxPayload)
	}
	most := mostRate(s.shards, s.size)
	switch {
	case flags.NArg() > 0:
		return s, fmt.Errorf("%q is no flag: see -h", flags.Arg(0))
	case s.records < 1:
		return s, fmt.Errorf("-records %d: write at least 1", s.records)
	case s.shards < 1 || s.shards > 1000:
		return s, fmt.Errorf("-shards %d: write 1 to 1000", s.shards)
	case s.rate < 0 || s.rate > most:
		return s, fmt.Errorf("-rate %.0f: Kinesis takes %.0f records of %d bytes a second on %d shards; write at most that, or add shards", s.rate, most, s.size, s.shards)
	case s.services != servicesAuto && s.services != servicesReal && s.services != servicesEmbedded:
		return s, fmt.Errorf("-services %s: write auto, real or embedded", s.services)
	}
	if s.rate == 0 {
		s.rate = min(defaultRate, most*3/4)
	}
	return s, nil
}

// flow is how long putting the records takes.
func (s settings) flow() time.Duration {
	return time.Duration(float64(s.records) / s.rate * float64(time.Second))
}

// errUnbalanced is returned when the account does not balance.
var errUnbalanced = errors.New("the account does not balance")

func main() {
	s, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(2)
	}
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second interrupt ends the demo at once; the kernel then ends its children.
	context.AfterFunc(ctx, release)
	err = run(ctx, s, newScreen(os.Stdout))
	interrupted := ctx.Err() != nil
	release()
	switch {
	case interrupted:
		fmt.Fprintln(os.Stderr, "demo: interrupted; everything it started has ended")
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// setUpPatience bounds the time before the records flow: downloads and compilers included.
const setUpPatience = 10 * time.Minute

// run tells the whole story. Everything that it starts has ended when it returns.
func run(ctx context.Context, s settings, out *screen) error {
	out.print(fmt.Sprintf("A Kinesis stream of %d shards flows into Pulsar: %s records, %.0f a second%s.", s.shards, grouped(s.records), s.rate,
		map[bool]string{true: ", and a hard kill in the middle", false: ""}[s.kill]), "")
	dir, err := os.MkdirTemp("", "kinesis-pulsar-demo-")
	if err != nil {
		return fmt.Errorf("making a folder for the binary: %w", err)
	}
	defer os.RemoveAll(dir)

	services, pipe, err := setUp(ctx, s, dir, out)
	if err != nil {
		return err
	}
	defer services.close()

	limit := 2*time.Minute + 3*s.flow()
	bounded, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %s", limit.Round(time.Second)))
	defer cancel()
	d := &demo{settings: s, services: services, pipe: pipe, out: out}
	evidence, err := d.tell(bounded)
	if err != nil {
		if ctx.Err() == nil { // nobody wants to see it after an interrupt
			out.print("", "The end of the pipeline's log:", pipe.logTail())
		}
		return err
	}
	a := settle(evidence)
	out.print("")
	out.print(a.lines()...)
	if len(a.Findings) > 0 {
		return errUnbalanced
	}
	return nil
}

// setUp starts the services and builds the binary beside them.
func setUp(ctx context.Context, s settings, dir string, out *screen) (*services, *pipeline, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, setUpPatience, fmt.Errorf("setting up took more than %s", setUpPatience))
	defer cancel()
	root, err := moduleRoot(ctx)
	if err != nil {
		return nil, nil, err
	}
	out.say("Starting the services and building kinesis-pulsar. The first time that takes some minutes.")
	pipe := &pipeline{config: filepath.Join(root, "config_examples", "demo.yaml"), log: filepath.Join(dir, "pipeline.log")}
	var running *services
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() (err error) {
		if running, err = startServices(ctx, s.services, s.shards, out.say); err == nil {
			out.say("The services run: " + running.described + ".")
		}
		return err
	})
	work.Go(func() (err error) {
		if pipe.binary = s.binary; pipe.binary != "" {
			return nil
		}
		began := time.Now()
		if pipe.binary, err = build(ctx, root, dir); err == nil {
			out.say(fmt.Sprintf("The binary is built (%.1f s).", time.Since(began).Seconds()))
		}
		return err
	})
	if err := work.Wait(); err != nil {
		if running != nil {
			running.close()
		}
		return nil, nil, err
	}
	pipe.env = []string{"KINESIS_ENDPOINT=" + running.kinesisURL, "DYNAMODB_ENDPOINT=" + running.dynamodbURL, "PULSAR_URL=" + running.pulsarURL}
	return running, pipe, nil
}
