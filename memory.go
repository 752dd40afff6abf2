package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// gcPercent is the collector's target. Records live for some tens of milliseconds, and with Go's 100 a good part of the
	// CPU goes into marking the same small heap again and again: at 1 KiB a record, even 200 costs an eighth of the records
	// for each CPU-second. softMemory bounds what it takes.
	gcPercent = 400

	// softMemory is how much memory, in bytes, Go takes before the collector works harder than gcPercent asks for; some
	// 45 MiB of the binary itself come on top. A pipeline of records up to 10 KiB lives at it. Large records go beyond, but
	// are cheap to mark.
	softMemory = 144 << 20
)

// tuneMemory sets the collector up, unless the environment does.
func tuneMemory() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetGCPercent(gcPercent)
	limitMemory(softMemory)
}

// limitMemory sets Go's soft memory limit, and lets it yield where it does not fit: a limit near what is really in use
// would make the collector run all the time. How much that is depends on the whole configuration (maxBufferedBytes,
// buffers, caches, several streams), so it is measured, at the end of every collection.
func limitMemory(soft int64) {
	limit := soft
	debug.SetMemoryLimit(limit)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	afterEachCollection(func() {
		metrics.Read(live)
		next := limitFor(int64(live[0].Value.Uint64()), soft)
		// Setting the limit stops the program for a moment, so small steps are not worth it.
		if next > limit || next < limit-limit/8 {
			limit = next
			debug.SetMemoryLimit(limit)
		}
	})
}

// limitFor leaves at least half as much room for garbage as there is in use.
func limitFor(live, soft int64) int64 { return max(soft, live+live/2) }

// afterEachCollection calls f in the runtime's goroutine for such work, never twice at a time. Go has no callback for
// it; an object that nobody holds is found dead by each collection.
func afterEachCollection(f func()) {
	var renew func()
	renew = func() {
		// A pointer, not a number: small objects without pointers share their memory, and die together.
		runtime.AddCleanup(new(*byte), func(struct{}) {
			f()
			renew()
		}, struct{}{})
	}
	renew()
}
