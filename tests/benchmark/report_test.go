package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestMedianAndRatios(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
	}
	fast := []sample{{records: 300, cpu: time.Second}, {records: 100, cpu: time.Second}}
	slow := []sample{{records: 100, cpu: time.Second}, {records: 200, cpu: time.Second}, {records: 1, cpu: time.Second}}
	if got := ratios(fast, slow); len(got) != 2 || got[0] != 3 || got[1] != 0.5 {
		t.Errorf("ratios %v, want each round by itself: [3 0.5]", got)
	}
	if got := ratios(fast, []sample{{}, {}}); len(got) != 0 {
		t.Errorf("ratios to nothing: %v", got)
	}
}

func TestReportHasARowForEachContenderThatRan(t *testing.T) {
	p := &plan{
		cases: []testCase{{name: "small"}, {name: "large", pipelineOnly: true}}, rounds: 1, length: time.Second,
		contenders: []contender{{name: "pipeline"}, {name: "bare", kind: bareKind}},
	}
	var b bytes.Buffer
	writeReport(&b, p, result{
		"small": {"pipeline": {{records: 200, bytes: 3 << 20, cpu: time.Second, wall: 2 * time.Second, mallocs: 600, allocBytes: 800, peakRSS: 5 << 20}}, "bare": {{records: 100, cpu: time.Second}}},
		"large": {"pipeline": {{peakRSS: 7 << 20}}},
	})
	for _, want := range []string{
		"| small | pipeline | 200 | 2.00 (2.00–2.00) | 3.0 | 4 | 100 | 2 | 0.50 | 5 |\n",
		"| small | bare | 100 | | 0.0 |",
		"| large | pipeline | 0 | | 0.0 | 0 | 0 | 0 | 0.00 | 7 |\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &b)
		}
	}
	if strings.Contains(b.String(), "large | bare") {
		t.Errorf("a row for a contender that did not run:\n%s", &b)
	}
}

func TestReadingWhatLinuxTellsOfAProcess(t *testing.T) {
	cpu, err := parseCPU("4711 (a) b (c)) S 1 2 3 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 8 0 99 1 2")
	if err != nil || cpu != 1750*time.Millisecond {
		t.Errorf("CPU time %v, %v, want 1.75s", cpu, err)
	}
	if _, err := parseCPU("4711 (x) S 1"); err == nil {
		t.Error("a short stat is no error")
	}
	peak, err := parsePeak("Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n")
	if err != nil || peak != 2<<20 {
		t.Errorf("peak %d, %v, want 2 MiB", peak, err)
	}
	if _, err := parsePeak("Name:\tx\n"); err == nil {
		t.Error("a status without VmHWM is no error")
	}
	mallocs, total, err := parseMemStats(strings.NewReader("heap profile: 1: 2\n# runtime.MemStats\n# Alloc = 5\n# TotalAlloc = 77\n# Mallocs = 42\n# Frees = 1\n"))
	if err != nil || mallocs != 42 || total != 77 {
		t.Errorf("%d mallocs of %d bytes, %v, want 42 of 77", mallocs, total, err)
	}
	if _, _, err := parseMemStats(strings.NewReader("# Mallocs = 42\n")); err == nil {
		t.Error("a profile without TotalAlloc is no error")
	}
}
