package input

import (
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// Flink FLINK-36637: a stream of more shards than one answer of ListShards holds was read in part.
func TestFLINK36637AllPagesOfListShardsAreRead(t *testing.T) {
	k := kinesistest.NewServer()
	defer k.Close()
	const shards = 2100 // an answer holds 1,000
	if err := k.CreateStream("stream", shards); err != nil {
		t.Fatal(err)
	}
	s, err := describe(t.Context(), k.Client(), Config{StreamName: "stream"})
	if err != nil {
		t.Fatal(err)
	}
	listed, err := listShards(t.Context(), k.Client(), s.identity.ARN, nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, sh := range listed {
		seen[sh.ID] = true
	}
	if len(listed) != shards || len(seen) != shards {
		t.Fatalf("listed %d shards, %d of them different, of %d", len(listed), len(seen), shards)
	}
	if calls := k.Count("ListShards"); calls != 3 {
		t.Errorf("%d calls", calls)
	}
}
