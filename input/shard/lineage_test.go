package shard

import (
	"errors"
	"slices"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
)

func TestEndOf(t *testing.T) {
	parent := at("p", "5")
	parent.Start = anchor
	told := []retrieval.Child{{ID: "c", Parents: []string{"p"}, StartingHashKey: "0", EndingHashKey: "4"}, {ID: "d", Parents: []string{"p"}}}
	for _, tc := range []struct {
		name     string
		told     []retrieval.Child
		notFound bool
		listed   []Shard
		want     []string
		open     bool
		fails    bool
	}{
		{name: "a split, told and listed", told: told, listed: []Shard{closed("p", "1"), open("c", "2", "p"), open("d", "2", "p")}, want: []string{"c", "d"}},
		{name: "the listing lags behind", told: told, listed: []Shard{open("p", "1")}, want: []string{"c", "d"}},
		{name: "the read told nothing", listed: []Shard{closed("p", "1"), open("c", "2", "p"), open("d", "2", "p"), open("x", "2", "y")}, want: []string{"c", "d"}},
		{name: "not an end at all", listed: []Shard{open("p", "1")}, open: true, fails: true},
		{name: "closed, and no child to be seen yet", listed: []Shard{closed("p", "1")}, fails: true},
		{name: "past retention with its children", listed: []Shard{open("grandchild", "9", "c")}},
		{name: "not found, and past retention: a child is left", notFound: true, listed: []Shard{open("c", "2", "p")}, want: []string{"c"}},
		{name: "not found for a moment: its children say nothing of how far it was read", notFound: true, listed: []Shard{closed("p", "1"), open("c", "2", "p"), open("d", "2", "p")}, open: true, fails: true},
		{name: "past retention, a child is left", listed: []Shard{open("c", "2", "p")}, want: []string{"c"}},
		{name: "children of somebody else", told: []retrieval.Child{{ID: "c", Parents: []string{"q"}}}, listed: []Shard{open("p", "1")}, open: true, fails: true},
	} {
		got, err := EndOf(parent, retrieval.Read{Ended: !tc.notFound, Children: tc.told}, tc.listed, "brand")
		if !slices.Equal(keys(got), tc.want) || errors.Is(err, ErrOpen) != tc.open || (err != nil) != tc.fails {
			t.Errorf("%s: %v, %v", tc.name, keys(got), err)
		}
		for _, l := range got {
			if l.Checkpoint.Sequence != checkpoint.TrimHorizon || !l.Start.Equal(anchor) || l.Parents[0] != "p" || l.Stream != "brand" {
				t.Errorf("%s: %+v", tc.name, l)
			}
		}
	}
	merged, err := EndOf(at("b", "5"), retrieval.Read{Ended: true}, []Shard{closed("a", "1"), closed("b", "1"), open("c", "2", "a", "b")}, "brand")
	if err != nil || len(merged) != 1 || !slices.Equal(merged[0].Parents, []string{"a", "b"}) {
		t.Fatalf("a merge: %+v, %v", merged, err)
	}
}

func TestMissingChildren(t *testing.T) {
	listed := []Shard{closed("p", "1"), open("c", "2", "p"), open("d", "2", "p")}
	for _, tc := range []struct {
		name   string
		leases []lease.Lease
		want   []string
	}{
		{"one of two was never made, or deleted", []lease.Lease{at("p", checkpoint.ShardEnd), at("c", "5")}, []string{"d"}},
		{"the parent is still being read", []lease.Lease{at("p", "5")}, nil},
		{"the parent was cleaned up", []lease.Lease{at("c", "5")}, nil},
	} {
		if got := MissingChildren(listed, table(tc.leases...), "brand"); !slices.Equal(keys(got), tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, keys(got), tc.want)
		}
	}
}

func TestMissingAncestorsOfAMerge(t *testing.T) {
	// Two roots: a is split into a1 and a2; b into b0, whose child b1 is merged with a2.
	listed := []Shard{
		closed("a", "1"), closed("b", "1"), closed("a1", "2", "a"), closed("a2", "2", "a"),
		closed("b0", "2", "b"), closed("b1", "3", "b0"), open("m", "4", "a2", "b1"),
	}
	child := at("m", checkpoint.TrimHorizon)
	child.Parents = []string{"a2", "b1"}
	for _, tc := range []struct {
		name   string
		leases []lease.Lease
		want   []string
	}{
		{"the other root is being read", []lease.Lease{at("b", "5"), at("a2", "5")}, []string{"b0", "b1"}},
		{"the other parent has its lease", []lease.Lease{at("b1", "5"), at("a2", "5")}, nil},
		{"the other parent lies before the start", []lease.Lease{at("a2", "5")}, nil},
		{"the child has its lease", []lease.Lease{at("b", checkpoint.ShardEnd), at("a2", "5"), at("m", checkpoint.TrimHorizon)}, nil},
	} {
		got := MissingAncestors([]lease.Lease{child}, listed, table(tc.leases...), "brand")
		if !slices.Equal(keys(got), tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, keys(got), tc.want)
		}
		for _, l := range got {
			if l.Checkpoint.Sequence != checkpoint.TrimHorizon || l.Stream != "brand" {
				t.Errorf("%s: %+v", tc.name, l)
			}
		}
	}
}

func TestCleanable(t *testing.T) {
	listed := []Shard{closed("p", "1"), open("c", "2", "p"), open("d", "2", "p")}
	child := func(key, sequence string) lease.Lease {
		l := at(key, sequence)
		l.Parents = []string{"p"}
		return l
	}
	owned := at("p", checkpoint.ShardEnd)
	owned.Owner = "somebody"
	grandparented := at("p", checkpoint.ShardEnd)
	grandparented.Parents = []string{"g"}
	for _, tc := range []struct {
		name   string
		listed []Shard
		leases []lease.Lease
		want   []string
	}{
		{"both children have begun", listed, []lease.Lease{at("p", checkpoint.ShardEnd), child("c", "5"), child("d", checkpoint.Latest)}, []string{"p"}},
		{"one child has not begun", listed, []lease.Lease{at("p", checkpoint.ShardEnd), child("c", "5"), child("d", checkpoint.TrimHorizon)}, nil},
		{"one child has no lease yet", listed, []lease.Lease{at("p", checkpoint.ShardEnd), child("c", "5")}, nil},
		{"its own parent comes first", listed, []lease.Lease{at("g", checkpoint.ShardEnd), grandparented, child("c", "5"), child("d", "5")}, []string{"g"}},
		{"somebody holds it", listed, []lease.Lease{owned, child("c", "5"), child("d", "5")}, nil},
		{"it is being read", listed, []lease.Lease{at("p", "5"), child("c", "5"), child("d", "5")}, nil},
		{"listed, and no child known", listed[:1], []lease.Lease{at("p", checkpoint.ShardEnd)}, nil},
		{"not listed any more, a child waits", nil, []lease.Lease{at("p", checkpoint.ShardEnd), child("c", checkpoint.TrimHorizon)}, nil},
		{"garbage", nil, []lease.Lease{at("p", checkpoint.ShardEnd)}, []string{"p"}},
	} {
		if got := Cleanable(tc.listed, table(tc.leases...)); !slices.Equal(keys(got), tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, keys(got), tc.want)
		}
	}
}

// TestACleanedUpParentIsNotReadAgain plays a split to its end: whatever is cleaned up, Holes and MissingChildren never
// want back.
func TestACleanedUpParentIsNotReadAgain(t *testing.T) {
	listed := []Shard{closed("p", "1"), closed("c", "2", "p"), closed("d", "2", "p"), open("m", "3", "c", "d")}
	leases := table(at("p", checkpoint.ShardEnd), at("c", checkpoint.ShardEnd), at("d", checkpoint.ShardEnd), at("m", "7"))
	for key, l := range leases {
		for _, s := range listed {
			if s.ID == key {
				l.Parents = s.Parents
				leases[key] = l
			}
		}
	}
	for len(leases) > 1 {
		cleanable := Cleanable(listed, leases)
		if len(cleanable) == 0 {
			t.Fatalf("%d leases stay for ever", len(leases))
		}
		for _, l := range cleanable {
			delete(leases, l.Key)
		}
		if holes := Holes(listed, listed, leases, Start{Position: checkpoint.TrimHorizon}, ""); len(holes) != 0 {
			t.Fatalf("%v would be read again", keys(holes))
		}
		if missing := MissingChildren(listed, leases, ""); len(missing) != 0 {
			t.Fatalf("%v would be read again", keys(missing))
		}
	}
	if _, has := leases["m"]; !has {
		t.Fatal("the open shard lost its lease")
	}
}

// TestTheExampleOfKCLsShardSync is the one by which KCL explains which leases it adds to a table that has some: 0 and 1
// became 6, 2 and 3 became 7, 6 and 7 became 8, 5 became 9 and 10; 4, 5 and 7 have leases.
func TestTheExampleOfKCLsShardSync(t *testing.T) {
	oldest := []Shard{closed("0", "10"), closed("1", "11"), closed("2", "12"), closed("3", "13"), open("4", "14"), closed("5", "15")}
	younger := []Shard{closed("6", "20", "0", "1"), closed("7", "21", "2", "3"), open("8", "30", "6", "7"), open("9", "22", "5"), open("10", "23", "5")}
	all := append(slices.Clone(oldest), younger...)
	leased := func(key string, parents ...string) lease.Lease {
		l := at(key, "50")
		l.Parents = parents
		return l
	}
	leases := table(leased("4"), leased("5"), leased("7", "2", "3"))
	if got := keys(Holes(oldest, all, leases, Start{Position: checkpoint.TrimHorizon}, "")); !slices.Equal(got, []string{"0", "1"}) {
		t.Errorf("from the horizon: %v, want 0 and 1", got)
	}
	// KCL would add 6 at LATEST, where it ends at once. Its records all came before the anchor, and 8 does not wait for a
	// parent without a lease.
	openNow := []Shard{all[4], all[8], all[9], all[10]}
	if got := keys(Holes(openNow, all, leases, Start{Position: checkpoint.Latest, At: anchor}, "")); len(got) != 0 {
		t.Errorf("from the anchor: %v, want none: 8, 9 and 10 follow when 7 and 5 end", got)
	}
}
