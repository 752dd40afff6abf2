package kinesistest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// follower reads a stream from its start by the rules: a shard to its end, whatever breaks on the way, and only then its
// children, when all of their parents have ended.
type follower struct {
	t    *testing.T
	c    *kinesis.Client
	arn  string
	done chan struct{} // closed when all records are there

	mu struct {
		sync.Mutex
		seen  []string
		want  int
		ended map[string]bool
		begun map[string]bool
	}
	shards sync.WaitGroup
}

// start reads a shard unless that has begun, or a parent has not ended.
func (f *follower) start(id string, parents ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range parents {
		if !f.mu.ended[p] {
			return
		}
	}
	if !f.mu.begun[id] {
		f.mu.begun[id] = true
		f.shards.Go(func() { f.read(id) })
	}
}

func (f *follower) read(id string) {
	in := subscribeInput(f.arn, id, "TRIM_HORIZON")
	for {
		select {
		case <-f.done:
			return
		default:
		}
		out, err := f.c.SubscribeToShard(f.t.Context(), in, OwnCodec)
		if err != nil {
			continue // a fault that hit the call
		}
		children := f.events(out.GetStream(), in)
		out.GetStream().Close()
		if children == nil {
			continue
		}
		f.mu.Lock()
		f.mu.ended[id] = true
		f.mu.Unlock()
		for _, child := range children {
			f.start(*child.ShardId, child.ParentShards...)
		}
		return
	}
}

// events reads a subscription to its end, and moves on the position to resume from.
func (f *follower) events(stream *kinesis.SubscribeToShardEventStream, in *kinesis.SubscribeToShardInput) []types.ChildShard {
	for {
		select {
		case <-f.done:
			return nil
		case e, ok := <-stream.Events():
			if !ok {
				return nil
			}
			v := e.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent).Value
			f.mu.Lock()
			f.mu.seen = append(f.mu.seen, texts(v.Records)...)
			if len(f.mu.seen) == f.mu.want {
				close(f.done)
			}
			f.mu.Unlock()
			if v.ContinuationSequenceNumber == nil {
				return v.ChildShards
			}
			in.StartingPosition = &types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: v.ContinuationSequenceNumber}
		}
	}
}

func TestAReaderByTheRulesSeesEveryRecordOnceWhateverBreaks(t *testing.T) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			s, _, _, arn := fanOut(t, 2, append(tr.options, WithSubscriptionTimes(quick))...)
			random := rand.New(rand.NewPCG(7, uint64(tr.major)))
			const records, keys = 600, 8
			f := &follower{t: t, c: tr.client(s), arn: arn, done: make(chan struct{})}
			f.mu.want, f.mu.ended, f.mu.begun = records, map[string]bool{}, map[string]bool{}
			f.start(shard0)
			f.start(shard1)
			for n := range records {
				put(t, s, fmt.Sprintf("key-%d", n%keys), fmt.Sprintf("%d:%d", n%keys, n))
				switch random.IntN(20) {
				case 0:
					_, err := s.UpdateShardCount("orders", 1+random.IntN(5))
					must(t, err)
				case 1, 2, 3:
					kinds := []Kind{Cut, End, FailLater, Fail, Cut}
					i := random.IntN(len(kinds))
					s.Inject(Fault{Operation: "SubscribeToShard", Kind: kinds[i], Code: InternalFailure, Events: random.IntN(4) - 1, Bytes: random.IntN(600), Connection: i == 4})
				case 4:
					s.EndSubscriptions("orders", "", []string{"", ResourceInUse}[random.IntN(2)])
				}
			}
			<-f.done
			f.shards.Wait()
			last, seen := map[string]int{}, map[string]bool{}
			for _, r := range f.mu.seen {
				var key string
				var n int
				if _, err := fmt.Sscanf(r, "%1s:%d", &key, &n); err != nil {
					t.Fatal(r, err)
				}
				if seen[r] || n < last[key] {
					t.Errorf("record %s came twice, or after %d", r, last[key])
				}
				seen[r], last[key] = true, n
			}
			if len(seen) != records {
				t.Errorf("%d of %d records", len(seen), records)
			}
			t.Logf("%d shards, %d subscriptions", len(s.Shards("orders")), s.Count("SubscribeToShard"))
		})
	}
}
