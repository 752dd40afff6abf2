package e2e

import (
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// drainFaults is all that can happen to a call of Kinesis or inside an answer, by the story it is told in. Those of one
// story hit one call after the other.
func drainFaults(fanOut bool) map[string][]kinesistest.Fault {
	read := "GetRecords"
	if fanOut {
		read = "SubscribeToShard"
	}
	fail := func(operation string, codes ...string) (faults []kinesistest.Fault) {
		for _, code := range codes {
			faults = append(faults, kinesistest.Fault{Operation: operation, Kind: kinesistest.Fail, Code: code})
		}
		return faults
	}
	faults := map[string][]kinesistest.Fault{
		"throttled": fail(read, kinesistest.ProvisionedThroughputExceeded, kinesistest.LimitExceeded, kinesistest.Throttling),
		"failing":   fail(read, kinesistest.InternalFailure, kinesistest.ServiceUnavailable),
		"of KMS": fail(read, kinesistest.KMSAccessDenied, kinesistest.KMSDisabled, kinesistest.KMSInvalidState, kinesistest.KMSNotFound,
			kinesistest.KMSOptInRequired, kinesistest.KMSThrottling),
		"not allowed":  fail(read, kinesistest.AccessDenied, kinesistest.ExpiredToken, kinesistest.UnrecognizedClient),
		"refused":      fail(read, kinesistest.ResourceNotFound, kinesistest.InvalidArgument, kinesistest.Validation),
		"no listing":   fail("ListShards", kinesistest.LimitExceeded, kinesistest.InternalFailure, kinesistest.ResourceInUse, kinesistest.AccessDenied),
		"lost listing": {{Operation: "ListShards", Kind: kinesistest.Cut}, {Operation: "ListShards", Kind: kinesistest.Cut, Bytes: 40}},
		"late":         {{Operation: read, Kind: kinesistest.Slow, Delay: 300 * time.Millisecond}, {Operation: read, Kind: kinesistest.Trickle, Bytes: 2000, Delay: time.Millisecond}},
		"never":        {{Operation: read, Kind: kinesistest.Hang}, {Operation: "ListShards", Kind: kinesistest.Hang}},
	}
	if !fanOut {
		faults["no position"] = fail("GetShardIterator", kinesistest.ProvisionedThroughputExceeded, kinesistest.InternalFailure)
		faults["expired"] = append(fail(read, kinesistest.ExpiredIterator), kinesistest.Fault{Operation: read, Kind: kinesistest.Expire})
		faults["cut"] = []kinesistest.Fault{{Operation: read, Kind: kinesistest.Cut}, {Operation: read, Kind: kinesistest.Cut, Bytes: 1}, {Operation: read, Kind: kinesistest.Cut, Bytes: 3000}}
		return faults
	}
	later := func(events int, codes ...string) (faults []kinesistest.Fault) {
		for _, code := range codes {
			faults = append(faults, kinesistest.Fault{Operation: read, Kind: kinesistest.FailLater, Code: code, Events: events})
		}
		return faults
	}
	// Whether it is the consumer that is not there can't be found out at first.
	faults["no consumer"] = append(fail(read, kinesistest.ResourceNotFound, kinesistest.ResourceNotFound), fail("DescribeStreamConsumer", kinesistest.LimitExceeded)...)
	faults["taken"] = fail(read, kinesistest.ResourceInUse, kinesistest.ResourceInUse)
	faults["failing within"] = append(later(0, kinesistest.InternalFailure, kinesistest.ResourceInUse), later(1, kinesistest.InternalFailure, kinesistest.ResourceNotFound)...)
	faults["of KMS within"] = later(1, kinesistest.KMSAccessDenied, kinesistest.KMSDisabled, kinesistest.KMSThrottling)
	// A silent clean end must not be the end of the shard (Flink FLINK-39540).
	faults["a clean end"] = []kinesistest.Fault{{Operation: read, Kind: kinesistest.End}, {Operation: read, Kind: kinesistest.End, Events: 1}, {Operation: read, Kind: kinesistest.End, Events: 1, Bytes: 60}}
	faults["cut"] = []kinesistest.Fault{
		{Operation: read, Kind: kinesistest.Cut, Events: -1, Bytes: 1}, {Operation: read, Kind: kinesistest.Cut, Events: 1},
		{Operation: read, Kind: kinesistest.Cut, Bytes: 200}, {Operation: read, Kind: kinesistest.Cut, Events: 1, Bytes: 11, Connection: true},
	}
	faults["a stall"] = []kinesistest.Fault{{Operation: read, Kind: kinesistest.Stall, Bytes: 100}, {Operation: read, Kind: kinesistest.Stall, Events: 1, Connection: true}}
	return faults
}

// TestDrainsSurviveEveryFault reads parents that were split to their ends, and then their children, while Kinesis fails
// in every way it can.
func TestDrainsSurviveEveryFault(t *testing.T) {
	t.Parallel()
	for reader, fanOut := range map[string]bool{"polling": false, "fan-out": true} {
		t.Run(reader, func(t *testing.T) {
			t.Parallel()
			for name, faults := range drainFaults(fanOut) {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					drain(newLineage(t, fanOut, 2), faults)
				})
			}
		})
	}
}

func drain(l *lineage, faults []kinesistest.Fault) {
	const keys = 24
	l.start(l.config("maxRecords", "60"))
	l.number(24, keys)
	l.arrived(24)
	var hits []*kinesistest.Injected
	for _, f := range faults {
		in := l.kinesis.Inject(f)
		hits = append(hits, in)
		if f.Kind == kinesistest.Hang || f.Kind == kinesistest.Stall {
			// What waits for the reader's own deadlines has its tests with the reader.
			released := make(chan struct{})
			go func() {
				defer close(released)
				select {
				case <-in.Hit():
					time.Sleep(300 * time.Millisecond)
				case <-l.t.Context().Done():
				}
				in.Remove()
			}()
			l.t.Cleanup(func() { <-released })
		}
	}
	if l.fanOut {
		l.kinesis.EndSubscriptions(streamName, "", "") // the faults are of new ones
	}
	l.number(360, keys)
	children := append(l.split(firstShard), l.split(secondShard)...)
	l.number(120, keys)
	l.merge(children[1], children[2])
	l.number(120, keys)
	l.arrived(624)
	l.readToTheEnd()
	l.family().balanced().once()
	for i, in := range hits {
		if in.Hits() == 0 {
			l.t.Errorf("this fault has not happened: %+v", faults[i])
		}
	}
}
