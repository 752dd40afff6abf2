package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// roleSink is the process of the Pulsar stand-in that senders send to.
const roleSink = "sink"

// subcommandOutput measures the output alone.
const subcommandOutput = "output"

// way is a contender of the output's table, in its variants.
type way struct {
	name        string
	way         string
	compression string
	properties  bool
}

// ways of one group are compared with the client of the group.
var wayGroups = []struct {
	name string
	ways []way
}{
	{"key", []way{
		{name: "pulsar output", way: sendOurs, compression: "none"},
		{name: "client alone", way: sendClient, compression: "none"},
		{name: "blocking Send, 64 at once", way: sendBlocking, compression: "none"},
	}},
	{"key + 4 properties", []way{
		{name: "pulsar output", way: sendOurs, compression: "none", properties: true},
		{name: "client alone", way: sendClient, compression: "none", properties: true},
	}},
	{"key, LZ4", []way{
		{name: "pulsar output", way: sendOurs, compression: "lz4"},
		{name: "client alone", way: sendClient, compression: "lz4"},
	}},
}

// alonePlan is what to measure of the output alone, and how long.
type alonePlan struct {
	plan
	url          string // of a real broker; "": a stand-in for each measurement
	topic        string
	receiptDelay time.Duration
	messages     uint64 // of a smoke run; 0: by time
}

func parseAlonePlan(args []string, stderr io.Writer) (*alonePlan, error) {
	p := &alonePlan{}
	p.arguments = strings.Join(append([]string{subcommandOutput}, args...), " ")
	flags := flag.NewFlagSet("benchmark "+subcommandOutput, flag.ContinueOnError)
	flags.SetOutput(stderr)
	quick := flags.Bool("quick", false, "a smoke run: each once, for a few thousand messages")
	flags.IntVar(&p.rounds, "rounds", 5, "how often each is measured; the table shows medians")
	flags.DurationVar(&p.length, "time", 4*time.Second, "the length of one measurement")
	flags.DurationVar(&p.warmUp, "warm-up", 2*time.Second, "how long a process runs before it is measured")
	flags.DurationVar(&p.receiptDelay, "receipts-after", 3*time.Millisecond, "how long the stand-in takes to confirm, which is what a disk takes")
	flags.StringVar(&p.url, "pulsar", "", "the URL of a real broker to send to, in place of the stand-in")
	flags.StringVar(&p.topic, "topic", topicName, "the topic there, with partitions or without")
	flags.StringVar(&p.profiles, "profiles", "", "a directory to write profiles to")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if p.rounds < 1 || p.length <= 0 || p.warmUp < 0 {
		return nil, errors.New("-rounds must be at least 1, -time positive, -warm-up not negative")
	}
	if *quick {
		p.rounds, p.warmUp, p.length, p.messages = 1, 0, 0, 2000
	}
	return p, nil
}

// runAlone measures and writes the table.
func runAlone(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	p, err := parseAlonePlan(args, stderr)
	if err != nil {
		return err
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return errors.New("processor time and memory are read from /proc, which this system does not have: run it on Linux")
	}
	if p.dir, err = os.MkdirTemp("", "kinesis-pulsar-benchmark-"); err != nil {
		return err
	}
	defer os.RemoveAll(p.dir)
	results := map[string][]sample{}
	for round := range p.rounds {
		for _, group := range wayGroups {
			for i := range group.ways {
				w := group.ways[(i+round)%len(group.ways)] // another one begins each time
				s, err := p.one(ctx, group.name, w, round)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", group.name, w.name, err)
				}
				results[group.name+w.name] = append(results[group.name+w.name], s)
				fmt.Fprintf(stderr, "round %d, %s, %s: %s\n", round+1, group.name, w.name, s)
			}
		}
	}
	p.report(stdout, results)
	return nil
}

// one measures one way once, with processes of its own.
func (p *alonePlan) one(ctx context.Context, group string, w way, round int) (s sample, err error) {
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	url, topic := p.url, p.topic
	var sink *process
	if url == "" {
		sink, err = start(exec.Command(self, roleSink, "-receipts-after="+p.receiptDelay.String(), "-properties="+strconv.FormatBool(w.properties)),
			filepath.Join(p.dir, "sink.log"), true)
		if err != nil {
			return s, err
		}
		defer func() { err = errors.Join(err, sink.stop()) }()
		if err := sink.read(&url); err != nil {
			return s, err
		}
		topic = topicName
	}
	measured, err := start(exec.Command(self, roleSender, "-way="+w.way, "-pulsar="+url, "-topic="+topic, "-compression="+w.compression,
		"-properties="+strconv.FormatBool(w.properties)), filepath.Join(p.dir, "sender.log"), true)
	if err != nil {
		return s, err
	}
	stopped := false
	defer func() {
		if !stopped {
			_ = measured.stop()
		}
	}()
	var debug string
	if err := measured.read(&debug); err != nil {
		return s, err
	}
	m := &sending{ctx: ctx, measured: measured, debug: debug}
	if p.messages > 0 {
		s, err = m.between(func() error { return m.await(p.messages) })
	} else if err = m.await(1); err == nil {
		if err = measured.sleep(ctx, p.warmUp); err == nil {
			finish := p.profile(ctx, debug, fmt.Sprintf("%s, %s, round %d", group, w.name, round+1))
			s, err = m.between(func() error { return measured.sleep(ctx, p.length) })
			err = errors.Join(err, finish())
		}
	}
	if err != nil {
		return s, measured.failure(err)
	}
	if s.peakRSS, err = measured.peakRSS(); err != nil {
		return s, err
	}
	confirmed, err := m.confirmed()
	if err != nil {
		return s, err
	}
	stopped = true
	if err := measured.stop(); err != nil {
		return s, err
	}
	if sink == nil {
		return s, nil
	}
	var t tally
	if err := sink.ask(askTally, &t); err != nil {
		return s, err
	}
	if len(t.Problems) > 0 {
		return s, fmt.Errorf("the sink found: %s", strings.Join(t.Problems, "; "))
	}
	if t.Records < confirmed {
		return s, fmt.Errorf("%d messages were confirmed, %d are there", confirmed, t.Records)
	}
	return s, nil
}

// sending is a sender under way.
type sending struct {
	ctx      context.Context
	measured *process
	debug    string
}

func (m *sending) confirmed() (uint64, error) {
	body, err := get(m.ctx, m.debug+askConfirmed)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(text), 10, 64)
}

// await returns when that many messages were confirmed.
func (m *sending) await(n uint64) error {
	for since := time.Now(); ; {
		confirmed, err := m.confirmed()
		if err != nil || confirmed >= n {
			return err
		}
		if time.Since(since) > stuckAfter {
			return fmt.Errorf("%d messages were confirmed within %s", confirmed, stuckAfter)
		}
		if err := m.measured.sleep(m.ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// between measures what happens while wait waits. What the questions about allocations cost is left out.
func (m *sending) between(wait func() error) (s sample, err error) {
	look := func(allocationsFirst bool) (at moment, err error) {
		count := func() error {
			var err error
			at.mallocs, at.allocBytes, err = allocations(m.ctx, m.debug)
			return err
		}
		if allocationsFirst {
			if err = count(); err != nil {
				return at, err
			}
		}
		if at.tally.Records, err = m.confirmed(); err != nil {
			return at, err
		}
		at.at = time.Now()
		if at.cpu, err = m.measured.cpu(); err != nil {
			return at, err
		}
		if !allocationsFirst {
			err = count()
		}
		return at, err
	}
	first, err := look(true)
	if err != nil {
		return s, err
	}
	if err := wait(); err != nil {
		return s, err
	}
	last, err := look(false)
	if err != nil {
		return s, err
	}
	n := last.tally.Records - first.tally.Records
	return sample{
		records: n, bytes: n * senderSize, cpu: last.cpu - first.cpu, wall: last.at.Sub(first.at),
		mallocs: last.mallocs - first.mallocs, allocBytes: last.allocBytes - first.allocBytes,
	}, nil
}

// report writes a table in Markdown: medians over the rounds.
func (p *alonePlan) report(w io.Writer, results map[string][]sample) {
	self, _ := os.Executable()
	fmt.Fprintf(w, "`go run ./tests/benchmark %s`: %s\n\n", strings.TrimSpace(p.arguments), machine(self))
	if p.length > 0 {
		fmt.Fprintf(w, "Medians of %d rounds of %s, after %s of warm-up; × is the median (lowest–highest) of the ratios within a round.\n\n", p.rounds, p.length, p.warmUp)
	} else {
		fmt.Fprintf(w, "A smoke run from start to end, start-up included: the figures mean nothing.\n\n")
	}
	fmt.Fprintln(w, "| messages | | messages per CPU-second | × client alone | × blocking Send | messages per second | × blocking Send | allocations per message | bytes allocated per message | peak RSS, MiB |")
	fmt.Fprintln(w, "|---|---|"+strings.Repeat("---:|", 8))
	blocking := results[wayGroups[0].name+wayGroups[0].ways[2].name]
	for _, group := range wayGroups {
		for _, x := range group.ways {
			samples := results[group.name+x.name]
			compare := func(to []sample, of func(sample) float64, self bool) string {
				var r []float64
				for i := range min(len(samples), len(to)) {
					if base := of(to[i]); base > 0 {
						r = append(r, of(samples[i])/base)
					}
				}
				if self || len(r) == 0 {
					return ""
				}
				return fmt.Sprintf("%.2f (%.2f–%.2f)", median(r), slices.Min(r), slices.Max(r))
			}
			fmt.Fprintf(w, "| %s | %s | %.0f | %s | %s | %.0f | %s | %.1f | %.0f | %.0f |\n", group.name, x.name,
				medianOf(samples, sample.perCPUSecond),
				compare(results[group.name+group.ways[1].name], sample.perCPUSecond, x.way == sendClient),
				compare(blocking, sample.perCPUSecond, x.way == sendBlocking),
				medianOf(samples, sample.perSecond),
				compare(blocking, sample.perSecond, x.way == sendBlocking),
				medianOf(samples, sample.mallocsPerRecord), medianOf(samples, sample.allocBytesPerRecord),
				medianOf(samples, func(s sample) float64 { return float64(s.peakRSS) / (1 << 20) }))
		}
	}
}

// serveSink is the process of the stand-in: a topic whose messages are counted and looked at. It lives until its input ends.
func serveSink(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet(roleSink, flag.ContinueOnError)
	delay := flags.Duration("receipts-after", 0, "")
	properties := flags.Bool("properties", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var messages, wrong atomic.Uint64
	b := pulsartest.NewBroker(pulsartest.ReceiptDelay(*delay), pulsartest.Sink(func(v *pulsartest.View) {
		messages.Add(1)
		found := 0
		for range v.Properties() {
			found++
		}
		if len(v.Payload) != senderSize || len(v.Key) == 0 || *properties != (found == len(propertyNames)) {
			wrong.Add(1)
		}
	}))
	defer b.Close()
	if err := b.CreatePartitionedTopic(topicName, partitions); err != nil {
		return err
	}
	answer := json.NewEncoder(out)
	if err := answer.Encode(b.URL()); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		t := tally{Records: messages.Load()}
		if n := wrong.Load(); n > 0 {
			t.Problems = append(t.Problems, fmt.Sprintf("%d messages are not what was sent", n))
		}
		for _, err := range b.Problems() {
			if len(t.Problems) < maxProblems {
				t.Problems = append(t.Problems, err.Error())
			}
		}
		if err := answer.Encode(t); err != nil {
			return err
		}
	}
	return nil
}
