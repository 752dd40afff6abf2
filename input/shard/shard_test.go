package shard

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
)

var (
	anchor   = time.UnixMilli(1_700_000_000_123).UTC()
	identity = Identity{ARN: "arn:aws:kinesis:us-east-1:123456789012:stream/s", Created: time.Unix(1_600_000_000, 0)}
)

func open(id, start string, parents ...string) Shard {
	return Shard{ID: id, StartingSequence: start, Parents: parents, StartingHashKey: "0", EndingHashKey: "9"}
}

func closed(id, start string, parents ...string) Shard {
	s := open(id, start, parents...)
	s.Closed = true
	return s
}

func at(key, sequence string) lease.Lease {
	return lease.Lease{Key: key, Checkpoint: checkpoint.Position{Sequence: sequence}}
}

func table(leases ...lease.Lease) map[string]lease.Lease {
	m := map[string]lease.Lease{}
	for _, l := range leases {
		m[l.Key] = l
	}
	return m
}

func keys(leases []lease.Lease) (keys []string) {
	for _, l := range leases {
		keys = append(keys, l.Key)
	}
	return keys
}

func TestAListedShardKeepsBothParentsOfAMerge(t *testing.T) {
	s := FromKinesis(types.Shard{
		ShardId: aws.String("c"), ParentShardId: aws.String("a"), AdjacentParentShardId: aws.String("b"),
		HashKeyRange:        &types.HashKeyRange{StartingHashKey: aws.String("0"), EndingHashKey: aws.String("5")},
		SequenceNumberRange: &types.SequenceNumberRange{StartingSequenceNumber: aws.String("7"), EndingSequenceNumber: aws.String("8")},
	})
	if !slices.Equal(s.Parents, []string{"a", "b"}) || !s.Closed || s.StartingSequence != "7" || s.EndingHashKey != "5" {
		t.Fatalf("got %+v", s)
	}
	if s := FromKinesis(types.Shard{ShardId: aws.String("c")}); s.Closed || len(s.Parents) != 0 {
		t.Fatalf("got %+v", s)
	}
}

func TestFirstLeasesAreWrittenParentsFirst(t *testing.T) {
	// As text, "99" would come after "100".
	shards := []Shard{open("child", "100", "parent"), closed("parent", "99")}
	leases := FirstLeases(shards, Start{Position: checkpoint.TrimHorizon}, "brand")
	if !slices.Equal(keys(leases), []string{"parent", "child"}) {
		t.Fatalf("got %v", keys(leases))
	}
	if l := leases[1]; l.Stream != "brand" || !l.Start.IsZero() || l.Checkpoint.Sequence != checkpoint.TrimHorizon || l.EndingHashKey != "9" || l.Parents[0] != "parent" {
		t.Fatalf("got %+v", l)
	}
}

func TestI6LatestIsStoredWithItsMoment(t *testing.T) {
	l := FirstLeases([]Shard{open("a", "1")}, Start{Position: checkpoint.Latest, At: anchor}, "brand")[0]
	if l.Checkpoint.Sequence != checkpoint.Latest || !l.Start.Equal(anchor) {
		t.Fatalf("got %+v", l)
	}
	from, err := ReadFrom(l, table(l), Start{Position: checkpoint.Latest, At: anchor.Add(time.Hour)})
	if err != nil || from.Kind != checkpoint.AtTimestamp || !from.Time.Equal(anchor) {
		t.Fatalf("a later start reads from %s, %v", from, err)
	}
}

func TestReadFrom(t *testing.T) {
	anchored := func(key, sequence string, parents ...string) lease.Lease {
		l := at(key, sequence)
		l.Start, l.Parents = anchor, parents
		return l
	}
	inside := at("a", "55")
	inside.Checkpoint.Sub = 3
	for _, tc := range []struct {
		name       string
		lease      lease.Lease
		others     []lease.Lease
		configured Start
		want       retrieval.From
		err        error
	}{
		{name: "a checkpoint", lease: inside, want: retrieval.From{After: inside.Checkpoint}},
		{name: "the beginning", lease: at("a", checkpoint.TrimHorizon), want: retrieval.From{Kind: checkpoint.TrimHorizon}},
		{name: "a child of a leased parent, at LATEST", lease: anchored("c", checkpoint.Latest, "p"), others: []lease.Lease{at("p", checkpoint.ShardEnd)}, want: retrieval.From{Kind: checkpoint.TrimHorizon}},
		{name: "a child whose parent is nobody's, at LATEST", lease: anchored("c", checkpoint.Latest, "p"), want: retrieval.From{Kind: checkpoint.AtTimestamp, Time: anchor}},
		{name: "AT_TIMESTAMP with its time, whatever the config says now", lease: anchored("a", checkpoint.AtTimestamp), configured: Start{checkpoint.AtTimestamp, anchor.Add(time.Hour)}, want: retrieval.From{Kind: checkpoint.AtTimestamp, Time: anchor}},
		{name: "AT_TIMESTAMP as KCL leaves it", lease: at("a", checkpoint.AtTimestamp), configured: Start{checkpoint.AtTimestamp, anchor}, want: retrieval.From{Kind: checkpoint.AtTimestamp, Time: anchor}},
		{name: "AT_TIMESTAMP that nobody can explain", lease: at("a", checkpoint.AtTimestamp), configured: Start{checkpoint.Latest, anchor}, err: ErrNoStartTime},
	} {
		got, err := ReadFrom(tc.lease, table(append(tc.others, tc.lease)...), tc.configured)
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%s: %s, %v", tc.name, got, err)
		}
	}
	for _, l := range []lease.Lease{at("a", checkpoint.Latest), at("a", checkpoint.ShardEnd)} {
		if from, err := ReadFrom(l, table(l), Start{}); err == nil {
			t.Errorf("%s is read from %s", l.Checkpoint, from)
		}
	}
}

func TestI3AChildWaitsForBothParentsOfAMerge(t *testing.T) {
	child := at("c", checkpoint.TrimHorizon)
	child.Parents = []string{"a", "b"}
	for _, tc := range []struct {
		name   string
		leases []lease.Lease
		waits  []string
	}{
		{"both are being read", []lease.Lease{at("a", "5"), at("b", checkpoint.Latest)}, []string{"a", "b"}},
		{"one has ended", []lease.Lease{at("a", checkpoint.ShardEnd), at("b", "7")}, []string{"b"}},
		{"both have ended", []lease.Lease{at("a", checkpoint.ShardEnd), at("b", checkpoint.ShardEnd)}, nil},
		{"their leases are gone", nil, nil},
	} {
		if got := WaitsFor(child, table(tc.leases...)); !slices.Equal(got, tc.waits) {
			t.Errorf("%s: waits for %v, want %v", tc.name, got, tc.waits)
		}
	}
}

func TestHoles(t *testing.T) {
	start := Start{Position: checkpoint.Latest, At: anchor}
	for _, tc := range []struct {
		name       string
		candidates []Shard // beside them, all holds the rest
		rest       []Shard
		leases     []lease.Lease
		want       []string
	}{
		{"a first start that crashed after one of three", []Shard{open("a", "1"), open("b", "2"), open("c", "3")}, nil, []lease.Lease{at("a", checkpoint.Latest)}, []string{"b", "c"}},
		{"a first start that crashed: the closed shard comes first, its child when it ends", []Shard{open("a", "1"), closed("b", "2")}, []Shard{open("c", "3", "b")}, []lease.Lease{at("a", checkpoint.TrimHorizon)}, []string{"b"}},
		{"a child of a leased parent is made when that ends", []Shard{open("b", "2", "a")}, []Shard{closed("a", "1")}, []lease.Lease{at("a", "1")}, nil},
		{"a grandchild too", []Shard{open("c", "3", "b")}, []Shard{closed("a", "1"), closed("b", "2", "a")}, []lease.Lease{at("a", "1")}, nil},
		{"also when the parent is listed no more", []Shard{open("b", "2", "a")}, nil, []lease.Lease{at("a", checkpoint.ShardEnd)}, nil},
		{"a parent that was read and cleaned up is not read again", []Shard{closed("a", "1")}, []Shard{open("b", "2", "a")}, []lease.Lease{at("b", "5")}, nil},
		{"nor a grandparent whose whole line was cleaned up", []Shard{closed("a", "1")}, []Shard{closed("b", "2", "a"), open("c", "3", "b")}, []lease.Lease{at("c", "5")}, nil},
		{"a parent whose child waits at the beginning was never read", []Shard{closed("a", "1")}, []Shard{open("b", "2", "a")}, []lease.Lease{at("b", checkpoint.TrimHorizon)}, []string{"a"}},
	} {
		got := Holes(tc.candidates, append(tc.rest, tc.candidates...), table(tc.leases...), start, "brand")
		if !slices.Equal(keys(got), tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, keys(got), tc.want)
		}
		for _, l := range got {
			if l.Checkpoint.Sequence != checkpoint.Latest || !l.Start.Equal(anchor) {
				t.Errorf("%s: %+v", tc.name, l)
			}
		}
	}
}

func TestAHoleIsNeverFilledWithNow(t *testing.T) {
	// A table of KCL's at LATEST, with a hole: what LATEST was when it was written, nobody knows any more.
	shards := []Shard{open("a", "1"), open("b", "2")}
	got := Holes(shards, shards, table(at("a", "5")), Start{Position: checkpoint.Latest}, "brand")
	if len(got) != 1 || got[0].Checkpoint.Sequence != checkpoint.TrimHorizon || !got[0].Start.IsZero() {
		t.Fatalf("got %+v", got)
	}
}

func TestManyMergesAreLookedThroughOnce(t *testing.T) {
	// 1→2→1→2→…: following every path to the first ancestor would take 2^60 steps.
	var shards []Shard
	last := "s0"
	shards = append(shards, closed(last, "1"))
	for i := range 60 {
		a, b, c := fmt.Sprint("a", i), fmt.Sprint("b", i), fmt.Sprint("c", i)
		seq := func(n int) string { return fmt.Sprint(100 + 10*i + n) }
		shards = append(shards, closed(a, seq(0), last), closed(b, seq(1), last), closed(c, seq(2), a, b))
		last = c
	}
	shards[len(shards)-1].Closed = false
	if got := Holes(shards, shards, table(at("s0", checkpoint.ShardEnd)), Start{Position: checkpoint.TrimHorizon}, ""); len(got) != 0 {
		t.Fatalf("got %v", keys(got))
	}
}

func TestCheckTable(t *testing.T) {
	shards := []Shard{open("a", "100"), closed("b", "100")}
	ours := at("a", "200")
	ours.Stream = identity.Brand()
	foreign, recreated, ranged := ours, ours, at("a", "200")
	foreign.Stream = lease.StreamName("arn:aws:kinesis:us-east-1:123456789012:stream/other", 1_600_000_000)
	recreated.Stream = lease.StreamName(identity.ARN, 1_700_000_000)
	ranged.StartingHashKey, ranged.EndingHashKey = "0", "4"
	for _, tc := range []struct {
		name  string
		lease lease.Lease
		want  error
	}{
		{"ours", ours, nil},
		{"KCL's, fitting", at("a", "200"), nil},
		{"KCL's, at a sentinel", at("a", checkpoint.Latest), nil},
		{"KCL's, of a shard past retention", at("z", "1"), nil},
		{"KCL's, ended", at("b", checkpoint.ShardEnd), nil},
		{"another stream's", foreign, lease.ErrOtherStream},
		{"an earlier stream's of this name", recreated, lease.ErrRecreatedStream},
		{"a checkpoint before the shard began", at("a", "99"), lease.ErrOtherStream},
		{"an open shard at its end", at("a", checkpoint.ShardEnd), lease.ErrOtherStream},
		{"another hash range", ranged, lease.ErrOtherStream},
	} {
		if err := CheckTable([]lease.Lease{tc.lease}, shards, identity); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
