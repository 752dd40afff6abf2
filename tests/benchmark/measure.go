package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

// sample is one measurement: what happened between two moments of a running process, and its peak of memory.
type sample struct {
	records    uint64
	bytes      uint64 // of payload
	cpu        time.Duration
	wall       time.Duration
	mallocs    uint64
	allocBytes uint64
	peakRSS    uint64 // bytes, since the start of the process
}

// perCPUSecond is 0 when nothing was measured.
func (s sample) perCPUSecond() float64 { return ratio(float64(s.records), s.cpu.Seconds()) }

func (s sample) perSecond() float64 { return ratio(float64(s.records), s.wall.Seconds()) }

// mibPerSecond is of payload.
func (s sample) mibPerSecond() float64 { return ratio(float64(s.bytes)/(1<<20), s.wall.Seconds()) }

func (s sample) mallocsPerRecord() float64 { return ratio(float64(s.mallocs), float64(s.records)) }

func (s sample) allocBytesPerRecord() float64 {
	return ratio(float64(s.allocBytes), float64(s.records))
}

// cores is how many processors the process kept busy.
func (s sample) cores() float64 { return ratio(s.cpu.Seconds(), s.wall.Seconds()) }

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func (s sample) String() string {
	return fmt.Sprintf("%d records, %.0f a CPU-second, %.0f MiB/s on %.2f cores, %.1f allocations and %.0f bytes a record, peak RSS %d MiB",
		s.records, s.perCPUSecond(), s.mibPerSecond(), s.cores(), s.mallocsPerRecord(), s.allocBytesPerRecord(), s.peakRSS>>20)
}

// stuckAfter is how long nothing may arrive.
const stuckAfter = 30 * time.Second

// one measures a contender once, with processes of its own.
func (p *plan) one(ctx context.Context, c testCase, x contender, round int) (s sample, err error) {
	standIns, at, err := p.startStandIns(c, x)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, standIns.stop()) }()
	measured, debug, err := p.startContender(c, x, at)
	if err != nil {
		return s, err
	}
	stopped := false
	defer func() {
		if !stopped {
			_ = measured.stop()
		}
	}()

	total := c.perShard * uint64(c.shards)
	m := &measuring{ctx: ctx, standIns: standIns, measured: measured, debug: debug}
	if total > 0 {
		// Few records: from the beginning to the end, start-up included.
		s, err = m.between(func() error { return m.await(total) })
	} else {
		if err = m.await(1); err == nil {
			err = measured.sleep(ctx, p.warmUp)
		}
		if err == nil {
			finish := p.profile(ctx, debug, fmt.Sprintf("%s, %s, round %d", c.name, x.name, round+1))
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
	stopped = true
	if err := measured.stop(); err != nil {
		return s, err
	}
	return s, verify(c, x, standIns)
}

func (p *plan) startStandIns(c testCase, x contender) (*process, addresses, error) {
	var at addresses
	self, err := os.Executable()
	if err != nil {
		return nil, at, err
	}
	standIns, err := start(exec.Command(self, roleStandIns,
		"-shards="+strconv.Itoa(c.shards), "-record-size="+strconv.Itoa(c.recordSize), "-partitions="+strconv.Itoa(c.partitions),
		"-per-shard="+strconv.FormatUint(c.perShard, 10), "-sink-rate="+strconv.Itoa(c.sinkRate),
		"-fan-out="+strconv.FormatBool(c.fanOut),
		"-properties="+strconv.FormatBool(x.properties || x.kind == pipelineKind),
	), filepath.Join(p.dir, "stand-ins.log"), true)
	if err != nil {
		return nil, at, err
	}
	if err := standIns.read(&at); err != nil {
		return nil, at, errors.Join(err, standIns.stop())
	}
	return standIns, at, nil
}

// startContender returns the process and the base of its debug endpoints.
func (p *plan) startContender(c testCase, x contender, at addresses) (*process, string, error) {
	log := filepath.Join(p.dir, "measured.log")
	environment := os.Environ()
	if at.Authority != "" {
		bundle := filepath.Join(p.dir, "authority.pem")
		if err := os.WriteFile(bundle, []byte(at.Authority), 0o600); err != nil {
			return nil, "", err
		}
		environment = append(environment, "AWS_CA_BUNDLE="+bundle)
	}
	if x.kind == bareKind {
		self, err := os.Executable()
		if err != nil {
			return nil, "", err
		}
		command := exec.Command(self, roleBareLoop, "-kinesis="+at.Kinesis, "-pulsar="+at.Pulsar,
			"-properties="+strconv.FormatBool(x.properties), "-fan-out="+strconv.FormatBool(c.fanOut))
		command.Env = environment
		measured, err := start(command, log, true)
		if err != nil {
			return nil, "", err
		}
		var debug string
		if err := measured.read(&debug); err != nil {
			return nil, "", errors.Join(err, measured.stop())
		}
		return measured, debug, nil
	}
	debug, _, err := stack.LeaseAddress() // for as long as the benchmark takes
	if err != nil {
		return nil, "", err
	}
	config := filepath.Join(p.dir, "pipeline.yaml")
	if err := os.WriteFile(config, []byte(pipelineConfig(c, x, at, debug)), 0o600); err != nil {
		return nil, "", err
	}
	command := exec.Command(x.binary, "run", config)
	command.Env = environment
	measured, err := start(command, log, false)
	return measured, "http://" + debug, err
}

// pipelineConfig is what a user would write, and what a stand-in asks for: endpoints, and no pacing of reads, which
// otherwise would be all that is measured.
func pipelineConfig(c testCase, x contender, at addresses, debug string) string {
	b := &strings.Builder{}
	fmt.Fprintf(b, `http:
  address: %s
  debug_endpoints: true
input:
  kinesis_pulsar:
    awsKinesisStreamName: %s
    awsRegion: us-east-1
    awsEndpoint: %s
    dynamoEndpoint: %s
    awsCredentialPluginParam: '{"accessKey":"benchmark","secretKey":"benchmark"}'
    applicationName: %s
    initialPositionInStream: TRIM_HORIZON
    useEnhancedFanOut: %t
    idleTimeBetweenReadsInMillis: 0
`, debug, streamName, at.Kinesis, at.DynamoDB, tableName, c.fanOut)
	for _, field := range x.input {
		name, value, _ := strings.Cut(field, "=")
		fmt.Fprintf(b, "    %s: %s\n", name, value)
	}
	fmt.Fprintf(b, `output:
  pulsar:
    url: %s
    topic: %s
    compression: none
`, at.Pulsar, topicName)
	return b.String()
}

// measuring is a run under way.
type measuring struct {
	ctx                context.Context
	standIns, measured *process
	debug              string
}

// await returns when that many records have arrived.
func (m *measuring) await(records uint64) error {
	last, since := uint64(0), time.Now()
	for {
		var t tally
		if err := m.standIns.ask(askTally, &t); err != nil {
			return err
		}
		if t.Records >= records || len(t.Problems) > 0 {
			return nil // verify tells about the problems
		}
		if t.Records > last {
			last, since = t.Records, time.Now()
		} else if time.Since(since) > stuckAfter {
			return fmt.Errorf("%d records have arrived, and none for %s", t.Records, stuckAfter)
		}
		if err := m.measured.sleep(m.ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// between measures what happens while wait waits. What the questions about allocations cost is left out.
func (m *measuring) between(wait func() error) (sample, error) {
	var s sample
	first, err := m.look(true)
	if err != nil {
		return s, err
	}
	if err := wait(); err != nil {
		return s, err
	}
	last, err := m.look(false)
	if err != nil {
		return s, err
	}
	return sample{
		records: last.tally.Records - first.tally.Records,
		bytes:   last.tally.Bytes - first.tally.Bytes,
		cpu:     last.cpu - first.cpu,
		wall:    last.at.Sub(first.at),
		mallocs: last.mallocs - first.mallocs, allocBytes: last.allocBytes - first.allocBytes,
	}, nil
}

// moment is the state of a run at one time.
type moment struct {
	at                  time.Time
	tally               tally
	cpu                 time.Duration
	mallocs, allocBytes uint64
}

// look asks for allocations first or last, so that the answering lies outside the measurement.
func (m *measuring) look(allocationsFirst bool) (at moment, err error) {
	if allocationsFirst {
		if at.mallocs, at.allocBytes, err = allocations(m.ctx, m.debug); err != nil {
			return at, m.measured.failure(err)
		}
	}
	if err := m.standIns.ask(askTally, &at.tally); err != nil {
		return at, err
	}
	at.at = time.Now()
	if at.cpu, err = m.measured.cpu(); err != nil {
		return at, m.measured.failure(err)
	}
	if !allocationsFirst {
		if at.mallocs, at.allocBytes, err = allocations(m.ctx, m.debug); err != nil {
			return at, m.measured.failure(err)
		}
	}
	return at, nil
}

// allocations asks a Go process how often and how much it has allocated. It tries for a while: the process may be
// starting.
func allocations(ctx context.Context, debug string) (mallocs, bytes uint64, err error) {
	for deadline := time.Now().Add(10 * time.Second); ; {
		var body io.ReadCloser
		if body, err = get(ctx, debug+"/debug/pprof/allocs?debug=1"); err == nil {
			defer body.Close()
			return parseMemStats(body)
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return 0, 0, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func get(ctx context.Context, url string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return response.Body, nil
}

// parseMemStats finds the process's counters in the text form of an allocation profile.
func parseMemStats(profile io.Reader) (mallocs, bytes uint64, err error) {
	found := 0
	lines := bufio.NewScanner(profile)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		for name, to := range map[string]*uint64{"# Mallocs = ": &mallocs, "# TotalAlloc = ": &bytes} {
			if value, ok := strings.CutPrefix(lines.Text(), name); ok {
				if *to, err = strconv.ParseUint(strings.TrimSpace(value), 10, 64); err != nil {
					return 0, 0, err
				}
				found++
			}
		}
	}
	if err := lines.Err(); err != nil {
		return 0, 0, err
	}
	if found != 2 {
		return 0, 0, errors.New("the allocation profile does not name Mallocs and TotalAlloc")
	}
	return mallocs, bytes, nil
}

// profile writes profiles of the time until finish is called, if any are wanted.
func (p *plan) profile(ctx context.Context, debug, name string) (finish func() error) {
	if p.profiles == "" {
		return func() error { return nil }
	}
	base := filepath.Join(p.profiles, strings.NewReplacer(" ", "_", ",", "", "+", "and").Replace(name))
	done := make(chan error, 1)
	go func() {
		seconds := max(1, int(p.length.Seconds())-1)
		done <- save(ctx, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", debug, seconds), base+".cpu.pprof")
	}()
	return func() error {
		return errors.Join(<-done, save(ctx, debug+"/debug/pprof/allocs", base+".allocs.pprof"), save(ctx, debug+"/debug/pprof/heap", base+".heap.pprof"))
	}
}

func save(ctx context.Context, url, path string) error {
	body, err := get(ctx, url)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, body)
	return errors.Join(err, file.Close())
}

// verify is the account of a run that has ended.
func verify(c testCase, x contender, standIns *process) error {
	var t tally
	if err := standIns.ask(askTally, &t); err != nil {
		return err
	}
	if len(t.Problems) > 0 {
		return fmt.Errorf("the sink found: %s", strings.Join(t.Problems, "; "))
	}
	if t.Duplicates > 0 {
		return fmt.Errorf("%d records came twice", t.Duplicates)
	}
	if total := c.perShard * uint64(c.shards); total > 0 && t.Records != total {
		return fmt.Errorf("%d of %d records have arrived", t.Records, total)
	}
	if x.kind != pipelineKind {
		return nil
	}
	// Without leases and checkpoints it would not be what a user runs.
	var leases map[string]string
	if err := standIns.ask(askLeases, &leases); err != nil {
		return err
	}
	moved := 0
	for _, checkpoint := range leases {
		if checkpoint != "" && checkpoint[0] >= '0' && checkpoint[0] <= '9' {
			moved++
		}
	}
	if moved != c.shards {
		return fmt.Errorf("%d of %d shards have a checkpoint: %v", moved, c.shards, leases)
	}
	return nil
}
