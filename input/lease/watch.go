package lease

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
)

// ErrKCL3 is returned when a worker of KCL 3.x is at work on the lease table. Its leader assigns all leases, and would
// fight with anybody who takes some.
var ErrKCL3 = errors.New("a worker of KCL 3.x is at work on the lease table")

// WatchConfig is what Table.Watch works with.
type WatchConfig struct {
	// Failover is the failover time, of KCL's workers too.
	Failover time.Duration
	// Clock is nil for attempt.BootClock.
	Clock attempt.Clock
	// Log is nil for silence.
	Log Logger
}

// Watched is what a watch has seen.
type Watched struct {
	// Snapshot is the table at the end of the watch, read consistently.
	Snapshot Snapshot
	// Marks are the traces of KCL 3.x at its beginning.
	Marks Marks
	// For is how long it took; 0 when there was nothing to watch.
	For time.Duration
}

// Watch finds out, before the first write to the table, whether a KCL 3.x fleet works on it (r8.3). It returns ErrKCL3
// with the worker that it has seen to move. Otherwise the table may be used: either there is no trace of KCL 3.x, or
// all leases are held by workers of ours, or those of KCL have not moved for as long as live ones would have, or their
// stored client version says that they coordinate as KCL 2.x does.
//
// It takes no time but where leases with traces of KCL 3.x belong to KCL's workers: then 4/3 of the failover time, and up
// to 90 seconds where a worker of theirs has reported in the last 90 seconds.
func (t *Table) Watch(ctx context.Context, cfg WatchConfig) (Watched, error) {
	if cfg.Clock == nil {
		cfg.Clock = attempt.BootClock
	}
	if cfg.Log == nil {
		cfg.Log = silence{}
	}
	s, err := t.Scan(ctx, true)
	if err != nil {
		return Watched{}, err
	}
	m, err := t.Marks(ctx, s)
	if err != nil {
		return Watched{Snapshot: s}, err
	}
	if len(m.Marks) == 0 || areOurs(s.Leases) || generationOf(m.ClientVersion) == generation2 {
		return Watched{Snapshot: s, Marks: m}, nil
	}
	c, err := t.coordinator(ctx, true)
	if err != nil {
		return Watched{Snapshot: s, Marks: m}, err
	}
	if c.unreadableWorkers {
		m.Unreadable = append(m.Unreadable, "Scan "+t.application+workersSuffix)
	}
	for _, mark := range m.Marks {
		c.index = c.index || mark.Kind == MarkIndex
	}
	start := cfg.Clock()
	w := witness{failover: cfg.Failover}
	total := watchFor(s, c.with(s.Foreign), cfg.Failover)
	if total > 0 {
		cfg.Log.Infof("Lease table %s has been used by KCL 3.x (%s); watching it for %s before taking leases", t.name, m.Marks[0], total.Round(time.Second))
	}
	for {
		now := cfg.Clock()
		w.see(s.Leases, c.with(s.Foreign), now)
		if worker, what := w.alive(now); what != "" {
			return Watched{Snapshot: s, Marks: m, For: now - start}, fmt.Errorf("%w %s: worker %s has moved %s", ErrKCL3, t.name, worker, what)
		}
		left := start + total - now
		if left <= 0 {
			return Watched{Snapshot: s, Marks: m, For: now - start}, nil
		}
		if err := sleep(ctx, min(cfg.Failover/3, left)); err != nil {
			return Watched{}, fmt.Errorf("watching lease table %s: %w", t.name, err)
		}
		if s, err = t.Scan(ctx, true); err != nil {
			return Watched{}, err
		}
		index := c.index
		if c, err = t.coordinator(ctx, true); err != nil {
			return Watched{}, err
		}
		c.index = index
	}
}

// areOurs tells whether all leases with work left are held by workers of ours, or were last: beside a live 3.x fleet
// they would not be for long.
func areOurs(leases []Lease) bool {
	for _, l := range leases {
		if !l.Ended() && (l.CheckpointOwner != "" || l.Owner != acquirer(l) && (l.Owner != "" || l.Acquisition == "")) {
			return false
		}
	}
	return len(leases) > 0
}

// watchFor is how long a live fleet could stay without a move: the leases of KCL's owners are renewed three times per
// failover time; a worker without leases reports twice a minute, so a young report must move or grow old.
func watchFor(s Snapshot, c coordinator, failover time.Duration) (d time.Duration) {
	for _, l := range s.Leases {
		if worker := keeper(l); worker != "" && worker != acquirer(l) {
			d = failover + failover/3
			break
		}
	}
	at := s.At
	if at.IsZero() {
		at = time.Now()
	}
	for _, row := range c.workers {
		seconds, err := strconv.ParseInt(attributeText(row, attrWorkerSeen), 10, 64)
		if err != nil {
			continue
		}
		// A report of the future is one of a clock that is wrong: it is young, and no longer than any other.
		d = max(d, min(besideSilence, time.Unix(seconds, 0).Add(besideSilence).Sub(at)))
	}
	return d
}

// coordinator reads what KCL 3.0 to 3.4 keep in tables of their own, the reports of the workers only if asked for. What
// is not there, or may not be read, is left out.
func (t *Table) coordinator(ctx context.Context, workers bool) (c coordinator, err error) {
	table := t.application + coordinatorSuffix
	for _, key := range []string{migrationKey, leaderKey} {
		out, err := t.api.GetItem(ctx, &dynamodb.GetItemInput{
			TableName:      aws.String(table),
			Key:            map[string]types.AttributeValue{"key": text(key)},
			ConsistentRead: aws.Bool(true),
		})
		var missing *types.ResourceNotFoundException
		switch {
		case errors.As(err, &missing):
			return c, nil // the other table is made together with this one
		case isAccessDenied(err):
			c.unreadable = true
		case err != nil:
			return c, fmt.Errorf("looking for KCL 3.x in table %s: %w", table, err)
		case key == migrationKey:
			c.version = clientVersion(out.Item)
		default:
			c.leader = out.Item
		}
		if c.unreadable {
			break
		}
	}
	if !workers {
		return c, nil
	}
	table = t.application + workersSuffix
	in := &dynamodb.ScanInput{TableName: aws.String(table), ConsistentRead: aws.Bool(true)}
	c.workers = map[string]map[string]types.AttributeValue{}
	for {
		out, err := t.api.Scan(ctx, in)
		var missing *types.ResourceNotFoundException
		switch {
		case errors.As(err, &missing):
			return c, nil
		case isAccessDenied(err):
			c.unreadableWorkers = true
			return c, nil
		case err != nil:
			return c, fmt.Errorf("looking for KCL 3.x in table %s: %w", table, err)
		}
		for _, row := range out.Items {
			c.workers[attributeText(row, attrWorkerID)] = row
		}
		if len(out.LastEvaluatedKey) == 0 {
			return c, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}
