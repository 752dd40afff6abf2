package output

import "github.com/redpanda-data/benthos/v4/public/service"

// metrics are those that Benthos does not keep for every output. They are touched per batch, never per message.
type metrics struct {
	blocked   *service.MetricGauge   // 1 while messages of a partition wait for more than blockedAfter
	refused   *service.MetricCounter // messages that can never be published as they are
	buried    *service.MetricCounter // messages that were refused and are in the dead-letter topic
	failed    *service.MetricCounter // messages that failed otherwise
	ended     *service.MetricCounter // producers that ended because of a failure
	confirmed *service.MetricCounter
}

func newMetrics(m *service.Metrics) *metrics {
	made := &metrics{
		blocked:   m.NewGauge("pulsar_partition_blocked", "partition"),
		refused:   m.NewCounter("pulsar_messages_refused"),
		buried:    m.NewCounter("pulsar_messages_dead_lettered"),
		failed:    m.NewCounter("pulsar_messages_failed"),
		ended:     m.NewCounter("pulsar_producers_failed"),
		confirmed: m.NewCounter("pulsar_messages_confirmed"),
	}
	// A counter that only appears with its first step hides that step from Prometheus' increase.
	for _, c := range []*service.MetricCounter{made.refused, made.buried, made.failed, made.ended, made.confirmed} {
		c.Incr(0)
	}
	return made
}
