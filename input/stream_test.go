package input

import (
	"slices"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// A stream of two shards; the first was split an hour after its creation. It keeps records for 24 hours.
func TestAFirstStartListsAllThatIsLeftOfTheMomentItBeginsAt(t *testing.T) {
	const (
		parent, other = "shardId-000000000000", "shardId-000000000001"
		low, high     = "shardId-000000000002", "shardId-000000000003"
	)
	created := time.Date(2026, 3, 1, 12, 0, 0, 500e6, time.UTC)
	for _, tc := range []struct {
		name     string
		now      time.Duration // since the creation
		position string
		at       time.Duration // since the creation
		want     []string
	}{
		{"LATEST, its anchor before the creation", 200 * time.Millisecond, checkpoint.Latest, -time.Second, []string{parent, other}},
		{"LATEST later on", 2 * time.Hour, checkpoint.Latest, 2*time.Hour - time.Second, []string{other, low, high}},
		{"years before the creation", 2 * time.Hour, checkpoint.AtTimestamp, -7 * 365 * 24 * time.Hour, []string{parent, other}},
		{"before the split", 2 * time.Hour, checkpoint.AtTimestamp, 30 * time.Minute, []string{parent, other}},
		{"after the split", 2 * time.Hour, checkpoint.AtTimestamp, 90 * time.Minute, []string{other, low, high}},
		// Kinesis has forgotten the parent, so "open at that time" would be the other shard alone.
		{"before a split that is out of retention", 30 * time.Hour, checkpoint.AtTimestamp, 30 * time.Minute, []string{other, low, high}},
		{"before the creation, which is out of retention", 30 * time.Hour, checkpoint.AtTimestamp, -time.Hour, []string{other, low, high}},
		{"TRIM_HORIZON", 30 * time.Hour, checkpoint.TrimHorizon, 0, []string{other, low, high}},
		{"TRIM_HORIZON of a young stream", 2 * time.Hour, checkpoint.TrimHorizon, 0, []string{parent, other}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			clock := kinesistest.NewClock(created)
			k := kinesistest.NewServer(kinesistest.WithClock(clock.Now))
			defer k.Close()
			if err := k.CreateStream("orders", 2); err != nil {
				t.Fatal(err)
			}
			if tc.now > time.Hour {
				clock.Advance(time.Hour)
				if _, err := k.SplitShard("orders", parent); err != nil {
					t.Fatal(err)
				}
			}
			clock.Set(created.Add(tc.now))
			s, err := describe(t.Context(), k.Client(), Config{StreamName: "orders"})
			if err != nil {
				t.Fatal(err)
			}
			shards, err := listFirst(t.Context(), k.Client(), s, shard.Start{Position: tc.position, At: created.Add(tc.at)})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range shards {
				got = append(got, s.ID)
			}
			if slices.Sort(got); !slices.Equal(got, tc.want) {
				t.Fatalf("got %v, want %v", got, tc.want)
			}
		})
	}
}
