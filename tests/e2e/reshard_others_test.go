package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kpltest"
)

// Defects of other consumers that concern a shard's end, its children, and where reading goes on. Those that concern
// leases, subscriptions and batches are looked for where these are tested.

// Redpanda Connect #2649 and Bento #643: shards that have no lease and are closed by the time somebody starts were
// skipped as if they were done. vmware-go-kcl-v2 #12: they kept the consumer from starting.
func TestConnect2649ClosedShardsThatNobodyHasSeenAreRead(t *testing.T) {
	t.Parallel()
	bothReaders(t, 1, func(l *lineage) {
		l.number(60, 12)
		l.scale(4)
		l.number(60, 12)
		l.scale(2) // closes what nobody has a lease of
		l.number(60, 12)
		l.scale(1)
		l.start(l.config()) // and the last shard has no record
		l.arrived(180)
		l.readToTheEnd()
		l.family().balanced().once()
	})
}

// Bento: what was read of a shard at its end and not confirmed when the consumer stopped was dropped, with its row.
func TestBentoAStopAtTheEndOfAShardDropsNothing(t *testing.T) {
	t.Parallel()
	bothReaders(t, 1, func(l *lineage) {
		p := l.start(l.config())
		l.number(12, 12)
		l.arrived(12)
		release := l.broker.StallReceipts("")
		l.number(60, 12)
		l.split(firstShard)
		l.number(60, 12)
		l.eventually("the parent's last records are under way", func() bool { return l.delivered() > 12 })
		p.stop()
		if at := l.leases()[firstShard]["checkpoint"]; at == "SHARD_END" {
			l.t.Fatal("the parent is at its end although its last records are not confirmed")
		}
		release()
		l.start(l.config())
		l.arrived(132)
		l.readToTheEnd()
		f := l.family().balanced()
		for shard, list := range f.records {
			for _, r := range list {
				if n := f.copies[nameOf(r)]; shard != firstShard && n != 1 {
					l.t.Errorf("%d copies of a child's record", n)
				}
			}
		}
	})
}

// Telegraf #19505 and Snowplow's kinsumer: an iterator that expired before the first record after a restart was renewed
// from where the consumer had once begun. harlow #166 and kinsumer #51 died of it.
func TestTelegraf19505AnIteratorThatExpiresBeforeTheFirstRecordRepeatsNothing(t *testing.T) {
	t.Parallel()
	for _, position := range []string{"TRIM_HORIZON", "LATEST"} {
		t.Run(position, func(t *testing.T) {
			t.Parallel()
			l := newLineage(t, false, 2)
			c := l.config("initialPositionInStream", position)
			p := l.start(c)
			l.eventually("leases are owned", func() bool { return len(l.owners()) == 1 && len(l.leases()) == 2 })
			l.number(60, 12)
			l.arrived(60)
			p.stop()
			l.start(c)
			before := l.kinesis.Count("GetRecords")
			l.eventually("both shards are read again", func() bool { return l.kinesis.Count("GetRecords") > before+4 })
			l.kinesis.ExpireIterators()
			before = l.kinesis.Count("GetRecords")
			l.eventually("and with other iterators", func() bool { return l.kinesis.Count("GetRecords") > before+6 })
			l.number(60, 12)
			l.arrived(120)
			l.readToTheEnd()
			l.family().balanced().once()
		})
	}
}

// harlow #191: positions went by the aggregated record, so a restart inside one skipped its tail.
func TestHarlow191ARestartInsideAnAggregatedRecordSkipsNothing(t *testing.T) {
	t.Parallel()
	bothReaders(t, 1, func(l *lineage) {
		const users = 200
		put := 0
		more := func(aggregates int) {
			for range aggregates {
				var list []kpltest.Record
				for range users {
					list = append(list, kpltest.Record{PartitionKey: "key", Data: fmt.Append(nil, put)})
					put++
				}
				_, err := l.kinesis.PutRecords(streamName, kinesistest.Record{PartitionKey: "key", Data: kpltest.Aggregate(list)})
				must(l.t, err)
			}
		}
		more(6)
		c := l.config("receiveQueueSize", "30") // a batch is no more than that
		c.pipeline = "processors: [ { sleep: { duration: 2ms } } ]\nthreads: 1\n"
		values := func() (values []string) {
			for _, m := range l.messages() {
				values = append(values, string(m.Payload))
			}
			return values
		}
		within := false
		some := func() {
			before := len(values())
			p := l.start(c)
			l.eventually("some more of it", func() bool { return len(values()) >= min(before+290, put) })
			p.stop()
			row := l.leases()[firstShard]
			last := fmt.Sprint(users - 1)
			within = within || row["checkpoint"] != "SHARD_END" && row["checkpointSubSequenceNumber"] != "0" && row["checkpointSubSequenceNumber"] != last
		}
		// Whoever stands still for two seconds before the stop finds everything delivered, and stops inside of nothing.
		for range 20 {
			if some(); within {
				break
			}
			if put-len(values()) < 2*users {
				more(4)
			}
		}
		l.split(firstShard)
		for len(values()) < put {
			some()
		}
		for i, value := range values() {
			if value != fmt.Sprint(i) {
				l.t.Fatalf("message %d is user record %s", i, value)
			}
		}
		if !within {
			l.t.Error("no stop was inside an aggregated record")
		}
	})
}

// Flink FLINK-37416 and kinsumer: a worker that is there when its stream is scaled again and again has each shard read
// by somebody (gokini #14: shards with no live consumer).
func TestGokini14EveryOpenShardOfAScaledStreamIsOwnedSoon(t *testing.T) {
	t.Parallel()
	bothReaders(t, 2, func(l *lineage) {
		l.start(l.config())
		l.start(l.config())
		l.eventually("leases", func() bool { return len(l.owners()) > 0 })
		for _, count := range []int{6, 3, 5} {
			l.scale(count)
			l.eventually("every open shard is owned, every other at its end", func() bool {
				leases := l.leases()
				for _, shard := range l.kinesis.Shards(streamName) {
					row := leases[shard.ID]
					if shard.Closed.IsZero() && row["leaseOwner"] == "" || !shard.Closed.IsZero() && row["checkpoint"] != "SHARD_END" {
						return false
					}
				}
				return true
			})
			before := l.total()
			l.number(120, 24)
			l.arrived(before + 120)
		}
		l.readToTheEnd()
		l.family().balanced().once()
	})
}

// Kinesis' own limits are a fault too: the account of a drain under them is the same, only later.
func TestReshardsUnderReadLimits(t *testing.T) {
	t.Parallel()
	l := newLineage(t, false, 2, kinesistest.WithReadLimits(), kinesistest.WithVisibilityDelay(50*time.Millisecond))
	l.number(600, 24)
	l.scale(5)
	l.number(120, 24)
	l.start(l.config("maxRecords", "150"))
	l.arrived(720)
	l.readToTheEnd()
	l.family().balanced().once()
}
