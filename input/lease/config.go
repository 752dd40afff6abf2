package lease

import (
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
)

// Logger is where a manager tells what happens. *service.Logger of Benthos satisfies it.
type Logger interface {
	Debugf(format string, args ...any)
	Infof(format string, args ...any)
	Warnf(format string, args ...any)
}

// Config is what a manager works with.
type Config struct {
	Table *Table
	// WorkerID names this worker in the table. It must be new with every start of the process: two with one id would
	// each believe in the other's leases. At most 48 bytes, no '#'.
	WorkerID string
	// Stream is the stream as StreamName writes it.
	Stream string
	// Failover is how long a lease lives without a renewal; at least 3 s. It should be the same for all workers.
	Failover time.Duration
	// CheckpointInterval is the longest time that a confirmed position stays unwritten while the table answers, down
	// to 100 ms. Positions ride on renewals; an interval above the renewal period changes nothing. 0 = no other limit.
	CheckpointInterval time.Duration
	// Backoff is the pause after DynamoDB throttled a write. It is shortened where it would cost the lease.
	Backoff time.Duration
	// NumRetries is how many writes in a row may fail before there is one warning. Trying goes on until the fence.
	NumRetries int
	// MaxLeases is the most leases to hold at once; 0 = any number.
	MaxLeases int
	// Clock decides about fences and expiry; nil = attempt.BootClock.
	Clock attempt.Clock
	// Log is nil for silence.
	Log Logger
	// AnchorFor gives the moment to store as kp_start when a lease that has none is taken, by the sentinel it stands
	// at (r5.3); the zero time, or a nil function, stores none. Called from several goroutines.
	AnchorFor func(Lease) time.Time
	// MayTake may keep leases from being taken; nil takes all. Called from the manager's goroutine.
	MayTake func(Lease) bool
	// Random gives numbers in [0, 1) for jitter; nil = a good default. Called from several goroutines.
	Random func() float64
}

// Limits of a configuration, and what is derived from it.
const (
	minFailover           = 3 * time.Second
	minCheckpointInterval = 100 * time.Millisecond
	minPause              = 20 * time.Millisecond
	maxWorkerID           = 48
	// parallelTakes bounds the takes of one worker at a time, so that a first start with thousands of leases opens no
	// thousands of connections. A waiting take has not been stamped yet, so waiting costs no life of the lease.
	parallelTakes = 32
)

func (c *Config) check() error {
	switch {
	case c.Table == nil:
		return errors.New("lease: Table is missing")
	case c.WorkerID == "" || len(c.WorkerID) > maxWorkerID:
		return fmt.Errorf("lease: WorkerID %q has %d bytes; write 1 to %d", c.WorkerID, len(c.WorkerID), maxWorkerID)
	case strings.Contains(c.WorkerID, "#"):
		return fmt.Errorf("lease: WorkerID %q contains '#', which ends the worker id in kp_acq", c.WorkerID)
	case c.Stream == "":
		return errors.New("lease: Stream is missing; write what StreamName gives")
	case c.Failover < minFailover:
		return fmt.Errorf("lease: Failover is %s; write at least %s", c.Failover, minFailover)
	case c.CheckpointInterval < 0, c.Backoff < 0, c.NumRetries < 0, c.MaxLeases < 0:
		return fmt.Errorf("lease: CheckpointInterval %s, Backoff %s, NumRetries %d, MaxLeases %d: none may be negative",
			c.CheckpointInterval, c.Backoff, c.NumRetries, c.MaxLeases)
	}
	if c.CheckpointInterval > 0 {
		c.CheckpointInterval = max(c.CheckpointInterval, minCheckpointInterval)
	}
	if c.Clock == nil {
		c.Clock = attempt.BootClock
	}
	if c.Log == nil {
		c.Log = silence{}
	}
	if c.AnchorFor == nil {
		c.AnchorFor = func(Lease) time.Time { return time.Time{} }
	}
	if c.MayTake == nil {
		c.MayTake = func(Lease) bool { return true }
	}
	if c.Random == nil {
		c.Random = mathrand.Float64
	}
	return nil
}

// life is how long a run may believe in its lease after the stamp of a successful write: shorter than any observer's
// patience, by a margin for what is on its way to Pulsar.
func (c *Config) life() time.Duration { return c.Failover - max(time.Second, c.Failover/10) }

// tryTimeout bounds one try of a write, so that there are several before the fence.
func (c *Config) tryTimeout() time.Duration { return c.Failover / 6 }

// jitter spreads d over ±10 %.
func (c *Config) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*c.Random()))
}

// pause is how long to wait after the failures-th failure in a row, when the writer has remaining time left: long
// after a throttle, growing from 100 ms otherwise, and always short enough for a few more tries.
func (c *Config) pause(err error, failures int, remaining time.Duration) time.Duration {
	d := min(100*time.Millisecond<<min(failures-1, 10), c.Failover/12)
	if isThrottle(err) {
		d = max(d, c.Backoff)
	}
	return max(min(c.jitter(d), remaining/3), minPause)
}

// acquisitions makes the names of runs. The random part is the process's own, so that the process knows its runs again
// in the table, whatever it has forgotten of them.
type acquisitions struct {
	prefix string
	last   atomic.Uint64
	mu     struct {
		sync.Mutex
		// adopted are the names of runs that others made for this process, by the key of the lease, the last of each.
		adopted map[string]string
	}
}

func newAcquisitions(worker string) *acquisitions {
	a := &acquisitions{prefix: worker + "#" + rand.Text()[:12] + "."} // 60 random bits
	a.mu.adopted = map[string]string{}
	return a
}

func (a *acquisitions) next() string { return a.prefix + strconv.FormatUint(a.last.Add(1), 36) }

// adopt notes that a lease which was given to this process has become a run of it.
func (a *acquisitions) adopt(l Lease) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.adopted[l.Key] = l.Acquisition
}

// isOwn tells whether the lease shows a run of this process.
func (a *acquisitions) isOwn(l Lease) bool {
	if strings.HasPrefix(l.Acquisition, a.prefix) {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return l.Acquisition != "" && a.mu.adopted[l.Key] == l.Acquisition
}

// acquisitionFor makes the name of a run for another worker, to whom a lease is given.
func acquisitionFor(worker string) string { return worker + "#" + rand.Text()[:12] + ".g" }

type silence struct{}

func (silence) Debugf(string, ...any) {}
func (silence) Infof(string, ...any)  {}
func (silence) Warnf(string, ...any)  {}
