package kinesistest

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// list lists the shards' indexes through all pages.
func list(t *testing.T, c *kinesis.Client, in *kinesis.ListShardsInput) []int {
	t.Helper()
	in.StreamName = aws.String("orders")
	var got []int
	for {
		page, err := c.ListShards(t.Context(), in)
		must(t, err)
		if in.MaxResults != nil && len(page.Shards) > int(*in.MaxResults) {
			t.Errorf("a page of %d shards", len(page.Shards))
		}
		for _, sh := range page.Shards {
			id := *sh.ShardId
			n := 0
			for _, digit := range id[len("shardId-"):] {
				n = 10*n + int(digit-'0')
			}
			got = append(got, n)
		}
		if page.NextToken == nil {
			return got
		}
		in = &kinesis.ListShardsInput{NextToken: page.NextToken, MaxResults: in.MaxResults}
	}
}

func TestListShardsFiltersByTimeAndKeepsTheFilterOnEveryPage(t *testing.T) {
	s, c, clock := start(t, 3) // at noon: 0, 1, 2
	clock.Advance(time.Hour)
	_, err := s.SplitShard("orders", shard0) // at 13: 0 → 3, 4
	must(t, err)
	clock.Advance(time.Hour)
	_, err = s.MergeShards("orders", "shardId-000000000004", shard1) // at 14: 4 and 1 → 5
	must(t, err)
	clock.Advance(time.Hour)
	at := func(kind types.ShardFilterType, d time.Duration) *types.ShardFilter {
		return &types.ShardFilter{Type: kind, Timestamp: aws.Time(noon.Add(d))}
	}
	check := func(filter *types.ShardFilter, want ...int) {
		t.Helper()
		for _, size := range []int32{0, 1, 2} {
			in := &kinesis.ListShardsInput{ShardFilter: filter}
			if size > 0 {
				in.MaxResults = &size
			}
			if got := list(t, c, in); !slices.Equal(got, want) {
				t.Errorf("%v by %d: %v instead of %v", filter, size, got, want)
			}
		}
	}
	check(nil, 0, 1, 2, 3, 4, 5)
	check(&types.ShardFilter{Type: "AT_LATEST"}, 2, 3, 5)
	check(&types.ShardFilter{Type: "AT_TRIM_HORIZON"}, 0, 1, 2)
	check(&types.ShardFilter{Type: "FROM_TRIM_HORIZON"}, 0, 1, 2, 3, 4, 5)
	check(&types.ShardFilter{Type: "AFTER_SHARD_ID", ShardId: aws.String("shardId-000000000002")}, 3, 4, 5)
	check(at("AT_TIMESTAMP", 30*time.Minute), 0, 1, 2)
	check(at("AT_TIMESTAMP", 90*time.Minute), 1, 2, 3, 4)
	check(at("AT_TIMESTAMP", 3*time.Hour), 2, 3, 5)
	check(at("FROM_TIMESTAMP", 90*time.Minute), 1, 2, 3, 4, 5)

	// A day after its end a shard is forgotten, and its children are at the trim horizon.
	clock.Set(noon.Add(25 * time.Hour))
	check(nil, 1, 2, 3, 4, 5)
	check(&types.ShardFilter{Type: "AT_TRIM_HORIZON"}, 1, 2, 3, 4)
	_, err = c.GetShardIterator(t.Context(), iteratorInput(shard0, "TRIM_HORIZON"))
	wantError[*types.ResourceNotFoundException](t, err)

	for _, bad := range []*types.ShardFilter{{Type: "AT_TIMESTAMP"}, at("AT_TIMESTAMP", 26*time.Hour), {Type: "AFTER_SHARD_ID"}} {
		_, err := c.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("orders"), ShardFilter: bad})
		wantError[*types.InvalidArgumentException](t, err)
	}
}

func TestListShardsTokensStandAloneAndExpire(t *testing.T) {
	_, c, clock := start(t, 5)
	page, err := c.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("orders"), MaxResults: aws.Int32(2)})
	must(t, err)
	_, err = c.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("orders"), NextToken: page.NextToken})
	wantError[*types.InvalidArgumentException](t, err)
	_, err = c.ListShards(t.Context(), &kinesis.ListShardsInput{NextToken: aws.String("AAAA")})
	wantError[*types.InvalidArgumentException](t, err)
	rest, err := c.ListShards(t.Context(), &kinesis.ListShardsInput{NextToken: page.NextToken})
	must(t, err)
	if len(rest.Shards) != 3 || rest.NextToken != nil {
		t.Errorf("the second page, of the size it asks for, has %d shards", len(rest.Shards))
	}
	clock.Advance(5*time.Minute + time.Millisecond)
	_, err = c.ListShards(t.Context(), &kinesis.ListShardsInput{NextToken: page.NextToken})
	wantError[*types.ExpiredNextTokenException](t, err)
	_, err = c.ListShards(t.Context(), &kinesis.ListShardsInput{
		StreamName: aws.String("orders"), StreamCreationTimestamp: aws.Time(noon.Add(-time.Hour))})
	wantError[*types.ResourceNotFoundException](t, err)
}

func TestAClosedShardIsReadToItsEndAndNamesItsChildren(t *testing.T) {
	s, c, _ := start(t, 2)
	old := put(t, s, "k", "before", "split")
	id := old[0].ShardID
	middle := s.Shards("orders")[indexOf(old[0])]
	latest := getIterator(t, c, iteratorInput(id, "LATEST"))
	_, err := c.SplitShard(t.Context(), &kinesis.SplitShardInput{StreamName: aws.String("orders"), ShardToSplit: &id, NewStartingHashKey: &middle.EndingHashKey})
	must(t, err)
	fresh := put(t, s, "k", "after")[0]
	if fresh.SequenceNumber <= old[1].SequenceNumber || fresh.ShardID != "shardId-000000000002" {
		t.Errorf("the child's first record is %s in %s", fresh.SequenceNumber, fresh.ShardID)
	}
	wantTiled(t, s, "orders")

	first := get(t, c, getIterator(t, c, iteratorInput(id, "TRIM_HORIZON")), 1)
	if first.NextShardIterator == nil || len(first.ChildShards) != 0 {
		t.Fatal("the shard ends before its last record")
	}
	for _, end := range []*kinesis.GetRecordsOutput{get(t, c, first.NextShardIterator, 0), get(t, c, latest, 0)} {
		if end.NextShardIterator != nil || len(end.ChildShards) != 2 || *end.MillisBehindLatest != 0 {
			t.Fatalf("the shard's end is %+v", end)
		}
		if child := end.ChildShards[1]; *child.ShardId != "shardId-000000000003" || !slices.Equal(child.ParentShards, []string{id}) ||
			*child.HashKeyRange.StartingHashKey != middle.EndingHashKey {
			t.Errorf("its second child is %+v", child)
		}
	}
	parent := s.Shards("orders")[indexOf(old[0])]
	if parent.EndingSequence <= old[1].SequenceNumber || !slices.Equal(parent.Children, []string{"shardId-000000000002", "shardId-000000000003"}) {
		t.Errorf("the parent is %+v", parent)
	}
	for _, sh := range s.Shards("orders")[2:] {
		if sh.StartingSequence <= old[1].SequenceNumber {
			t.Errorf("%s starts at %s, before its parent's last record", sh.ID, sh.StartingSequence)
		}
	}
}

// indexOf is the index of a record's shard.
func indexOf(r Record) int {
	q, _ := parseSequence(r.SequenceNumber)
	return int(q.shard)
}

func TestAMergeHasTwoParents(t *testing.T) {
	s, c, _ := start(t, 3)
	_, err := c.MergeShards(t.Context(), &kinesis.MergeShardsInput{
		StreamName: aws.String("orders"), ShardToMerge: aws.String(shard1), AdjacentShardToMerge: aws.String(shard0)})
	must(t, err)
	wantTiled(t, s, "orders")
	for _, id := range []string{shard0, shard1} {
		end := get(t, c, getIterator(t, c, iteratorInput(id, "TRIM_HORIZON")), 0)
		if len(end.ChildShards) != 1 || !slices.Equal(end.ChildShards[0].ParentShards, []string{shard1, shard0}) {
			t.Errorf("the end of %s is %+v", id, end.ChildShards)
		}
	}
	out, err := c.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("orders")})
	must(t, err)
	if sh := out.Shards[3]; *sh.ParentShardId != shard1 || *sh.AdjacentParentShardId != shard0 {
		t.Errorf("the child is %+v", sh)
	}
	if sh := out.Shards[0]; sh.SequenceNumberRange.EndingSequenceNumber == nil {
		t.Error("the parent is listed as open")
	}
	// What can't be resharded is refused.
	_, err = c.MergeShards(t.Context(), &kinesis.MergeShardsInput{
		StreamName: aws.String("orders"), ShardToMerge: aws.String(shard1), AdjacentShardToMerge: aws.String("shardId-000000000002")})
	wantError[*types.ResourceInUseException](t, err)
	_, err = c.SplitShard(t.Context(), &kinesis.SplitShardInput{
		StreamName: aws.String("orders"), ShardToSplit: aws.String("shardId-000000000003"), NewStartingHashKey: aws.String("0")})
	wantError[*types.InvalidArgumentException](t, err)
	_, err = c.SplitShard(t.Context(), &kinesis.SplitShardInput{
		StreamName: aws.String("orders"), ShardToSplit: aws.String("shardId-000000000009"), NewStartingHashKey: aws.String("0")})
	wantError[*types.ResourceNotFoundException](t, err)
	must(t, s.CreateStream("four", 4))
	_, err = s.MergeShards("four", shard0, "shardId-000000000002")
	if err == nil {
		t.Error("shards that do not touch are merged")
	}
}

func TestReshardingIsRefusedWhileTheStreamIsUpdating(t *testing.T) {
	s, c, clock := start(t, 1, WithStateDelay(time.Second))
	clock.Advance(time.Second)
	split := func(id string, key string) error {
		_, err := c.SplitShard(t.Context(), &kinesis.SplitShardInput{StreamName: aws.String("orders"), ShardToSplit: &id, NewStartingHashKey: &key})
		return err
	}
	must(t, split(shard0, "100"))
	put(t, s, "k", "while it is updating")
	wantError[*types.ResourceInUseException](t, split(shard1, "50"))
	clock.Advance(time.Second)
	must(t, split(shard1, "50"))
}

// Whatever is split and merged, the open shards tile the key space and the records of a key have growing sequence numbers across its shards.
func TestTheKeySpaceStaysTiledThroughRandomResharding(t *testing.T) {
	s, _, clock := start(t, 3)
	random, last := rand.New(rand.NewPCG(1, 2)), ""
	for range 60 {
		var open []string
		for _, sh := range s.Shards("orders") {
			if sh.Closed.IsZero() {
				open = append(open, sh.ID)
			}
		}
		id := open[random.IntN(len(open))]
		if random.IntN(2) == 0 && len(open) < 10 {
			_, err := s.SplitShard("orders", id)
			must(t, err)
		} else {
			s.MergeShards("orders", id, open[random.IntN(len(open))]) // most pairs do not touch and are refused
		}
		wantTiled(t, s, "orders")
		r := put(t, s, "k", "x")[0]
		if r.SequenceNumber <= last {
			t.Fatalf("%s in %s does not follow %s", r.SequenceNumber, r.ShardID, last)
		}
		last = r.SequenceNumber
		if random.IntN(2) == 0 {
			clock.Advance(time.Duration(random.IntN(2000)) * time.Millisecond)
		}
	}
}
