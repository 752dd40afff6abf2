package output

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// Every restart of the broker costs the client its connections, and some of them cost us a producer generation. None of it
// may be left behind: neither goroutines nor memory may grow with the number of restarts.
func TestRestartsLeaveNothingBehind(t *testing.T) {
	const settleIn, restarts = 5, 200
	b := startBroker(t, pulsartest.Sink(func(*pulsartest.View) {}))
	if err := b.CreatePartitionedTopic("t", 4); err != nil {
		t.Fatal(err)
	}
	o := connected(t, b.URL(), "topic: t")
	keys, payloads := make([]string, 40), make([]string, 40)
	for i := range keys {
		keys[i], payloads[i] = strconv.Itoa(i), strconv.Itoa(i)
	}
	var goroutines, replays int
	var memory uint64
	for i := range restarts {
		// A batch is stored and has no receipts when the broker goes, and with every other restart its producers are refused
		// at first, so that generations end.
		stored := b.Counters("t").Messages
		release := b.StallReceipts("t")
		written := make(chan struct{})
		go func() {
			defer close(written)
			replays += deliver(t, o, keys, payloads)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), busy)
		if err := b.Wait(ctx, func() bool { return b.Counters("t").Messages > stored }); err != nil {
			t.Fatal(err)
		}
		cancel()
		if i%2 == 1 {
			b.RefuseProducers("t", 4, pulsartest.ProducerBlockedQuotaExceededException, "the backlog is full")
		}
		b.Stop()
		release()
		if err := b.Restart(); err != nil {
			t.Fatal(err)
		}
		<-written
		if i+1 == settleIn {
			goroutines, memory = footprint(t, b)
		}
	}
	if replays < restarts/4 {
		t.Errorf("%d replays: the restarts are about nothing", replays)
	}
	// What is being closed at the moment comes and goes: two generations' worth, and 2 MiB. It goes later where the machine is
	// busy; what is left behind stays.
	eventually(t, func() error {
		n, bytes := footprint(t, b)
		if n > goroutines+20 || bytes > memory+2<<20 {
			return fmt.Errorf("after %d restarts %d goroutines and %d KiB, after %d restarts %d and %d KiB", settleIn, goroutines, memory>>10, restarts, n, bytes>>10)
		}
		return nil
	})
}

// footprint is the process's goroutines and live heap when the four producers are there and the old ones gone.
func footprint(t *testing.T, b *pulsartest.Broker) (goroutines int, heap uint64) {
	t.Helper()
	eventually(t, func() error {
		if n := len(b.Producers("t")); n != 4 {
			return errProducers(n)
		}
		return nil
	})
	goroutines = runtime.NumGoroutine()
	for range 20 { // what is ending ends within a second
		time.Sleep(50 * time.Millisecond)
		goroutines = min(goroutines, runtime.NumGoroutine())
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return goroutines, m.HeapAlloc
}

type errProducers int

func (n errProducers) Error() string { return strconv.Itoa(int(n)) + " producers instead of 4" }
