package output

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

var soakTopics = flag.Int("output.topics", 200, "how many topics the soak of the topic set opens and closes; the full size is 10000")

// An interpolated topic may name any number of topics over time. What is held is bounded by those in use, whether they go
// because others need their place or because they are idle.
func TestTopicsComeAndGo(t *testing.T) {
	const held, perBatch = 16, 8
	var received atomic.Int64
	broker := startBroker(t, pulsartest.Sink(func(*pulsartest.View) { received.Add(1) }), pulsartest.MaxMessageSize(smallLimit))
	o := connected(t, broker.URL(), "topic: 'topic-${! @number }'\ncompression: none\nmax_pending_messages: 64")
	s := o.session.Load()
	s.topics.limit = held
	n := *soakTopics
	large := incompressible(smallLimit + 1)
	// measure tells what is in use when all topics are closed.
	measure := func() (goroutines int, heap uint64) {
		s.topics.sweep(time.Now().Add(idleLimit + time.Second))
		eventually(t, func() error {
			s.unearth()
			s.mu.Lock()
			buried := len(s.mu.buried)
			s.mu.Unlock()
			if producers := len(broker.Producers("")); producers > 0 || buried > 0 {
				return fmt.Errorf("%d producers and %d topics are left", producers, buried)
			}
			return nil
		})
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	var early int
	var earlyHeap uint64
	most := 0
	for begin := 0; begin < n; begin += perBatch {
		keys, payloads := repeat("k", perBatch), repeat("x", perBatch)
		if begin%(5*perBatch) == 0 {
			payloads[3] = large // through a chunking producer
		}
		batch, _ := newShard().batchOf(keys, payloads)
		for i, m := range batch {
			m.MetaSetMut("number", fmt.Sprint(begin+i))
		}
		if err := o.WriteBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if begin%(25*perBatch) == 0 {
			// As the minute's sweep does, of half of them.
			s.topics.sweep(time.Now().Add(idleLimit + time.Second))
		}
		s.unearth()
		// The fake would keep each topic for ever, and with it a kilobyte.
		for i := begin - 4*held - perBatch; i >= 0 && i < begin-4*held; i++ {
			if err := broker.DeleteTopic(fmt.Sprintf("topic-%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		most = max(most, runtime.NumGoroutine())
		if begin >= n/4 && early == 0 {
			early, earlyHeap = measure()
		}
	}
	// The client's goroutines end a little after their producer; what is left behind stays.
	eventually(t, func() error {
		late, lateHeap := measure()
		if late > early+3*held || lateHeap > earlyHeap+3<<20 {
			return fmt.Errorf("%d goroutines and %d KiB in use, after a quarter of the topics there were %d and %d KiB", late, lateHeap>>10, early, earlyHeap>>10)
		}
		t.Logf("%d topics: at most %d goroutines; %d after a quarter and %d at the end, %d KiB and %d KiB in use",
			n, most, early, late, earlyHeap>>10, lateHeap>>10)
		return nil
	})
	if got := received.Load(); got != int64(n) {
		t.Errorf("%d messages of %d", got, n)
	}
	eventually(t, func() error {
		var stacks strings.Builder
		for _, line := range strings.Split(allStacks(), "\n\n") {
			// Not the reconnecting one, which the client leaves behind where a broker ends a producer for good: stories before
			// this one have had that.
			if strings.Contains(line, "(*generation)") || strings.Contains(line, "(*partitionProducer).runEventsLoop(") {
				stacks.WriteString(line)
			}
		}
		if stacks.Len() > 0 {
			return fmt.Errorf("goroutines of closed producers are left:\n%s", stacks.String())
		}
		return nil
	})
}

func allStacks() string {
	for size := 1 << 20; ; size *= 2 {
		b := make([]byte, size)
		if n := runtime.Stack(b, true); n < size {
			return string(b[:n])
		}
	}
}
