package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

var reshardRecords = flag.Int("reshard.records", 2000, "how many records the long story of resharding has, for each reader")

const (
	firstShard  = "shardId-000000000000"
	secondShard = "shardId-000000000001"
)

// lineage is a world whose stream is resharded. The records of each key are numbered from 1 on, over all shards.
type lineage struct {
	*world
	fanOut bool
	next   map[string]int // the last number of each key
}

// bothReaders tells a story once with polling and once with enhanced fan-out.
func bothReaders(t *testing.T, shards int, story func(*lineage), options ...kinesistest.Option) {
	t.Helper()
	for name, fanOut := range map[string]bool{"polling": false, "fan-out": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(newLineage(t, fanOut, shards, options...))
		})
	}
}

// newLineage makes the services. A subscription may be taken over at once, where AWS has five seconds: the tests of that
// are the reader's own, and a story of two workers would be waiting for nothing else.
func newLineage(t *testing.T, fanOut bool, shards int, options ...kinesistest.Option) *lineage {
	t.Helper()
	w := newWorld(t, 1, 4)
	w.kinesis.Close()
	times := kinesistest.WithSubscriptionTimes(kinesistest.SubscriptionTimes{TakeOver: -1, CallEvery: -1, Heartbeat: 200 * time.Millisecond})
	w.kinesis = kinesistest.NewServer(append([]kinesistest.Option{times}, options...)...)
	must(t, w.kinesis.CreateStream(streamName, shards))
	l := &lineage{world: w, fanOut: fanOut, next: map[string]int{}}
	l.watchEnds()
	return l
}

// watchEnds watches every change of the lease table: a position never goes back, an end is written when the children
// have their leases, and is the last word about a position (I1, I2).
func (l *lineage) watchEnds() {
	var mu sync.Mutex
	var wrong []string
	known := map[string]bool{}
	l.dynamodb.OnChange(func(c dynamotest.Change) {
		was, is := leaseOf(c.Old), leaseOf(c.New)
		if len(is) == 0 {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		shard, old, now := is["leaseKey"], was["checkpoint"], is["checkpoint"]
		switch {
		case len(was) == 0:
			known[shard] = true
		case old == now:
		case old == "SHARD_END":
			wrong = append(wrong, fmt.Sprintf("%s: checkpoint %s after its end", shard, now))
		case now == "SHARD_END":
			var children []string
			if set, ok := c.New["childShardIds"].(*types.AttributeValueMemberSS); ok {
				children = set.Value
			}
			for _, child := range children {
				if !known[child] {
					wrong = append(wrong, fmt.Sprintf("%s has ended before %s had a lease", shard, child))
				}
			}
			if len(children) == 0 {
				wrong = append(wrong, shard+" has ended without a child")
			}
		case len(old) > 20 && (len(now) < len(old) || len(now) == len(old) && now < old):
			wrong = append(wrong, fmt.Sprintf("%s: checkpoint %s after %s", shard, now, old))
		}
	})
	l.t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, text := range wrong {
			l.t.Error(text)
		}
	})
}

// config is the configuration of the lineage's reader, with more fields of the input as name, value, name, value ….
func (l *lineage) config(more ...string) config {
	fields := map[string]string{"useEnhancedFanOut": strconv.FormatBool(l.fanOut), "backoffTime": "100"}
	for i := 0; i < len(more); i += 2 {
		fields[more[i]] = more[i+1]
	}
	return config{input: fields}
}

// number adds n records over a number of keys in turn, numbered by key.
func (l *lineage) number(n, keys int) {
	l.t.Helper()
	records := make([]record, 0, n)
	for i := range n {
		key := fmt.Sprint("key-", i%keys)
		l.next[key]++
		records = append(records, record{PartitionKey: key, Data: fmt.Appendf(nil, "%d of %s", l.next[key], key)})
	}
	_, err := l.kinesis.PutRecords(streamName, records...)
	must(l.t, err)
}

func numberOf(data []byte) int {
	digits, _, _ := bytes.Cut(data, []byte(" "))
	n, _ := strconv.Atoi(string(digits))
	return n
}

func (l *lineage) split(shard string) (children []string) {
	l.t.Helper()
	both, err := l.kinesis.SplitShard(streamName, shard)
	must(l.t, err)
	return both[:]
}

func (l *lineage) merge(a, b string) string {
	l.t.Helper()
	child, err := l.kinesis.MergeShards(streamName, a, b)
	must(l.t, err)
	return child
}

func (l *lineage) scale(count int) {
	l.t.Helper()
	_, err := l.kinesis.UpdateShardCount(streamName, count)
	must(l.t, err)
}

// family is what of an account goes over shards.
type family struct {
	*account
	unordered []string // records whose last copy lies before that of the record before it of its key
	early     []string // records of a child with a copy before one of a record of the same key in an ancestor
}

// family compares all of the stream with all of the topic.
func (l *lineage) family() *family {
	l.t.Helper()
	f := newFamily(l.t, l.kinesis.Records(streamName), nil, l.messages())
	f.stalled = l.stalled()
	return f
}

func newFamily(t *testing.T, records map[string][]record, want wanted, messages []pulsartest.Message) *family {
	t.Helper()
	f := &family{account: newAccount(t, records, want, messages)}
	first, last := map[recordName]int{}, map[recordName]int{}
	for i := range messages {
		name := recordName{messages[i].Properties[propertySequence], messages[i].Properties[propertyKey]}
		if _, there := first[name]; !there {
			first[name] = i
		}
		last[name] = i
	}
	type one struct {
		number int
		shard  string
		name   recordName
	}
	byKey := map[string][]one{}
	for shard, list := range records {
		for _, r := range list {
			if _, there := first[nameOf(r)]; there {
				byKey[r.PartitionKey] = append(byKey[r.PartitionKey], one{numberOf(r.Data), shard, nameOf(r)})
			}
		}
	}
	for key, list := range byKey {
		slices.SortFunc(list, func(a, b one) int { return a.number - b.number })
		for i := 1; i < len(list); i++ {
			before, now := list[i-1], list[i]
			if last[now.name] < last[before.name] {
				f.unordered = append(f.unordered, fmt.Sprintf("%d of %s", now.number, key))
			}
			// A key's shards follow each other: one that is not its predecessor's shard is a descendant of it.
			if now.shard != before.shard && first[now.name] < last[before.name] {
				f.early = append(f.early, fmt.Sprintf("%d of %s in %s before %d in %s", now.number, key, now.shard, before.number, before.shard))
			}
		}
	}
	return f
}

// balanced fails the test unless nothing is lost, wrong, foreign or out of order, in a shard and over shards.
func (f *family) balanced() *family {
	f.t.Helper()
	f.account.balanced()
	if len(f.unordered)+len(f.early) > 0 {
		f.t.Fatalf("out of order %d %v\nbefore their parents %d %v", len(f.unordered), some(f.unordered), len(f.early), some(f.early))
	}
	return f
}

// readToTheEnd waits until all of the stream is confirmed: the lease of each shard is at its last record, or at its end
// if it is closed. Then nothing is replayed any more.
func (l *lineage) readToTheEnd() {
	l.t.Helper()
	l.eventually("every shard is read to where it ends", l.atTheEnd)
}

func (l *lineage) atTheEnd() bool {
	leases, records := l.leases(), l.kinesis.Records(streamName)
	for _, shard := range l.kinesis.Shards(streamName) {
		at, list := leases[shard.ID]["checkpoint"], records[shard.ID]
		switch {
		case !shard.Closed.IsZero():
			if at != "SHARD_END" {
				return false
			}
		case len(list) > 0:
			// By fan-out, a shard that is read to its tip moves on behind its last record.
			if last := list[len(list)-1].SequenceNumber; len(at) < len(last) || len(at) == len(last) && at < last {
				return false
			}
		}
	}
	return true
}

// TestReshards tells of one worker and a stream that changes below it, or before it comes. Nothing goes wrong in it, so
// every record arrives once.
func TestReshards(t *testing.T) {
	t.Parallel()
	const keys = 24
	for name, story := range map[string]func(*lineage){
		"a split": func(l *lineage) {
			l.start(l.config())
			l.number(120, keys)
			l.split(firstShard)
			l.number(120, keys)
			l.arrived(240)
		},
		"a merge": func(l *lineage) {
			children := l.split(firstShard)
			l.start(l.config())
			l.number(120, keys)
			l.merge(children[0], children[1])
			l.number(120, keys)
			l.arrived(240)
		},
		"a split of a child at once": func(l *lineage) {
			l.start(l.config())
			l.number(120, keys)
			children := l.split(firstShard)
			l.number(60, keys)
			grandchildren := l.split(children[0])
			l.split(grandchildren[1]) // without a record in it, maybe
			l.number(120, keys)
			l.arrived(300)
		},
		"from 1 to 8 to 1": func(l *lineage) {
			l.start(l.config())
			l.number(120, keys)
			l.scale(8)
			l.number(240, keys)
			l.scale(1)
			l.number(120, keys)
			l.arrived(480)
		},
		"an idle parent": func(l *lineage) {
			l.start(l.config())
			l.eventually("the parent is read", func() bool { return len(l.owners()) == 1 })
			l.split(firstShard)
			l.number(120, keys)
			l.arrived(120)
		},
		"an idle parent beside a busy one": func(l *lineage) {
			children := l.split(firstShard)
			idle := l.split(children[1])
			l.start(l.config())
			l.merge(idle[0], idle[1])
			l.number(120, keys)
			l.arrived(120)
		},
		"a parent with a long backlog": func(l *lineage) {
			l.number(3000, keys)
			l.split(firstShard)
			l.number(240, keys)
			l.start(l.config("maxRecords", "500"))
			l.arrived(3240)
		},
		"while stopped": func(l *lineage) {
			p := l.start(l.config())
			l.number(120, keys)
			l.arrived(120)
			p.stop()
			l.number(120, keys)
			children := l.split(firstShard) // created and closed while nobody ran
			l.number(120, keys)
			l.merge(children[0], children[1])
			l.number(120, keys)
			l.scale(3)
			l.number(120, keys)
			l.start(l.config())
			l.arrived(600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothReaders(t, 1, func(l *lineage) {
				story(l)
				l.readToTheEnd()
				l.family().balanced().once()
			})
		})
	}
}

// One worker stops while shards end, and another takes over what it leaves.
func TestReshardsWhileWorkersComeAndGo(t *testing.T) {
	t.Parallel()
	bothReaders(t, 2, func(l *lineage) {
		const keys = 40
		p := l.start(l.config())
		for _, count := range []int{4, 3, 5, 2} {
			l.number(400, keys)
			l.scale(count)
			l.number(200, keys)
			// It stops in the middle of its work: before a pipeline runs, it can't be stopped.
			before := l.delivered()
			q := l.start(l.config())
			l.eventually("something of this round is delivered", func() bool { return l.delivered() > before || before == l.total() })
			p.stop()
			p = q
		}
		l.arrived(2400)
		l.readToTheEnd()
		// A clean stop repeats nothing, in the middle of a shard's end neither.
		l.family().balanced().once()
		p.stop()
	})
}

// A worker that dies while shards end is one whose last words are missing: what it had confirmed and not stored comes
// again, in order, and never behind a child's records.
func TestReshardsWhileAWorkerDies(t *testing.T) {
	t.Parallel()
	bothReaders(t, 2, func(l *lineage) {
		const keys = 40
		c := l.config("maxRecords", "100")
		c.quick = true
		p := l.spawn(c)
		l.number(1200, keys)
		l.scale(3)
		l.number(1200, keys)
		l.eventually("some of it", func() bool { return l.delivered() > 300 })
		p.kill()
		l.scale(4)
		l.number(400, keys)
		l.start(c)
		l.arrived(2800)
		l.readToTheEnd()
		f := l.family().balanced()
		l.t.Logf("%d of %d records more than once", len(f.duplicates), l.total())
	})
}

// The account of a long story: a stream that is resharded all the time it is written to, with one worker after the other.
func TestReshardAccount(t *testing.T) {
	t.Parallel()
	bothReaders(t, 1, func(l *lineage) {
		const keys = 200
		counts := []int{2, 5, 8, 3, 1}
		rounds := len(counts)
		if *reshardRecords > 100_000 {
			rounds *= 4
		}
		p := l.start(l.config())
		for i := range rounds {
			l.number(*reshardRecords/rounds/2, keys)
			l.scale(counts[i%len(counts)])
			l.number(*reshardRecords/rounds/2, keys)
			if i%2 == 1 {
				p.stop()
				p = l.start(l.config())
				l.eventually("it runs", func() bool { return len(l.owners()) > 0 })
			}
			time.Sleep(200 * time.Millisecond) // so that reshards meet readers at work, not one backlog
		}
		// The full size takes longer than one has patience with a condition, and looking at it costs more.
		for deadline := time.Now().Add(patience + time.Duration(*reshardRecords)*time.Millisecond); !l.atTheEnd() && time.Now().Before(deadline); {
			time.Sleep(100 * time.Millisecond)
		}
		total, f := l.total(), l.family()
		l.t.Logf("account: %d records in %d shards; lost %d, duplicates %d, out of order %d, before their parents %d, wrong %d, foreign %d",
			total, len(l.kinesis.Shards(streamName)), len(f.lost), len(f.duplicates), len(f.disorder)+len(f.unordered), len(f.early), len(f.wrong), f.foreign)
		f.balanced().once()
		p.stop()
	})
}

// Flink FLINK-37627: a checkpoint that coincides with a split must not lose the children. Here no write of the
// parent's end, nor of its children's leases, comes through at first.
func TestFLINK37627AWriteThatFailsAtASplitLosesNoChildren(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]dynamotest.Fault{
		"its children's leases": {Operation: "PutItem", Kind: dynamotest.InternalError, Count: 6},
		"its end":               {Operation: "UpdateItem", Key: firstShard, Kind: dynamotest.LoseAnswer, Count: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothReaders(t, 1, func(l *lineage) {
				l.start(l.config())
				l.number(60, 12)
				l.arrived(60)
				l.dynamodb.Inject(fault)
				l.split(firstShard)
				l.number(60, 12)
				l.arrived(120)
				l.readToTheEnd()
				l.family().balanced().once()
			})
		})
	}
}

// Flink FLINK-8484 and harlow #200: after a restart a shard that was read to its end is not read again, and does not hold
// its children back.
func TestFLINK8484AShardReadToItsEndIsNotReadAgain(t *testing.T) {
	t.Parallel()
	bothReaders(t, 1, func(l *lineage) {
		p := l.start(l.config())
		l.number(60, 12)
		l.split(firstShard)
		l.arrived(60)
		l.readToTheEnd()
		p.stop()
		l.number(60, 12)
		l.start(l.config())
		l.arrived(120)
		l.readToTheEnd()
		l.family().balanced().once()
	})
}
