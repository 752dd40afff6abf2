package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

const (
	shardA, shardB = "shardId-000000000000", "shardId-000000000001"
	inShard        = 12
)

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// balanced is the evidence of a run without a fault: two shards, two partitions, two keys in each shard.
func balanced() evidence {
	e := evidence{Records: map[string][]kinesistest.Record{}, Messages: make([][]message, 2), Leases: map[string]lease{}}
	for s, shard := range []string{shardA, shardB} {
		for i := range inShard {
			r := kinesistest.Record{
				ShardID: shard, SequenceNumber: fmt.Sprintf("4900000%d%02d", s, i), PartitionKey: fmt.Sprintf("key-%d", 2*s+i%2),
				Data: payload(8*s+i, 50), Arrival: began.Add(time.Duration(i) * 500 * time.Millisecond),
			}
			e.Records[shard] = append(e.Records[shard], r)
			e.Messages[i%2] = append(e.Messages[i%2], of(r))
		}
		e.Leases[shard] = lease{Checkpoint: e.Records[shard][inShard-1].SequenceNumber}
	}
	return e
}

// of is the message that a record becomes.
func of(r kinesistest.Record) message {
	return message{Key: r.PartitionKey, Payload: slices.Clone(r.Data), Properties: map[string]string{
		propertyKey: r.PartitionKey, propertySequence: r.SequenceNumber, propertyArrival: instant(r.Arrival), propertyEncryption: "NONE",
	}}
}

// kill lets the records of a shard from one on to another (excluded) come again, at the end of their partitions, by a
// kill that had stored a checkpoint behind the first `stored` ones.
func (e *evidence) kill(shard string, stored, from, to int) {
	k := kill{At: e.Records[shard][to-1].Arrival, Leases: map[string]lease{
		shardA: {Owner: "dead", Checkpoint: "TRIM_HORIZON"}, shardB: {Owner: "dead", Checkpoint: "TRIM_HORIZON"},
	}}
	if stored > 0 {
		k.Leases[shard] = lease{Owner: "dead", Checkpoint: e.Records[shard][stored-1].SequenceNumber}
	}
	e.Kills = append(e.Kills, k)
	var partitions [2][]message
	for p := range partitions {
		for _, m := range e.Messages[p] {
			i := slices.IndexFunc(e.Records[shard], func(r kinesistest.Record) bool { return r.SequenceNumber == m.Properties[propertySequence] })
			partitions[p] = append(partitions[p], m)
			if i == to-2 || i == to-1 { // the last of the stretch in this partition: the stretch again
				for again := from; again < to; again++ {
					if again%2 == p {
						partitions[p] = append(partitions[p], of(e.Records[shard][again]))
					}
				}
			}
		}
		e.Messages[p] = partitions[p]
	}
}

func TestAnAccountWithoutFaultsBalances(t *testing.T) {
	a := settle(balanced())
	if len(a.Findings) > 0 {
		t.Fatal(a.Findings)
	}
	if a.Records != 2*inShard || a.Messages != 2*inShard || a.Repeated != 0 || a.Window != 0 || a.Keys != 4 || a.Shards != 2 || a.Partitions != 2 {
		t.Fatalf("%+v", a)
	}
}

func TestWhatAKillRepeatsBehindTheCheckpointBalances(t *testing.T) {
	e := balanced()
	e.kill(shardB, 4, 4, 8)
	a := settle(e)
	if len(a.Findings) > 0 {
		t.Fatal(a.Findings)
	}
	// Of the other shard nothing was stored, so all that had arrived could have come again.
	if a.Repeated != 4 || a.Window != 4+8 || a.Messages != 2*inShard+4 {
		t.Fatalf("%+v", a)
	}
}

// Each fault is found, by its name, and nothing else is said.
func TestEveryFaultIsFound(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*evidence)
		want  []string
	}{
		"a lost record": {func(e *evidence) { e.Messages[1] = slices.Delete(e.Messages[1], 2, 3) }, []string{foundLost}},
		"a lost empty record": {func(e *evidence) {
			e.Messages[0] = slices.DeleteFunc(e.Messages[0], func(m message) bool { return len(m.Payload) == 0 })
		}, []string{foundLost}},
		"the last record lost":     {func(e *evidence) { e.Messages[1] = e.Messages[1][:len(e.Messages[1])-1] }, []string{foundLost}},
		"a mangled byte":           {func(e *evidence) { e.Messages[0][1].Payload[7] ^= 0x80 }, []string{foundBytes}},
		"a payload cut off":        {func(e *evidence) { e.Messages[0][1].Payload = e.Messages[0][1].Payload[:9] }, []string{foundBytes}},
		"a payload made empty":     {func(e *evidence) { e.Messages[0][1].Payload = nil }, []string{foundBytes}},
		"another key":              {func(e *evidence) { e.Messages[0][1].Key = "" }, []string{foundKey, foundScattered}[:1]},
		"no sequence number":       {func(e *evidence) { delete(e.Messages[0][1].Properties, propertySequence) }, []string{foundForeign, foundLost}},
		"no arrival time":          {func(e *evidence) { delete(e.Messages[0][1].Properties, propertyArrival) }, []string{foundProperties}},
		"a wrong arrival time":     {func(e *evidence) { e.Messages[0][1].Properties[propertyArrival] = "2026-01-02T03:04:05.000Z" }, []string{foundProperties}},
		"a wrong encryption":       {func(e *evidence) { e.Messages[0][1].Properties[propertyEncryption] = "KMS" }, []string{foundProperties}},
		"one property too many":    {func(e *evidence) { e.Messages[0][1].Properties["kinesis.shard.id"] = shardA }, []string{foundProperties}},
		"somebody else's message":  {func(e *evidence) { e.Messages[0] = append(e.Messages[0], message{Key: "key-0", Payload: []byte("x")}) }, []string{foundForeign}},
		"two records swapped":      {func(e *evidence) { m := e.Messages[0]; m[1], m[2] = m[2], m[1] }, []string{foundFirst, foundLast}},
		"a key in two partitions":  {func(e *evidence) { e.move(0, 5, 1) }, []string{foundScattered}},
		"a copy without any kill":  {func(e *evidence) { e.Messages[0] = append(e.Messages[0], e.Messages[0][11]) }, []string{foundRepeated}},
		"copies of passed records": {func(e *evidence) { e.kill(shardB, 6, 4, 8) }, []string{foundRepeated}},
		"a copy of a later record": {func(e *evidence) {
			e.kill(shardB, 4, 4, 8)
			e.Messages[1] = append(e.Messages[1], of(e.Records[shardB][11]))
		}, []string{foundRepeated}},
		"a first copy too early": {func(e *evidence) {
			// The stretch came again in order, but the first time its end was there before its beginning.
			e.kill(shardA, 4, 4, 8)
			m := e.Messages[0]
			m[2], m[3] = m[3], m[2]
		}, []string{foundFirst}},
		"a last copy too late": {func(e *evidence) {
			// Only the earlier of two records came again, after the later one.
			e.kill(shardA, 4, 4, 5+1)
			e.Kills[0].At = began.Add(time.Hour)
			m := e.Messages[0]
			m[3], m[4] = m[4], m[3]
		}, []string{foundLast}},
		"a checkpoint that lags":  {func(e *evidence) { e.Leases[shardA] = lease{Checkpoint: e.Records[shardA][3].SequenceNumber} }, []string{foundCheckpoint}},
		"a checkpoint from above": {func(e *evidence) { e.Leases[shardA] = lease{Checkpoint: "TRIM_HORIZON"} }, []string{foundCheckpoint}},
		"no lease":                {func(e *evidence) { delete(e.Leases, shardB) }, []string{foundCheckpoint}},
		"a lease that is kept": {func(e *evidence) {
			e.Leases[shardB] = lease{Owner: "somebody", Checkpoint: e.Leases[shardB].Checkpoint}
		}, []string{foundOwned}},
		"a checkpoint from nowhere": {func(e *evidence) {
			e.kill(shardB, 4, 4, 8)
			e.Kills[0].Leases[shardB] = lease{Checkpoint: "49999"}
		}, []string{foundStrange}},
	} {
		t.Run(name, func(t *testing.T) {
			e := balanced()
			tc.spoil(&e)
			a := settle(e)
			var got []string
			for _, f := range a.Findings {
				got = append(got, f.What)
				if f.Count < 1 || len(f.Examples) == 0 {
					t.Errorf("%+v", f)
				}
			}
			slices.Sort(got)
			want := slices.Sorted(slices.Values(tc.want))
			if !slices.Equal(got, want) {
				t.Fatalf("found %v, want %v", a.Findings, want)
			}
			if text := strings.Join(a.lines(), "\n"); !strings.Contains(text, "NOT balance") || !strings.Contains(text, want[0]) {
				t.Fatal(text)
			}
		})
	}
}

// move takes a message out of a partition and puts it at the end of another.
func (e *evidence) move(from, offset, to int) {
	m := e.Messages[from][offset]
	e.Messages[from] = slices.Delete(e.Messages[from], offset, offset+1)
	e.Messages[to] = append(e.Messages[to], m)
}

func TestALongListOfFindingsIsCutShort(t *testing.T) {
	e := balanced()
	e.Messages = make([][]message, 2)
	a := settle(e)
	if text := strings.Join(a.lines(), "\n"); a.Findings[0].Count != 2*inShard || !strings.Contains(text, "and 19 more") {
		t.Fatal(text)
	}
}

func TestCopiesOfAStallThatThePipelineToldOfAreNoFault(t *testing.T) {
	e := balanced()
	e.Messages[0] = append(slices.Clone(e.Messages[0]), e.Messages[0]...) // everything once more, long before the kill
	if a := settle(e); len(a.Findings) == 0 {
		t.Fatal("copies without a reason balance")
	}
	e.Stalled = true
	a := settle(e)
	if len(a.Findings) > 0 || a.Excused == 0 || !strings.Contains(strings.Join(a.lines(), "\n"), "a stall of this machine") {
		t.Fatal(a.lines())
	}
}
