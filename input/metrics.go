package input

import (
	"slices"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/forget"
)

// metrics are those that Benthos does not keep for every input. They are by stream, not by shard: shards come and go with
// every reshard and hand-over, and what a dashboard asks is how far behind the stream is; the leases command tells of single
// shards. The label is kinesis_stream, since Benthos' own label stream is the id in streams mode.
//
// Counters are touched once for each read or batch. Gauges are set once a second by the worker's monitor, from nothing but what
// it holds then, so none outlives its shard; when the input closes they are taken back.
type metrics struct {
	stream string

	records, bytes, replayed, throttled *service.MetricCounter
	subscriptions                       *service.MetricCounter
	taken, given, lost                  *service.MetricCounter

	lag, checkpointAge, held, workers, inFlight, buffered *service.MetricGauge
	blocked                                               *service.MetricGauge

	mu struct {
		sync.Mutex
		stats       lease.Stats // as counted last
		subscribed  int64
		everBlocked map[cause]bool
	}
}

func newMetrics(m *service.Metrics, stream string) *metrics {
	const label = "kinesis_stream"
	made := &metrics{
		stream:        stream,
		records:       m.NewCounter("kinesis_records_received", label),
		bytes:         m.NewCounter("kinesis_bytes_received", label),
		replayed:      m.NewCounter("kinesis_records_replayed", label),
		throttled:     m.NewCounter("kinesis_reads_throttled", label),
		subscriptions: m.NewCounter("kinesis_subscriptions", label),
		taken:         m.NewCounter("kinesis_leases_taken", label),
		given:         m.NewCounter("kinesis_leases_given", label),
		lost:          m.NewCounter("kinesis_leases_lost", label),
		lag:           m.NewGauge("kinesis_lag_milliseconds", label),
		checkpointAge: m.NewGauge("kinesis_checkpoint_age_milliseconds", label),
		held:          m.NewGauge("kinesis_leases_held", label),
		workers:       m.NewGauge("kinesis_workers", label),
		inFlight:      m.NewGauge("kinesis_records_in_flight", label),
		buffered:      m.NewGauge("kinesis_buffered_bytes", label),
		blocked:       m.NewGauge("kinesis_shards_blocked", label, "cause"),
	}
	made.mu.everBlocked = map[cause]bool{}
	// A counter that only appears with its first step hides that step from Prometheus' increase.
	for _, c := range []*service.MetricCounter{made.records, made.bytes, made.replayed, made.throttled, made.subscriptions, made.taken, made.given, made.lost} {
		c.Incr(0, stream)
	}
	return made
}

// received counts what a read brought.
func (m *metrics) received(records int, bytes int64) {
	if records > 0 {
		m.records.Incr(int64(records), m.stream)
		m.bytes.Incr(bytes, m.stream)
	}
}

// gauges are what the gauges of a worker show.
type gauges struct {
	standing
	workers       int
	lag           time.Duration
	checkpointAge time.Duration
	inFlight      int
	buffered      int64
}

// show sets the gauges.
func (m *metrics) show(g gauges) {
	m.lag.Set(g.lag.Milliseconds(), m.stream)
	m.checkpointAge.Set(g.checkpointAge.Milliseconds(), m.stream)
	m.held.Set(int64(g.held), m.stream)
	m.workers.Set(int64(g.workers), m.stream)
	m.inFlight.Set(int64(g.inFlight), m.stream)
	m.buffered.Set(g.buffered, m.stream)
	causes := map[cause]int64{}
	for _, c := range g.blocked {
		causes[c]++
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range causes {
		m.mu.everBlocked[c] = true
	}
	for c := range m.mu.everBlocked {
		m.blocked.Set(causes[c], m.stream, string(c))
	}
}

// count adds what has happened since the last time to the counters. Stats and subscriptions are those of one worker since it
// began.
func (m *metrics) count(stats lease.Stats, subscribed int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.mu.stats
	m.taken.Incr(stats.Taken+stats.Received-before.Taken-before.Received, m.stream)
	m.given.Incr(stats.Given-before.Given, m.stream)
	m.lost.Incr(stats.Lost+stats.Fenced-before.Lost-before.Fenced, m.stream)
	m.subscriptions.Incr(subscribed-m.mu.subscribed, m.stream)
	m.mu.stats, m.mu.subscribed = stats, subscribed
}

// forget takes the gauges back: the worker is gone.
func (m *metrics) forget() {
	for _, g := range []*service.MetricGauge{m.lag, m.checkpointAge, m.held, m.workers, m.inFlight, m.buffered} {
		forget.Series(g, m.stream)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.mu.everBlocked {
		forget.Series(m.blocked, m.stream, string(c))
	}
	m.mu.everBlocked = map[cause]bool{}
	m.mu.stats, m.mu.subscribed = lease.Stats{}, 0
}

// measure looks at what the worker holds.
func (w *worker) measure(now time.Time) gauges {
	g := gauges{standing: w.standing(now), workers: w.manager.Stats().Workers}
	g.buffered, _ = w.in.budget.Held()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.mu.runs {
		lag, age, inFlight := r.measure(now)
		g.lag, g.checkpointAge = max(g.lag, lag), max(g.checkpointAge, age)
		g.inFlight += inFlight
	}
	return g
}

// staleAfter is how old what Kinesis told of a lag may be. A shard that is not read any more, since its records do not get
// through, falls behind by a second each second, and Kinesis is not asked for it.
const staleAfter = 10 * time.Second

// mark is a position that was handed out by a moment. While records flow the stored checkpoint is always behind the last one, so
// its age is that of the oldest mark which it has not reached. There is one for each look, and none while nothing moves.
type mark struct {
	position checkpoint.Position
	at       time.Time
}

// measure tells how far the run is behind the tip of the shard, for how long records that were handed out have not been in a
// stored checkpoint, and how many are under way.
func (r *run) measure(now time.Time) (lag, checkpointAge time.Duration, inFlight int) {
	stored := r.lease.Stored()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.behind >= 0 {
		lag = time.Duration(r.mu.behind) * time.Millisecond
		if silent := now.Sub(r.mu.heard); silent > staleAfter {
			lag += silent
		}
	}
	r.mu.unstored = slices.DeleteFunc(r.mu.unstored, func(m mark) bool { return stored.Compare(m.position) >= 0 })
	if n := len(r.mu.unstored); !r.mu.last.IsZero() && stored.Compare(r.mu.last) < 0 && (n == 0 || r.mu.unstored[n-1].position != r.mu.last) {
		r.mu.unstored = append(r.mu.unstored, mark{r.mu.last, now})
	}
	if len(r.mu.unstored) > 0 {
		checkpointAge = now.Sub(r.mu.unstored[0].at)
	}
	if r.mu.flight != nil {
		inFlight = len(r.mu.flight.records)
	}
	return lag, checkpointAge, inFlight
}
