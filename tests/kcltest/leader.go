package kcltest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

func sorted(leases map[string]Lease) []Lease {
	return slices.SortedFunc(maps.Values(leases), func(a, b Lease) int { return strings.Compare(a.Key, b.Key) })
}

// javaRandom is java.util.Random: a linear congruential generator of 48 bits.
type javaRandom uint64

const (
	javaMultiplier = 0x5DEECE66D
	javaMask       = 1<<48 - 1
)

func newJavaRandom(seed uint64) *javaRandom {
	r := javaRandom((seed ^ javaMultiplier) & javaMask)
	return &r
}

func (r *javaRandom) next(bits uint) int32 {
	*r = (*r*javaMultiplier + 0xB) & javaMask
	return int32(uint64(*r) >> (48 - bits))
}

// intN is Random.nextInt(n), whose overflows count.
func (r *javaRandom) intN(n int32) int32 {
	u := r.next(31)
	if n&(n-1) == 0 {
		return int32(int64(n) * int64(u) >> 31)
	}
	for {
		v := u % n
		if u-v+(n-1) >= 0 {
			return v
		}
		u = r.next(31)
	}
}

// Leader is the worker that KCL 2.x elects: the first of the owners, shuffled with a fixed seed; "" without owners, when
// everybody leads.
func Leader(owners []string) string {
	distinct := slices.Compact(slices.Sorted(slices.Values(owners)))
	if len(distinct) == 0 {
		return ""
	}
	r := newJavaRandom(1947)
	for i := len(distinct); i > 1; i-- {
		j := r.intN(int32(i))
		distinct[i-1], distinct[j] = distinct[j], distinct[i-1]
	}
	return distinct[0]
}

// leads tells whether this worker leads, by the leases' owners.
func (w *Worker) leads(leases []Lease) bool {
	var owners []string
	for _, l := range leases {
		if l.Owner != "" {
			owners = append(owners, l.Owner)
		}
	}
	leader := Leader(owners)
	return leader == "" || leader == w.cfg.WorkerID
}

// firstSync fills an empty table. Others get a chance first, so that one does it.
func (w *Worker) firstSync(ctx context.Context) {
	if w.cfg.Shards == nil {
		return
	}
	w.random.Lock()
	wait := time.Second + time.Duration(w.random.Int64N(int64(firstSyncWait-time.Second)))
	w.random.Unlock()
	for until := w.cfg.Clock() + wait; ; {
		leases, err := w.table.list(ctx)
		if err == nil && len(leases) > 0 {
			return
		}
		if err == nil && w.cfg.Clock() >= until {
			for _, s := range w.cfg.Shards() {
				// The listing of a first start is filtered by the position: for LATEST, the open shards.
				if w.cfg.InitialPosition == Latest && s.Closed {
					continue
				}
				_, _ = w.table.create(ctx, leaseOf(s, w.cfg.InitialPosition)) // the audit mends what fails
			}
			return
		}
		if !sleep(ctx, 3*time.Second) {
			return
		}
	}
}

// audit looks for shards without a lease, when this worker leads.
func (w *Worker) audit(ctx context.Context) {
	if w.cfg.Shards == nil {
		return
	}
	leader, electAt := false, w.cfg.Clock()
	first := true
	holes := map[string]int{}
	for pause := firstAudit; sleep(ctx, pause); pause = auditPeriod {
		leases, err := w.table.list(ctx)
		if err != nil {
			continue
		}
		if now := w.cfg.Clock(); now >= electAt {
			leader, electAt = w.leads(leases), now+electPeriod
			if first {
				first, electAt = false, now+electAfter
			}
		}
		if !leader {
			clear(holes)
			continue
		}
		next := map[string]int{}
		for _, s := range orphans(w.cfg.Shards(), leases) {
			next[s.ID] = holes[s.ID] + 1
			if next[s.ID] >= holeAudits {
				_, _ = w.table.create(ctx, leaseOf(s, w.cfg.InitialPosition))
			}
		}
		holes = next
	}
}

// orphans are open shards without a lease and without an ancestor that has one: whose range nobody will ever read.
// (Shards behind a leased ancestor are left to its end.)
func orphans(shards []Shard, leases []Lease) (orphans []Shard) {
	has := map[string]bool{}
	for _, l := range leases {
		has[l.Key] = true
	}
	byID := map[string]Shard{}
	for _, s := range shards {
		byID[s.ID] = s
	}
	var descends func(id string) bool
	descends = func(id string) bool {
		return has[id] || slices.ContainsFunc(byID[id].Parents, descends)
	}
	for _, s := range shards {
		if !s.Closed && !descends(s.ID) {
			orphans = append(orphans, s)
		}
	}
	return orphans
}
