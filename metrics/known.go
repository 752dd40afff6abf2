package metrics

// Metric is a metric of this project's input or output.
type Metric struct {
	Name string
	// Kind is counter or gauge.
	Kind string
	// Labels are those beside Benthos' own (label, path, and stream in streams mode).
	Labels []string
	Help   string
}

// Metrics are all that the input and the output have, as the exporter describes them. Benthos' components name their metrics and say
// no more of them.
func Metrics() []Metric {
	input := func(kind, name, help string, labels ...string) Metric {
		return Metric{Name: name, Kind: kind, Help: help, Labels: append([]string{"kinesis_stream"}, labels...)}
	}
	output := func(kind, name, help string, labels ...string) Metric {
		return Metric{Name: name, Kind: kind, Help: help, Labels: labels}
	}
	return []Metric{
		input("gauge", "kinesis_lag_milliseconds", "How far the shard that is furthest behind is behind the tip of the stream, of the shards of this process."),
		input("gauge", "kinesis_checkpoint_age_milliseconds", "How long records that were handed out have not been in a stored checkpoint, for the oldest of them."),
		input("gauge", "kinesis_leases_held", "Shards that this process reads."),
		input("gauge", "kinesis_workers", "Workers on the lease table that seem to live."),
		input("gauge", "kinesis_records_in_flight", "Records that were handed out and are not acknowledged."),
		input("gauge", "kinesis_buffered_bytes", "Bytes that are held of maxBufferedBytes, those in flight included."),
		input("gauge", "kinesis_shards_blocked", "Shards that do not get on, by cause.", "cause"),
		input("counter", "kinesis_records_received", "Records read from Kinesis."),
		input("counter", "kinesis_bytes_received", "Bytes of data read from Kinesis."),
		input("counter", "kinesis_records_replayed", "Records that were handed out again after a failure."),
		input("counter", "kinesis_reads_throttled", "Reads that Kinesis has throttled."),
		input("counter", "kinesis_subscriptions", "Subscriptions of enhanced fan-out that were made; one for each shard every five minutes when all is well."),
		input("counter", "kinesis_leases_taken", "Leases that were taken, or given by other workers."),
		input("counter", "kinesis_leases_given", "Leases that were given to other workers who asked for them."),
		input("counter", "kinesis_leases_lost", "Leases that others took, or that could not be renewed in time."),
		output("counter", "pulsar_messages_confirmed", "Messages that Pulsar has confirmed."),
		output("counter", "pulsar_messages_refused", "Messages that can never be published as they are."),
		output("counter", "pulsar_messages_dead_lettered", "Refused messages that are in the dead-letter topic."),
		output("counter", "pulsar_messages_failed", "Messages that failed otherwise, and come again."),
		output("counter", "pulsar_producers_failed", "Producers that ended by a failure, and were made anew."),
		output("gauge", "pulsar_partition_blocked", "1 while messages of a partition have waited for Pulsar for longer than they should, and 0 after.", "partition"),
	}
}

// help is what a scrape says of a metric.
func help(kind, name string) string {
	for _, m := range Metrics() {
		if m.Name == name {
			return m.Help
		}
	}
	return "Benthos " + kind + " " + name
}
