package attempt

import "time"

var processStart = time.Now()

// monotonic is the fall-back where no clock is known that counts a suspension.
func monotonic() time.Duration { return time.Since(processStart) }
