package lease

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Items of KCL 3.x and their attributes. Up to 3.4 they lie in tables of their own, since 3.5 among the leases.
const (
	leaderKey        = "Leader"
	workersSuffix    = "-WorkerMetricStats"
	entityTypeWorker = "WORKER_METRIC_STATS"
	entityTypeLeader = "LEADER"

	attrLeaderOwner   = "ownerName"
	attrLeaderVersion = "recordVersionNumber"
	attrWorkerID      = "wid"
	attrWorkerSeen    = "lut" // epoch seconds
)

// How long KCL 3.x may stay silent: a worker reports each 30 s and is dead for its leader after twice that, which renews
// its lock each 30 s. A half more is for the time until a scan sees it.
const besideSilence = 90 * time.Second

// generation tells how the workers of a KCL application coordinate, as far as the version that they have stored says.
type generation int

const (
	generationUnknown generation = iota
	generation2
	generation3
)

// generationOf reads the client version. 3.x workers work as 2.x does until their migration is through, and again after
// a rollback; a version of the future is taken for more than 2.x.
func generationOf(version string) generation {
	switch version {
	case "":
		return generationUnknown
	case "CLIENT_VERSION_INIT", "CLIENT_VERSION_UPGRADE_FROM_2X", "CLIENT_VERSION_2X":
		return generation2
	}
	return generation3
}

// coordinator is what KCL 3.x keeps outside of the leases.
type coordinator struct {
	// version is the stored client version, "" = none.
	version string
	// unreadable is set when permissions are missing to look for the version.
	unreadable bool
	// unreadableWorkers is set when they are missing for the workers' reports.
	unreadableWorkers bool
	leader            map[string]types.AttributeValue
	// workers are the rows by which workers report, by their ids.
	workers map[string]map[string]types.AttributeValue
	// index is set when the lease table has the index that 3.x works with.
	index bool
}

// with adds what lies among the leases.
func (c coordinator) with(foreign []Foreign) coordinator {
	c.workers = maps.Clone(c.workers)
	if c.workers == nil {
		c.workers = map[string]map[string]types.AttributeValue{}
	}
	for _, f := range foreign {
		switch {
		case f.Key == migrationKey:
			// Two 3.x generations on one table may have stored both. The one that asks for more care counts.
			if v := clientVersion(f.Item); generationOf(v) >= generationOf(c.version) {
				c.version = v
			}
		case f.EntityType == entityTypeLeader:
			c.leader = f.Item
		case f.EntityType == entityTypeWorker:
			c.workers[f.Key] = f.Item
		}
	}
	return c
}

// leaseSignal begins the names of the signals of leases.
const leaseSignal = "lease "

// signal is something that only a live KCL worker moves.
type signal struct {
	worker string
	value  string
	// three is set when only a KCL 3.x worker can be its mover, as far as the signal itself tells.
	three bool
	// patience is how long after its last move the signal stands for a live worker.
	patience time.Duration
	moved    bool
	movedAt  time.Duration
}

// witness sees who of KCL is alive: only what moved before its eyes proves it. A young time stamp does not, since an
// orderly stop leaves owners and fresh rows behind (r8.1).
type witness struct {
	failover   time.Duration
	generation generation
	signals    map[string]signal
}

// see brings the witness up to date with the table as it was read just now.
func (w *witness) see(leases []Lease, c coordinator, now time.Duration) {
	next := map[string]signal{}
	note := func(name string, s signal, isMove func(before string) bool, appearing bool) {
		before, ok := w.signals[name]
		s.moved, s.movedAt = before.moved, before.movedAt
		if ok && isMove(before.value) || !ok && appearing && w.signals != nil {
			s.moved, s.movedAt = true, now
		}
		next[name] = s
	}
	for _, l := range leases {
		if l.CheckpointOwner != "" {
			// Only a leader of 3.x begins a hand-over, so a new one is a sign of life, whoever has the lease.
			note("hand-over of lease "+l.Key, signal{worker: l.Owner, value: l.CheckpointOwner + " " + l.Owner, three: true, patience: besideSilence},
				func(before string) bool { return before != l.CheckpointOwner+" "+l.Owner }, true)
		}
		worker, last := keeper(l), acquirer(l)
		if worker == "" || worker == last {
			continue
		}
		three := l.CheckpointOwner != "" || c.unreadable && (c.index || l.ThroughputKBps != nil)
		// A lease that just appears may have been read too late, from before it was taken from a dead owner.
		note(leaseSignal+l.Key+" of "+worker, signal{worker: worker, value: strconv.FormatInt(l.Counter, 10), three: three, patience: w.failover * 4 / 3},
			func(before string) bool {
				n, _ := strconv.ParseInt(before, 10, 64)
				return l.Counter > n
			}, false)
	}
	report := func(name, worker, value string) {
		if value != "" {
			note(name, signal{worker: worker, value: value, three: true, patience: besideSilence}, func(before string) bool { return before != value }, true)
		}
	}
	report("the leader's lock", attributeText(c.leader, attrLeaderOwner), attributeText(c.leader, attrLeaderVersion))
	for worker, row := range c.workers {
		report("the report of "+worker, worker, attributeText(row, attrWorkerSeen))
	}
	w.signals, w.generation = next, generationOf(c.version)
}

// alive returns a worker that has been seen to move and coordinates as KCL 3.x does, and what moved; "" = there is none.
func (w *witness) alive(now time.Duration) (worker, what string) {
	if w.generation == generation2 {
		return "", ""
	}
	for _, name := range slices.Sorted(maps.Keys(w.signals)) {
		s := w.signals[name]
		if s.moved && now-s.movedAt <= s.patience && (s.three || w.generation == generation3) {
			return s.worker, name
		}
	}
	return "", ""
}

// acquirer is the worker of ours that acquired the lease last, "" if none ever did.
func acquirer(l Lease) string {
	worker, _, _ := strings.Cut(l.Acquisition, "#")
	return worker
}

// owners tells whether the witness knows of leases that KCL's workers have.
func (w *witness) owners() bool {
	for name := range w.signals {
		if strings.HasPrefix(name, leaseSignal) {
			return true
		}
	}
	return false
}

// attributeText is an attribute of type S or N as text, "" if there is none.
func attributeText(item map[string]types.AttributeValue, name string) string {
	switch v := item[name].(type) {
	case *types.AttributeValueMemberS:
		return v.Value
	case *types.AttributeValueMemberN:
		return v.Value
	}
	return ""
}
