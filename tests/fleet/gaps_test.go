package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// gap is the time for which nothing of a shard was published while it changed hands.
type gap struct {
	took        time.Duration
	delay       time.Duration // how old the first record was that was published after it
	tenure                    // in which it ended
	last, first time.Time     // messages before and after it
}

// gapsOf finds in each shard the messages that come from another worker than the one before. The pause between reads and
// the load's own pauses are part of a gap: steady, from one message to the next, shows them alone.
func gapsOf(records map[string][]kinesistest.Record, messages []message, h history) (gaps []gap, steady []time.Duration) {
	arrivals, shards := map[name]time.Time{}, map[name]string{}
	for shard, list := range records {
		for _, r := range list {
			arrivals[nameOf(r)], shards[nameOf(r)] = r.Arrival, shard
		}
	}
	byShard := map[string][]message{}
	seen := map[name]bool{}
	for _, m := range messages {
		if shard := shards[m.name]; shard != "" && !seen[m.name] {
			seen[m.name] = true
			byShard[shard] = append(byShard[shard], m)
		}
	}
	for shard, list := range byShard {
		// The partitions of a shard's messages have no common order but this.
		slices.SortStableFunc(list, func(a, b message) int { return a.published.Compare(b.published) })
		for i := 1; i < len(list); i++ {
			was, is := list[i-1], list[i]
			took := is.published.Sub(was.published)
			if was.worker == is.worker {
				if took > 0 { // else they came in one read
					steady = append(steady, took)
				}
				continue
			}
			g := gap{took: took, delay: is.published.Sub(arrivals[is.name]), last: was.published, first: is.published}
			for _, t := range h.tenures[shard] {
				if t.worker == is.worker && !t.began.After(is.published.Add(clockStep)) {
					g.tenure = t
				}
			}
			gaps = append(gaps, g)
		}
	}
	return gaps, steady
}

func (f *fleet) gaps() (gaps []gap, steady []time.Duration) {
	return gapsOf(f.kinesis.Records(streamName), f.topic.messages(), f.history())
}

// logGaps tells the gaps of a story.
func (f *fleet) logGaps() {
	f.t.Helper()
	gaps, steady := f.gaps()
	f.t.Logf("from message to message of a shard: %s", summary(steady))
	for how, text := range map[beginning]string{found: "released and found", given: "given", forced: "taken by force"} {
		var took []time.Duration
		for _, g := range gaps {
			if g.how == how {
				took = append(took, g.took)
			}
		}
		if len(took) > 0 {
			f.t.Logf("gaps of leases %s: %s", text, summary(took))
			f.t.Logf("  of these: %s", strings.Join(parts(gaps, how), ", then "))
		}
	}
}

// takeover is a lease of a worker that ended, and how it went on.
type takeover struct {
	shard string
	// fromEnd is the time from the end of the worker to the first message by another, fromRenewal that from the
	// last renewal.
	fromEnd, fromRenewal time.Duration
}

// takeovers are those of the leases that a worker had when it ended.
func (f *fleet) takeovers(victim *worker, end time.Time) (list []takeover) {
	f.t.Helper()
	shards := map[name]string{}
	for shard, records := range f.kinesis.Records(streamName) {
		for _, r := range records {
			shards[nameOf(r)] = shard
		}
	}
	first := map[string]time.Time{}
	for _, m := range f.topic.messages() {
		shard := shards[m.name]
		if m.worker != victim.name && m.published.After(end) && (first[shard].IsZero() || m.published.Before(first[shard])) {
			first[shard] = m.published
		}
	}
	for shard, tenures := range f.history().tenures {
		for _, t := range tenures {
			if t.worker == victim.name && t.over == robbed && t.ended.After(end) {
				list = append(list, takeover{shard, first[shard].Sub(end), first[shard].Sub(t.renewed)})
			}
		}
	}
	return list
}

func durations[T any](list []T, of func(T) time.Duration) (all []time.Duration) {
	for _, x := range list {
		all = append(all, of(x))
	}
	return all
}

// parts says where the time of gaps goes: from the last message to the write that passed the lease on, from there to the
// new owner's first renewal, and from there to its first message. Who takes a lease may read before it renews.
func parts(gaps []gap, how beginning) []string {
	of := slices.DeleteFunc(slices.Clone(gaps), func(g gap) bool { return g.how != how || g.kept.IsZero() })
	part := func(from, to func(gap) time.Time) string {
		return summary(durations(of, func(g gap) time.Duration { return max(0, to(g).Sub(from(g))) }))
	}
	last, first := func(g gap) time.Time { return g.last }, func(g gap) time.Time { return g.first }
	handed, kept := func(g gap) time.Time { return g.handed }, func(g gap) time.Time { return g.kept }
	if how != given {
		return []string{part(last, handed), part(handed, first)}
	}
	return []string{part(last, handed), part(handed, kept), part(kept, first)}
}

// summary is the middle and the end of a list of times.
func summary(list []time.Duration) string {
	if len(list) == 0 {
		return "none"
	}
	return fmt.Sprintf("p50 %s, p99 %s, max %s of %d", rounded(quantile(list, 0.5)), rounded(quantile(list, 0.99)), rounded(quantile(list, 1)), len(list))
}

func rounded(d time.Duration) time.Duration {
	if d > 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}

// quantile is 0 for an empty list.
func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
