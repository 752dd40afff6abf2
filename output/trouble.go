package output

import "time"

// troubleMemory is how long after its last sign a trouble is over though nothing was confirmed: longer than the pause
// between two tries of the input, so that only a partition which nobody writes to any more is forgotten.
const troubleMemory = 20 * time.Second

// trouble is the state of a partition that does not take messages: from the first message that waits, or the first refused
// producer, over any number of producers and replays, to the next receipt. The zero value is no trouble.
type trouble struct {
	since, last time.Time
	cause       error
	told        bool
}

// note takes in a sign of trouble, which began at since, and reports whether it is time to tell: once, when it has lasted for
// blockedAfter.
func (t *trouble) note(since, now time.Time, cause error) (tell bool) {
	if t.since.IsZero() || t.over(now) && !t.told {
		t.since = since
	}
	if since.Before(t.since) {
		t.since = since
	}
	t.last, t.cause = now, cause
	if t.told || now.Sub(t.since) < blockedAfter {
		return false
	}
	t.told = true
	return true
}

// over tells whether there was no sign for long.
func (t *trouble) over(now time.Time) bool { return now.Sub(t.last) > troubleMemory }

// end ends the trouble and reports whether it had been told.
func (t *trouble) end() (wasTold bool) {
	wasTold = t.told
	*t = trouble{}
	return wasTold
}
