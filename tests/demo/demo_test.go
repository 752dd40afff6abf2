package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

func TestMain(m *testing.M) {
	pulsartest.VerifyTestMain(cleaned{m})
}

// cleaned closes the connections on which /ready was asked, and removes the binary.
type cleaned struct{ m *testing.M }

func (c cleaned) Run() int {
	defer func() {
		http.DefaultClient.CloseIdleConnections()
		if binary.dir != "" {
			_ = os.RemoveAll(binary.dir)
		}
	}()
	return c.m.Run()
}

var binary struct {
	once      sync.Once
	dir, path string
	err       error
}

// builtBinary builds the binary once for all tests: linking it is most of what they do.
func builtBinary(t *testing.T) string {
	t.Helper()
	binary.once.Do(func() {
		var root string
		if root, binary.err = moduleRoot(context.Background()); binary.err != nil {
			return
		}
		if binary.dir, binary.err = os.MkdirTemp("", "kinesis-pulsar-demo-test-"); binary.err == nil {
			binary.path, binary.err = build(context.Background(), root, binary.dir)
		}
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return binary.path
}

// The demo in small, with the stand-ins: it balances, and the same evidence with one message less does not.
func TestTheDemoBalancesAndWouldSeeALoss(t *testing.T) {
	s, err := parse([]string{"-services", "embedded", "-records", "3000", "-shards", "2", "-rate", "1500", "-size", "200"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	s.binary = builtBinary(t)
	var text bytes.Buffer
	out := &screen{began: time.Now()}
	out.mu.out = &text
	services, pipe, err := setUp(t.Context(), s, t.TempDir(), out)
	if err != nil {
		t.Fatal(err)
	}
	defer services.close()
	d := &demo{settings: s, services: services, pipe: pipe, out: out}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	e, err := d.tell(ctx)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, text.String(), pipe.logTail())
	}
	a := settle(e)
	t.Log("\n" + text.String() + strings.Join(a.lines(), "\n"))
	if len(a.Findings) > 0 || a.Records != 3000 || len(e.Kills) != 1 {
		t.Fatal(a.lines())
	}
	for partition, messages := range e.Messages {
		if len(messages) == 0 {
			t.Fatalf("partition %d got nothing", partition)
		}
	}
	last := len(e.Messages[0]) - 1
	e.Messages[0] = e.Messages[0][:last]
	if a := settle(e); len(a.Findings) == 0 {
		t.Fatal("a message less, and it balances")
	}
}

func TestAnInterruptLeavesNothingBehind(t *testing.T) {
	built := builtBinary(t)
	t.Setenv("TMPDIR", t.TempDir())
	s, err := parse([]string{"-services", "embedded", "-records", "100000"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	s.binary = built
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		defer read.Close()
		var seen []byte
		for buf := make([]byte, 4096); ; {
			n, err := read.Read(buf)
			if seen = append(seen, buf[:n]...); bytes.Contains(seen, []byte("process 1")) {
				interrupt()
			}
			if err != nil {
				return
			}
		}
	}()
	if err := run(ctx, s, newScreen(write)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "kinesis-pulsar-*"))
	if err != nil || len(left) > 0 {
		t.Fatal(left, err)
	}
}

func TestFlagsAreCheckedBeforeAnythingStarts(t *testing.T) {
	for _, tc := range []struct {
		args string
		want string
	}{
		{"-records 0", "-records"},
		{"-shards 0", "-shards"},
		{"-shards 2000", "-shards"},
		{"-size -1", "-size"},
		{"-size 2000000", "-size"},
		{"-rate -5", "-rate"},
		{"-rate 5000", "Kinesis takes 4000 records of 1024 bytes a second on 4 shards"},
		{"-rate 500 -size 10240", "Kinesis takes 410 records"},
		{"-services docker", "auto, real or embedded"},
		{"now", `"now" is no flag`},
		{"-kill now", `"now" is no flag`},
	} {
		if _, err := parse(strings.Fields(tc.args), io.Discard); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.args, err)
		}
	}
	var help bytes.Buffer
	if _, err := parse([]string{"-h"}, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "-records") || !strings.Contains(help.String(), "Exit code 0") {
		t.Error(err, help.String())
	}
	if s, err := parse(nil, io.Discard); err != nil || s.rate != 3000 || !s.kill || s.flow() != 20*time.Second {
		t.Errorf("%+v %v", s, err)
	}
	if s, err := parse([]string{"-shards", "1", "-size", "0"}, io.Discard); err != nil || s.rate != 750 {
		t.Errorf("%+v %v", s, err)
	}
}

func TestPayloadsHoldWhatBreaksConnectors(t *testing.T) {
	var empty, zipped, large, texts int
	values := map[byte]bool{}
	total := 0
	for n := range 1000 {
		data := payload(n, 1024)
		total += len(data)
		switch {
		case len(data) == 0:
			empty++
		case len(data) > 8000:
			large++
		case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
			zipped++
		case bytes.HasPrefix(data, []byte(`{"order":`)):
			texts++
		}
		for _, b := range data {
			values[b] = true
		}
	}
	if empty == 0 || zipped == 0 || large == 0 || texts == 0 || len(values) != 256 {
		t.Fatalf("%d empty, %d zipped, %d large, %d texts, %d values of a byte", empty, zipped, large, texts, len(values))
	}
	// The flags' bounds on the rate count with the size as the mean.
	if mean := total / 1000; mean > 1024 {
		t.Fatalf("mean size %d", mean)
	}
	for _, size := range []int{0, 1, 10, maxPayload} {
		for _, n := range []int{0, 1, 3, 4, 99} { // one of each kind
			if got := len(payload(n, size)); got > max(maxPayload, 100) {
				t.Fatalf("%d bytes", got)
			}
		}
	}
}

func TestStatusJoinsTheStreamTheTopicAndTheLeases(t *testing.T) {
	k := kinesistest.NewServer()
	defer k.Close()
	if err := k.CreateStream(streamName, 2); err != nil {
		t.Fatal(err)
	}
	l := newLedger(k.Shards(streamName))
	if err := produce(t.Context(), k, 40, 64, 4000, l.put); err != nil {
		t.Fatal(err)
	}
	records := k.Records(streamName)
	a, b := records[shardA], records[shardB]
	l.arrived(of(a[0]))
	l.arrived(of(a[1]))
	l.arrived(of(a[1]))
	s := l.status(map[string]lease{shardA: {Owner: "me", Checkpoint: a[1].SequenceNumber}, shardB: {Checkpoint: "TRIM_HORIZON"}})
	if s.Put != 40 || s.Delivered != 2 || s.behind() != 38 || s.checkpointed() != 2 || len(s.owners()) != 1 || s.Shards[1].Put != len(b) || s.Shards[1].Checkpoint != 0 {
		t.Fatalf("%+v", s)
	}
	var workers names
	table := s.table(40, 1.5, &workers)
	if len(table) != 3 || !strings.Contains(table[1], "process 1") || !strings.Contains(table[2], "nobody") {
		t.Fatal(strings.Join(table, "\n"))
	}
}

func TestThePictureIsRedrawnBelowTheSentences(t *testing.T) {
	var out bytes.Buffer
	s := &screen{began: time.Now(), width: func() int { return 30 }}
	s.mu.out = &out
	s.progress([]string{"first", "a line that is much too long for this terminal"}, "")
	out.Reset()
	s.say("a sentence")
	text := out.String()
	if !strings.HasPrefix(text, "\x1b[2A\x1b[J") || strings.Index(text, "a sentence") > strings.Index(text, "first") {
		t.Fatalf("%q", text)
	}
	for line := range strings.Lines(text[strings.Index(text, "first"):]) {
		if len(line) > 30 {
			t.Fatalf("%q wraps", line)
		}
	}
	s.settle()
	out.Reset()
	s.progress([]string{"next"}, "")
	if strings.Contains(out.String(), "\x1b") {
		t.Fatalf("%q erases what should stay", out.String())
	}
}

func TestNumbersAreGrouped(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}
