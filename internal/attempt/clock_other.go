//go:build !linux

package attempt

import "time"

// BootClock is Go's monotonic clock here. Where that stops during a suspension, a worker that wakes up notices the loss
// of a lease with its next renewal only.
func BootClock() time.Duration { return monotonic() }
