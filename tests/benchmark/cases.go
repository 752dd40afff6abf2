package main

// testCase is a stream and a sink.
type testCase struct {
	name       string
	shards     int
	recordSize int // bytes
	partitions int // of the topic
	// perShard is the number of records of a shard, which must all arrive; 0: endless.
	perShard uint64
	// sinkRate is how many bytes a second the sink reads from a connection; 0: as fast as it can.
	sinkRate int
	// fanOut reads with enhanced fan-out, and as from AWS: over TLS and HTTP/2.
	fanOut bool
	// pipelineOnly leaves the bare loops out. They have no bound on what they hold: with 64 shards of large records they
	// would measure the machine's memory.
	pipelineOnly bool
}

const partitions = 4

// cases are run in this order in every round.
var cases = []testCase{
	{name: "100 B", shards: 4, recordSize: 100, partitions: partitions},
	{name: "1 KiB", shards: 4, recordSize: 1 << 10, partitions: partitions},
	{name: "10 KiB", shards: 4, recordSize: 10 << 10, partitions: partitions},
	// The largest records that Kinesis takes, into a sink which takes a tenth of what the pipeline could send.
	{name: "64 shards of 1 MiB", shards: 64, recordSize: 1<<20 - 12, partitions: partitions, sinkRate: 20 << 20, pipelineOnly: true},
	{name: "100 B fan-out", shards: 4, recordSize: 100, partitions: partitions, fanOut: true},
	{name: "1 KiB fan-out", shards: 4, recordSize: 1 << 10, partitions: partitions, fanOut: true},
	{name: "10 KiB fan-out", shards: 4, recordSize: 10 << 10, partitions: partitions, fanOut: true},
	{name: "64 shards of 1 MiB fan-out", shards: 64, recordSize: 1<<20 - 12, partitions: partitions, sinkRate: 20 << 20, fanOut: true, pipelineOnly: true},
}

// quick is the case with few shards and records, at full speed.
func (c testCase) quick() testCase {
	c.shards = min(c.shards, 16)
	c.perShard = max(2, min(2000, uint64(1<<20/c.recordSize)))
	c.sinkRate = 0
	return c
}

func caseNames() []string {
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	return names
}

// contender is a program that moves the stream into the topic.
type contender struct {
	name string
	kind kind
	// properties says that a bare loop sets the four default properties; the pipeline always does.
	properties bool
	binary     string   // of a pipeline
	input      []string // FIELD=VALUE for a pipeline's input
}

type kind int

const (
	pipelineKind kind = iota
	bareKind
)

// propertyNames are what the input makes properties of by default.
var propertyNames = [...]string{"kinesis.arrival.timestamp", "kinesis.encryption.type", "kinesis.partition.key", "kinesis.sequence.number"}

const (
	streamName = "benchmark"
	topicName  = "benchmark"
	tableName  = "benchmark"
)
