// Command server is a Kinesis Data Streams service in memory, for trying a bundle or a config without AWS:
//
//	go run ./tests/kinesistest/server -streams orders:4
//
// It listens on the loopback alone unless -address says otherwise: it checks no signature and keeps everybody's records. A
// client needs its URL as endpoint (awsEndpoint in the input) and any credentials; what it speaks is the JSON 1.1 protocol, so
// that Java clients need aws.cborEnabled=false.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Fatal(err)
	}
}

type config struct {
	address    string
	streams    string
	consumers  string
	region     string
	account    string
	stateDelay time.Duration
	limits     bool
	rate       float64
}

func parse(args []string, help io.Writer) (*config, error) {
	var c config
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.SetOutput(help)
	flags.StringVar(&c.address, "address", "127.0.0.1:4567", "TCP `address` to listen on; port 0 takes a free one")
	flags.StringVar(&c.streams, "streams", "orders:4", "streams to create, as `name:shards,name:shards…`")
	flags.StringVar(&c.consumers, "consumers", "", "fan-out consumers to register, as `stream:name,stream:name…`")
	flags.StringVar(&c.region, "region", "us-east-1", "region in the ARNs")
	flags.StringVar(&c.account, "account", "000000000000", "account in the ARNs, 12 digits")
	flags.DurationVar(&c.stateDelay, "state-delay", 0, "how long streams and consumers stay CREATING, UPDATING and DELETING")
	flags.BoolVar(&c.limits, "limits", false, "enforce AWS's limits on reading from and writing to a shard")
	flags.Float64Var(&c.rate, "put", 0, "numbered records to put into each stream, per `second`")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q: everything is given by flags, see -help", flags.Arg(0))
	case len(c.account) != 12 || strings.Trim(c.account, "0123456789") != "":
		return nil, fmt.Errorf("-account %q must have 12 digits", c.account)
	case c.rate < 0 || c.rate > 1e6:
		return nil, fmt.Errorf("-put %v must be 0 to 1000000", c.rate)
	case c.stateDelay < 0:
		return nil, fmt.Errorf("-state-delay %v must not be negative", c.stateDelay)
	}
	return &c, nil
}

// pairs reads a:b,c:d; the error names the flag.
func pairs(name, text string) ([][2]string, error) {
	var list [][2]string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		a, b, ok := strings.Cut(item, ":")
		if !ok || a == "" || b == "" {
			return nil, fmt.Errorf("-%s %q must have a colon between two parts", name, item)
		}
		list = append(list, [2]string{a, b})
	}
	return list, nil
}

// run serves until ctx is done.
func run(ctx context.Context, args []string, out, help io.Writer) error {
	c, err := parse(args, help)
	if err != nil {
		return err
	}
	streams, err := pairs("streams", c.streams)
	if err != nil {
		return err
	}
	consumers, err := pairs("consumers", c.consumers)
	if err != nil {
		return err
	}
	options := []kinesistest.Option{
		kinesistest.WithAddress(c.address),
		kinesistest.WithAccount(c.region, c.account),
		kinesistest.WithStateDelay(c.stateDelay),
		kinesistest.WithConsumerDelay(c.stateDelay),
	}
	if c.limits {
		options = append(options, kinesistest.WithReadLimits(), kinesistest.WithWriteLimits())
	}
	s, err := kinesistest.Listen(options...)
	if err != nil {
		return fmt.Errorf("-address %s can't be used: %w", c.address, err)
	}
	defer s.Close()
	for _, pair := range streams {
		shards, err := strconv.Atoi(pair[1])
		if err != nil {
			return fmt.Errorf("-streams %s:%s: the count of shards must be a number", pair[0], pair[1])
		}
		if err := s.CreateStream(pair[0], shards); err != nil {
			return fmt.Errorf("creating stream %s: %w", pair[0], err)
		}
		fmt.Fprintf(out, "stream   %s with %d shards\n", pair[0], shards)
	}
	for _, pair := range consumers {
		arn, err := s.RegisterConsumer(pair[0], pair[1])
		if err != nil {
			return fmt.Errorf("registering consumer %s of stream %s: %w", pair[1], pair[0], err)
		}
		fmt.Fprintf(out, "consumer %s\n", arn)
	}
	fmt.Fprintf(out, "endpoint %s, region %s; any credentials will do. Interrupt to end.\n", s.URL(), c.region)
	if c.rate == 0 {
		<-ctx.Done()
		return nil
	}
	return produce(ctx, s, streams, c.rate)
}

// produce puts records at a steady rate until ctx is done. It catches up after a pause, and ends when a stream is gone.
func produce(ctx context.Context, s *kinesistest.Server, streams [][2]string, rate float64) error {
	start := time.Now()
	ticker := time.NewTicker(max(time.Duration(float64(time.Second)/rate), 10*time.Millisecond))
	defer ticker.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		for due := int(time.Since(start).Seconds() * rate); n < due; n++ {
			for _, stream := range streams {
				if _, err := s.Put(stream[0], fmt.Sprintf("key-%d", n%100), fmt.Appendf(nil, `{"number":%d}`, n)); err != nil {
					return fmt.Errorf("putting into stream %s: %w", stream[0], err)
				}
			}
		}
	}
}
