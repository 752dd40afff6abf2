package main

import (
	"bufio"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
)

// median of an even number of values is the mean of the middle two; of none 0.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func medianOf(samples []sample, of func(sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	return median(values)
}

// ratios compares two contenders round by round.
func ratios(of, to []sample) []float64 {
	var out []float64
	for i := range min(len(of), len(to)) {
		if base := to[i].perCPUSecond(); base > 0 {
			out = append(out, of[i].perCPUSecond()/base)
		}
	}
	return out
}

// writeReport writes a table in Markdown: medians over the rounds.
func writeReport(w io.Writer, p *plan, results result) {
	fmt.Fprintf(w, "`go run ./tests/benchmark%s`: %s\n\n", strings.TrimRight(" "+p.arguments, " "), machine(p.contenders[0].binary))
	if p.length > 0 {
		fmt.Fprintf(w, "Medians of %d rounds of %s, after %s of warm-up; × is the median (lowest–highest) of the ratios within a round.\n\n", p.rounds, p.length, p.warmUp)
	} else {
		fmt.Fprintf(w, "A smoke run from start to end, start-up included: the figures mean nothing, but every record arrived in order.\n\n")
	}
	var bases []contender
	for _, x := range p.contenders {
		if x.kind == bareKind {
			bases = append(bases, x)
		}
	}
	fmt.Fprint(w, "| case | | records per CPU-second |")
	for _, base := range bases {
		fmt.Fprintf(w, " × %s |", base.name)
	}
	fmt.Fprint(w, " allocations per record | bytes allocated per record | records per second | MiB/s | cores | peak RSS, MiB |\n")
	fmt.Fprintln(w, "|---|---|"+strings.Repeat("---:|", 7+len(bases)))
	for _, c := range p.cases {
		for _, x := range p.contenders {
			samples := results[c.name][x.name]
			if len(samples) == 0 {
				continue
			}
			fmt.Fprintf(w, "| %s | %s | %.0f |", c.name, x.name, medianOf(samples, sample.perCPUSecond))
			for _, base := range bases {
				r := ratios(samples, results[c.name][base.name])
				if len(r) == 0 || x.name == base.name {
					fmt.Fprint(w, " |")
					continue
				}
				fmt.Fprintf(w, " %.2f (%.2f–%.2f) |", median(r), slices.Min(r), slices.Max(r))
			}
			fmt.Fprintf(w, " %.1f | %.0f | %.0f | %.0f | %.2f | %.0f |\n",
				medianOf(samples, sample.mallocsPerRecord), medianOf(samples, sample.allocBytesPerRecord), medianOf(samples, sample.perSecond),
				medianOf(samples, sample.mibPerSecond), medianOf(samples, sample.cores),
				medianOf(samples, func(s sample) float64 { return float64(s.peakRSS) / (1 << 20) }))
		}
	}
}

// machine tells what the figures were measured on and with: the versions are those in the binary.
func machine(binary string) string {
	parts := []string{fmt.Sprintf("%d × %s", runtime.NumCPU(), processor()), runtime.GOOS + "/" + runtime.GOARCH, runtime.Version()}
	if info, err := buildinfo.ReadFile(binary); err == nil {
		for _, m := range info.Deps {
			for _, name := range []string{"github.com/redpanda-data/benthos/v4", "github.com/aws/aws-sdk-go-v2/service/kinesis", "github.com/apache/pulsar-client-go"} {
				if m.Path == name {
					parts = append(parts, strings.TrimPrefix(name, "github.com/")+" "+m.Version)
				}
			}
		}
	}
	return strings.Join(parts, ", ")
}

func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "CPU"
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return "CPU"
}
