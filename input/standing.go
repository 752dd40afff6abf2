package input

import (
	"slices"
	"strings"
	"time"
)

// cause is why a shard of ours does not get on.
type cause string

// The causes. A shard without one is read and delivered.
const (
	waitsForParents   cause = "waiting for parents"    // by itself, until they are read to their ends
	isDraining        cause = "draining"               // another worker is to get it
	isRefused         cause = "refused"                // its lease can't be read from; it is given back until somebody changes it
	isBlockedByPulsar cause = "blocked by Pulsar"      // nothing of it was delivered for blockedAfter
	isUnreadable      cause = "not read from Kinesis"  // reading has failed for troubledAfter
	isLeftToKCL3      cause = "left alone for KCL 3.x" // a free lease that a worker of KCL 3.x beside us keeps us from taking
)

// standing is how the worker's shards are.
type standing struct {
	held    int              // leases that are kept
	blocked map[string]cause // by shard
}

// standing looks at all shards.
func (w *worker) standing(now time.Time) standing {
	stats := w.manager.Stats()
	w.mu.Lock()
	defer w.mu.Unlock()
	s := standing{held: stats.Held, blocked: map[string]cause{}}
	for key := range w.mu.refused {
		s.blocked[key] = isRefused
	}
	for key, waits := range w.mu.waiting {
		s.blocked[key] = waitsForParents
		if waits.draining {
			s.blocked[key] = isDraining
		}
	}
	for key, r := range w.mu.runs {
		if c := r.cause(now); c != "" {
			s.blocked[key] = c
		}
	}
	if stats.Beside != "" {
		for key, l := range w.mu.leases {
			if _, has := s.blocked[key]; !has && w.mu.runs[key] == nil && l.Owner == "" && !l.Ended() {
				s.blocked[key] = isLeftToKCL3
			}
		}
	}
	return s
}

// cause is why the run does not get on; "" if it does.
func (r *run) cause(now time.Time) cause {
	trouble := r.readTrouble(now, troubledAfter)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.mu.handover.begun:
		return isDraining
	case !r.mu.stuck.IsZero() && now.Sub(r.mu.stuck) >= blockedAfter:
		return isBlockedByPulsar
	case trouble != nil:
		return isUnreadable
	}
	return ""
}

// unreadable knows the shards that were told of. It is used by the monitor alone.
type unreadable struct{ told map[string]bool }

// tell warns, once for each time of trouble, of shards that can't be read while others can. When none can be read it is
// the whole input that does not work, which is told as that.
func (u *unreadable) tell(w *worker, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var fresh []string
	var why error
	still := map[string]bool{}
	for key, r := range w.mu.runs {
		if err := r.readTrouble(now, blockedAfter); err != nil {
			still[key] = true
			if !u.told[key] {
				fresh, why = append(fresh, key), err
			}
		}
	}
	u.told = still
	if len(fresh) > 0 {
		slices.Sort(fresh)
		w.in.log.Warnf("Not read for %s, and tried on: %s: %v", blockedAfter, strings.Join(fresh, ", "), why)
	}
}
