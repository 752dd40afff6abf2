package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

// byDefault is the failover time that a user has who sets none.
const byDefault = 10 * time.Second

// figure skips what measures unless figures are asked for.
func figure(t *testing.T) {
	t.Helper()
	if !*figures {
		t.Skip("measured with -fleet.figures")
	}
}

// show prints a table: its columns are separated by tabs.
func show(t *testing.T, title string, rows ...string) {
	t.Helper()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, row)
	}
	_ = w.Flush() // into memory
	t.Logf("%s\n%s", title, b.String())
}

// How long after kill -9 the records of a worker's shards flow again.
func TestFigureFailover(t *testing.T) {
	figure(t)
	const kills = 10
	var rows []string
	for _, failover := range []time.Duration{byDefault, quick} {
		f := newFleet(t, settings{failover: failover, real: *full})
		f.startAll(3)
		f.begin(rate)
		f.awaitFair("from cold", f.living(), time.Now())
		ends := map[string]time.Time{}
		var all []takeover
		var slowest []time.Duration
		for n := range kills {
			time.Sleep(time.Duration(n) * failover / 3 / kills) // another phase of the scans each time
			victim := f.living()[0]
			victim.kill()
			end := time.Now()
			ends[victim.name] = end
			f.awaitOwned("killed", f.living(), end)
			f.arrived()
			of := f.takeovers(victim, end)
			all = append(all, of...)
			slowest = append(slowest, quantile(durations(of, func(t takeover) time.Duration { return t.fromEnd }), 1))
			f.start()
			f.awaitFair("another in its place", f.living(), time.Now())
		}
		f.load.stop()
		f.arrived()
		f.stopAll(f.living()...)
		a := f.balance(ends)
		rows = append(rows, fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%d of %d", failover, kills,
			summary(durations(all, func(t takeover) time.Duration { return t.fromEnd })), summary(slowest),
			summary(durations(all, func(t takeover) time.Duration { return t.fromRenewal })), a.repeated, a.records))
	}
	show(t, "kill -9 of one of three workers of 16 shards", append([]string{"failover\tkills\tkill to records, each shard\tkill to records, all shards\tlast renewal to records\trecords repeated"}, rows...)...)
}

// How long after SIGSTOP the records of a worker's shards flow again, and what it does when it goes on.
func TestFigurePause(t *testing.T) {
	figure(t)
	const pauses, long = 3, 30 * time.Second
	rows := []string{"stop to records, each shard\tlast renewal to records\trecords repeated\tmessages without a lease\tsent again by the client"}
	for n := range pauses {
		t.Run(fmt.Sprint(n+1), func(t *testing.T) {
			f := newFleet(t, settings{failover: byDefault, real: *full})
			f.startAll(3)
			f.begin(rate)
			f.awaitFair("from cold", f.living(), time.Now())
			victim := f.living()[0]
			victim.pause()
			end := time.Now()
			f.awaitOwned("paused", f.but(victim), end)
			f.arrived()
			all := f.takeovers(victim, end)
			time.Sleep(long - time.Since(end))
			victim.resume()
			f.awaitFair("it goes on", f.living(), time.Now())
			f.load.stop()
			f.arrived()
			f.stopAll(f.living()...)
			a := f.balance(map[string]time.Time{victim.name: end})
			rows = append(rows, fmt.Sprintf("%s\t%s\t%d of %d\t%d\t%d", summary(durations(all, func(t takeover) time.Duration { return t.fromEnd })),
				summary(durations(all, func(t takeover) time.Duration { return t.fromRenewal })), a.repeated, a.records, a.late, a.resent))
		})
	}
	show(t, fmt.Sprintf("SIGSTOP of one of three workers of 16 shards for %s, then SIGCONT, failover %s", long, byDefault), rows...)
}

// readers are both ways of reading.
var readers = []struct {
	name   string
	fanOut bool
}{{"polling", false}, {"fan-out", true}}

// gapsBy summarises the gaps that ended in one kind of tenure.
func gapsBy(gaps []gap, how beginning, what func(gap) time.Duration) string {
	return summary(durations(slices.DeleteFunc(slices.Clone(gaps), func(g gap) bool { return g.how != how }), what))
}

func tookOf(g gap) time.Duration  { return g.took }
func delayOf(g gap) time.Duration { return g.delay }

// What a hand-over costs: newcomers come one after the other, and are given their shares.
func TestFigureHandOver(t *testing.T) {
	figure(t)
	rows := []string{"reader\tgap\twithout a hand-over\tage of the first record behind it\tlast message to GIVE\tGIVE to the first KEEP\tfirst KEEP to the first message\trecords repeated"}
	for _, reader := range readers {
		t.Run(reader.name, func(t *testing.T) {
			f := newFleet(t, settings{failover: byDefault, fanOut: reader.fanOut, real: *full})
			f.startAll(1)
			f.begin(2 * rate)
			f.awaitFair("from cold", f.living(), time.Now())
			for range 5 {
				time.Sleep(byDefault)
				f.startAll(1)
				f.awaitFair("one more", f.living(), time.Now())
			}
			f.load.stop()
			f.arrived()
			f.stopAll(f.living()...)
			a := f.balance(nil)
			gaps, steady := f.gaps()
			rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%d of %d", reader.name, gapsBy(gaps, given, tookOf), summary(steady), gapsBy(gaps, given, delayOf),
				strings.Join(parts(gaps, given), "\t"), a.messages-a.records, a.records))
		})
	}
	show(t, fmt.Sprintf("hand-overs of single leases by ASK and GIVE, 16 shards, failover %s", byDefault), rows...)
}

// What a rolling restart costs: nothing may come twice, and a shard pauses when its lease is released by the old worker,
// and when it is given to balance the shares.
func TestFigureRollingRestart(t *testing.T) {
	figure(t)
	rows := []string{"reader\trestarts\tgap, released\tgap, given\twithout a hand-over\tstop\tfair shares after\trecords repeated"}
	for _, reader := range readers {
		t.Run(reader.name, func(t *testing.T) {
			f := newFleet(t, settings{failover: byDefault, fanOut: reader.fanOut, real: *full})
			f.startAll(3)
			f.begin(2 * rate)
			f.awaitFair("from cold", f.living(), time.Now())
			var fairAfter, stops []time.Duration
			for _, old := range f.living() {
				time.Sleep(byDefault) // as the health checks of a deployment would
				began := time.Now()
				stops = append(stops, old.stop())
				f.start()
				took, _ := f.awaitFair("restarted", f.living(), began)
				fairAfter = append(fairAfter, took)
			}
			f.load.stop()
			f.arrived()
			f.stopAll(f.living()...)
			a := f.balance(nil)
			gaps, steady := f.gaps()
			rows = append(rows, fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%s\t%s\t%d of %d", reader.name, len(stops), gapsBy(gaps, found, tookOf), gapsBy(gaps, given, tookOf),
				summary(steady), summary(stops), summary(fairAfter), a.messages-a.records, a.records))
		})
	}
	show(t, fmt.Sprintf("rolling restart of three workers of 16 shards, failover %s", byDefault), rows...)
}

// How many rounds of scans it takes to fair shares. A round is a third of the failover time; they are counted from the
// moment when the last of the newcomers had begun its first scan.
func TestFigureRounds(t *testing.T) {
	figure(t)
	rows := []string{"shards\tworkers\trounds\tfair after\tof these, the start of the process\tscans of the worker that made most"}
	for _, shards := range []int{16, 64} {
		t.Run(fmt.Sprint(shards), func(t *testing.T) {
			steps := [][]int{{1, 2, 2}, {3}, {5}}
			for _, adds := range steps {
				f := newFleet(t, settings{failover: byDefault, shards: shards})
				f.begin(rate)
				for _, add := range adds {
					was, began := len(f.workers), time.Now()
					newcomers := f.startAll(add)
					took, scanned := f.awaitFair("started", f.living(), began)
					joined := f.joined(newcomers).Sub(began)
					rows = append(rows, fmt.Sprintf("%d\t%d → %d\t%.1f\t%s\t%s\t%d", shards, was, len(f.workers), (took-joined).Seconds()/(byDefault.Seconds()/3), rounded(took), rounded(joined), scanned))
				}
				f.load.stop()
				f.arrived()
				f.stopAll(f.living()...)
				f.noneRepeated()
			}
		})
	}
	show(t, fmt.Sprintf("to fair shares, failover %s", byDefault), rows...)
}

// joined is when the last of the workers began its first scan.
func (f *fleet) joined(workers []*worker) (last time.Time) {
	first := map[string]time.Time{}
	for _, c := range f.ledger.all() {
		if at, there := first[c.worker]; c.operation == "Scan" && (!there || c.sent.Before(at)) {
			first[c.worker] = c.sent
		}
	}
	for _, w := range workers {
		if first[w.name].After(last) {
			last = first[w.name]
		}
	}
	return last
}

// What DynamoDB is asked for.
func TestFigureCost(t *testing.T) {
	figure(t)
	const measured = 20 * time.Second
	rows := []string{"workers\tshards\tload\trequests per lease and s\tcapacity units per lease and s\tof these, by operation"}
	for _, workers := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			f := newFleet(t, settings{failover: byDefault, standIn: true})
			f.startAll(workers)
			f.awaitFair("from cold", f.living(), time.Now())
			for _, load := range []int{0, rate} {
				if load > 0 {
					f.begin(load)
				}
				time.Sleep(byDefault / 2)
				f.reset()
				time.Sleep(measured)
				rows = append(rows, fmt.Sprintf("%d\t%d\t%d/s\t%s", workers, f.settings.shards, load, cost(f.counts(), float64(f.settings.shards)*measured.Seconds())))
			}
			f.load.stop()
			f.arrived()
			f.stopAll(f.living()...)
			f.noneRepeated()
		})
	}
	show(t, fmt.Sprintf("DynamoDB, failover %s; renewals alone are %.3f", byDefault, 3/byDefault.Seconds()), rows...)
}

// cost sums counts up per lease and second.
func cost(counts map[string]dynamotest.Count, leaseSeconds float64) string {
	requests, units := 0, 0.0
	var parts []string
	for _, operation := range slices.Sorted(maps.Keys(counts)) {
		c := counts[operation]
		requests += c.Requests
		units += c.CapacityUnits
		parts = append(parts, fmt.Sprintf("%s %.4f", operation, c.CapacityUnits/leaseSeconds))
	}
	return fmt.Sprintf("%.4f\t%.4f\t%s", float64(requests)/leaseSeconds, units/leaseSeconds, strings.Join(parts, ", "))
}
