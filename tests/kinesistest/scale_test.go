package kinesistest

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// checkTiling wants the open shards to tile the key space evenly, and every closed one to have been replaced whole by its children.
func checkTiling(t *testing.T, s *Server, count int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams["orders"]
	if len(st.open) != count {
		t.Fatalf("%d open shards instead of %d", len(st.open), count)
	}
	first := hashKey{}
	fair := new(big.Int).Div(keySpace, big.NewInt(int64(count)))
	for i, sh := range st.open {
		if sh.keys.first != first {
			t.Errorf("shard %d starts at %v instead of %v", i, sh.keys.first, first)
		}
		first = sh.keys.last.next()
		size := new(big.Int).Sub(sh.keys.last.int(), sh.keys.first.int())
		if off := size.Sub(size, fair); off.Abs(off).BitLen() > 22 {
			t.Errorf("shard %d is off its fair size by about 2^%d keys", i, off.BitLen())
		}
	}
	if first != (hashKey{}) {
		t.Errorf("the key space is tiled up to %v", first)
	}
	for _, sh := range st.shards {
		for _, child := range sh.children {
			if sh.isOpen() || child.startingSequence() <= sh.endingSequence() {
				t.Errorf("%s follows %s, which ends at %q", child.id, sh.id, sh.endingSequence())
			}
		}
		if !sh.isOpen() && len(sh.children) == 0 {
			t.Errorf("%s is closed and has no children", sh.id)
		}
	}
}

func TestUpdateShardCountSplitsAndMergesUntilTheShardsAreEven(t *testing.T) {
	s, _, _ := start(t, 1)
	shards := func() int { return len(s.Shards("orders")) }
	for _, step := range []struct{ target, all int }{
		{2, 1 + 2},                     // one split
		{4, 3 + 4},                     // two
		{4, 7},                         // none
		{8, 7 + 8},                     // four
		{4, 15 + 4},                    // four merges
		{1, 19 + 3},                    // three
		{3, 22 + 2*2},                  // two splits, one of a child at once
		{6, 26 + 2*3},                  // the thirds stay, though a sixth is not exactly half of one
		{4, 32 + 2*2 + 4 /* merges */}, // a shard of a sixth may be split and its halves merged with others
	} {
		_, err := s.UpdateShardCount("orders", step.target)
		must(t, err)
		checkTiling(t, s, step.target)
		if got := shards(); got != step.all {
			t.Errorf("at %d open shards there are %d in all instead of %d", step.target, got, step.all)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		n := 1 + random.IntN(40)
		_, err := s.UpdateShardCount("orders", n)
		must(t, err)
		checkTiling(t, s, n)
	}
	if _, err := s.UpdateShardCount("orders", 0); err == nil {
		t.Error("scaled to no shard")
	}
}

func TestTheCallOfUpdateShardCountHasAWSsLimitsAndStates(t *testing.T) {
	s, c, clock := start(t, 4, WithStateDelay(30*time.Second), WithShardLimit(9))
	update := func(target int32) (*kinesis.UpdateShardCountOutput, error) {
		return c.UpdateShardCount(t.Context(), &kinesis.UpdateShardCountInput{StreamName: aws.String("orders"), TargetShardCount: &target, ScalingType: types.ScalingTypeUniformScaling})
	}
	status := func(want types.StreamStatus, shards int32) {
		t.Helper()
		out, err := c.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String("orders")})
		must(t, err)
		if d := out.StreamDescriptionSummary; d.StreamStatus != want || *d.OpenShardCount != shards {
			t.Errorf("%s with %d open shards", d.StreamStatus, *d.OpenShardCount)
		}
	}
	_, err := update(9)
	wantError[*types.LimitExceededException](t, err)
	_, err = update(1)
	wantError[*types.LimitExceededException](t, err)
	out, err := update(8)
	must(t, err)
	if *out.CurrentShardCount != 4 || *out.TargetShardCount != 8 || *out.StreamName != "orders" || *out.StreamARN != s.streamARN("orders") {
		t.Errorf("answered %+v", out)
	}
	status(types.StreamStatusUpdating, 8)
	put(t, s, "k", "a") // an UPDATING stream serves
	_, err = update(4)
	wantError[*types.ResourceInUseException](t, err)
	clock.Advance(30 * time.Second)
	status(types.StreamStatusActive, 8)
	_, err = update(10) // of the account
	wantError[*types.LimitExceededException](t, err)
	_, err = update(0)
	wantCode(t, err, Validation)
	_, err = c.UpdateShardCount(t.Context(), &kinesis.UpdateShardCountInput{StreamName: aws.String("orders"), TargetShardCount: aws.Int32(4), ScalingType: "OTHER"})
	wantCode(t, err, Validation)

	// An on-demand stream scales itself.
	mode := func(m types.StreamMode) {
		_, err := c.UpdateStreamMode(t.Context(), &kinesis.UpdateStreamModeInput{StreamARN: aws.String(s.streamARN("orders")), StreamModeDetails: &types.StreamModeDetails{StreamMode: m}})
		must(t, err)
		clock.Advance(30 * time.Second)
	}
	mode(types.StreamModeOnDemand)
	_, err = update(4)
	wantError[*types.ValidationException](t, err)
	_, err = c.MergeShards(t.Context(), &kinesis.MergeShardsInput{StreamName: aws.String("orders"), ShardToMerge: aws.String("shardId-000000000004"), AdjacentShardToMerge: aws.String("shardId-000000000005")})
	wantError[*types.ValidationException](t, err)
	_, err = c.SplitShard(t.Context(), &kinesis.SplitShardInput{StreamName: aws.String("orders"), ShardToSplit: aws.String("shardId-000000000004"), NewStartingHashKey: aws.String("5")})
	wantError[*types.ValidationException](t, err)
	mode(types.StreamModeProvisioned)
	_, err = update(4)
	must(t, err)
	checkTiling(t, s, 4)
}
