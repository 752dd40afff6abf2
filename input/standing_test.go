package input

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
)

func TestWhyAShardDoesNotGetOn(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		expect := func(want cause) {
			t.Helper()
			synctest.Wait()
			if got := s.run.cause(time.Now()); got != want {
				t.Fatalf("%q, want %q", got, want)
			}
		}
		expect("")
		s.shard.put(2)
		_, _, ack := s.next()
		expect("")
		time.Sleep(blockedAfter)
		expect(isBlockedByPulsar)
		_ = ack(t.Context(), nil)
		expect("")
		s.shard.mu.Lock()
		s.shard.fail = retrieval.ErrThrottled
		s.shard.mu.Unlock()
		s.shard.put(1) // wakes the reader
		time.Sleep(2 * troubledAfter)
		expect(isUnreadable)
		s.run.drain()
		expect(isDraining)
		s.run.resume()
		expect(isUnreadable)
	})
}

func (in *input) standing() standing {
	in.mu.Lock()
	w := in.mu.worker
	in.mu.Unlock()
	return w.standing(time.Now())
}

func TestTheCausesOfAllShards(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	in := w.connected()
	w.eventually("both are held", func() bool { return in.standing().held == 2 })
	if s := in.standing(); len(s.blocked) > 0 {
		t.Fatalf("%v", s.blocked)
	}
	// The first shard's batch is away while it is split, so that its children wait; the second's is done.
	w.put("k", "1")
	batch, ack, err := in.ReadBatch(w.ctx())
	if err != nil || len(batch) != 1 {
		t.Fatal(err)
	}
	parent := shard0
	if len(w.kinesis.Records("stream")[shard0]) == 0 {
		parent = "shardId-000000000001"
	}
	children, err := w.kinesis.SplitShard("stream", parent)
	if err != nil {
		t.Fatal(err)
	}
	for _, child := range children { // as another worker's audit would make them
		w.dynamodb.Put("application", childItem(child, parent))
	}
	want := map[string]cause{children[0]: waitsForParents, children[1]: waitsForParents}
	w.eventually("the children wait", func() bool {
		blocked := in.standing().blocked
		delete(blocked, parent) // which is blocked itself when its batch is away for long
		return maps.Equal(blocked, want)
	})
	_ = ack(context.Background(), nil)
	w.eventually("all are read", func() bool { return len(in.standing().blocked) == 0 })
}

// childItem is the lease of a shard that a split has made.
func childItem(child, parent string) map[string]types.AttributeValue {
	text := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
	zero := &types.AttributeValueMemberN{Value: "0"}
	return map[string]types.AttributeValue{
		"leaseKey": text(child), "checkpoint": text("TRIM_HORIZON"), "checkpointSubSequenceNumber": zero, "leaseCounter": zero,
		"ownerSwitchesSinceCheckpoint": zero, "parentShardId": &types.AttributeValueMemberSS{Value: []string{parent}},
	}
}

func TestAShardThatCannotBeReadIsToldOnceEachTime(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		log := &lines{}
		w := &worker{in: &input{log: log.logger()}}
		w.mu.runs = map[string]*run{"shard": s.run}
		var u unreadable
		fail := func(err error) {
			s.shard.mu.Lock()
			s.shard.fail = err
			s.shard.mu.Unlock()
		}
		for i := range 2 {
			fail(fmt.Errorf("the lease of its child can't be written"))
			s.shard.put(1) // wakes the reader
			for range 100 {
				time.Sleep(time.Second)
				u.tell(w, time.Now())
			}
			if got := log.with("level=WARN", "shard", "of its child"); len(got) != i+1 {
				t.Fatalf("told %d times: %q", len(got), got)
			}
			fail(nil)
			_, _, ack := s.next()
			_ = ack(t.Context(), nil)
			u.tell(w, time.Now())
		}
	})
}

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// with returns the lines that hold all of the texts.
func (l *lines) with(texts ...string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
lines:
	for line := range strings.Lines(l.buf.String()) {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue lines
			}
		}
		found = append(found, line)
	}
	return found
}

func (l *lines) logger() *service.Logger {
	return service.NewLoggerFromSlog(slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})))
}
