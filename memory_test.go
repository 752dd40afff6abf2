package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestLimitLeavesRoomForGarbage(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ live, soft, want int64 }{
		{0, 192 * mib, 192 * mib},
		{100 * mib, 192 * mib, 192 * mib},
		{128 * mib, 192 * mib, 192 * mib},
		{200 * mib, 192 * mib, 300 * mib},
		{2000 * mib, 192 * mib, 3000 * mib},
	} {
		if got := limitFor(c.live, c.soft); got != c.want {
			t.Errorf("limit with %d MiB in use: %d MiB, want %d", c.live/mib, got/mib, c.want/mib)
		}
	}
}

// With a fixed limit, a configuration that needs more than that would spend half of the CPU on collections.
func TestMemoryLimitYieldsToWhatIsInUseAndComesBack(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	const soft, used = 8 << 20, 64 << 20
	limitMemory(soft)
	if got := debug.SetMemoryLimit(-1); got != soft {
		t.Fatalf("limit %d at first, want %d", got, soft)
	}
	held := make([]byte, used)
	awaitLimit(t, used*3/2, math.MaxInt64)
	runtime.KeepAlive(held)
	held = nil
	awaitLimit(t, soft, used)
}

// awaitLimit collects until the memory limit is within bounds.
func awaitLimit(t *testing.T, least, most int64) {
	t.Helper()
	var got int64
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		runtime.GC()
		if got = debug.SetMemoryLimit(-1); got >= least && got <= most {
			return
		}
	}
	t.Fatalf("limit %d, want %d to %d", got, least, most)
}
