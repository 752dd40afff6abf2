package leases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
)

// All stands for every shard of a table.
const All = "all"

var (
	// ErrAlive is returned when a worker was seen to renew a lease that is to be repaired. Whoever lives is stopped first.
	ErrAlive = errors.New("its owner is alive")
	// ErrNothing is returned when there is nothing to repair.
	ErrNothing = errors.New("there is nothing to do")
	// ErrNoShard is returned when neither the table nor the stream has the shard.
	ErrNoShard = errors.New("there is no such shard")
	// ErrMoved is returned when a row changed between the look and the repair.
	ErrMoved = errors.New("it has changed meanwhile; look again")
)

// Repair is a change to one row.
type Repair struct {
	Shard string
	// To is the new position, with the moment that it stands for; zero: the owner is taken away, and nothing else.
	To checkpoint.Position
	At time.Time

	seen lease.Lease
}

func (r Repair) String() string {
	if r.To.IsZero() {
		return fmt.Sprintf("%s: release it from %s, at %s", r.Shard, r.seen.Owner, r.seen.Checkpoint)
	}
	at := r.To.String()
	if !r.At.IsZero() {
		at += " = " + r.At.UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("%s: from %s to %s", r.Shard, r.seen.Checkpoint, at)
}

// ParsePosition reads where a shard is to be put: TRIM_HORIZON, LATEST, a moment as RFC 3339, or a sequence number with or
// without :SUB.
func ParsePosition(s string, now time.Time) (to checkpoint.Position, at time.Time, err error) {
	switch s {
	case checkpoint.TrimHorizon:
		return checkpoint.Position{Sequence: s}, time.Time{}, nil
	case checkpoint.Latest:
		return checkpoint.Position{Sequence: s}, now.Truncate(time.Millisecond), nil
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		if at.After(now) {
			return to, at, fmt.Errorf("the moment %s is in the future", s)
		}
		return checkpoint.Position{Sequence: checkpoint.AtTimestamp}, at.Truncate(time.Millisecond), nil
	}
	sequence, sub, hasSub := strings.Cut(s, ":")
	n := int64(0)
	if hasSub {
		if n, err = strconv.ParseInt(sub, 10, 64); err != nil || n < 0 {
			return to, at, fmt.Errorf("%q is no sub-sequence number", sub)
		}
	}
	if to, err = checkpoint.Parse(sequence, n); err != nil || to.IsSentinel() {
		return checkpoint.Position{}, at, fmt.Errorf("%q is no position; write TRIM_HORIZON, LATEST, a moment such as 2026-01-31T12:00:00Z, or a sequence number", s)
	}
	return to, at, nil
}

// PlanReset says what to change so that a shard, or [All], is read from a position.
func (v View) PlanReset(which string, to checkpoint.Position, at time.Time) (plan []Repair, err error) {
	if which == All && !to.IsSentinel() {
		return nil, errors.New("a sequence number is a place in one shard; write TRIM_HORIZON, LATEST or a moment for all")
	}
	if v.shards == nil {
		return nil, fmt.Errorf("the shards of the stream are not known, which a reset needs: %s", strings.Join(v.Trouble, "; "))
	}
	for _, r := range v.Rows {
		if which != All && r.Shard != which {
			continue
		}
		listed := r.State != Missing && r.State != Broken && slices.ContainsFunc(v.shards, func(s shard.Shard) bool { return s.ID == r.Shard })
		switch {
		case which != All && !listed:
			return nil, fmt.Errorf("shard %s: it is %s, or Kinesis does not have it any more", r.Shard, r.State)
		case !listed:
			continue // what retention has removed stays as it is
		case which != All && r.State == Ended && len(v.begun(r.lease)) > 0:
			return nil, fmt.Errorf("shard %s: it has ended, and its children (%s) have been read already: their records would come before those of the parent; reset all", r.Shard, strings.Join(v.begun(r.lease), ", "))
		case to.Sequence == checkpoint.Latest && r.Closed:
			continue // nothing comes after the end
		}
		p := Repair{Shard: r.Shard, To: to, At: at, seen: r.lease}
		if r.lease.Checkpoint == to && r.lease.Start.Equal(at) && to.IsSentinel() {
			continue
		}
		plan = append(plan, p)
	}
	if which != All && !slices.ContainsFunc(v.Rows, func(r Row) bool { return r.Shard == which }) {
		return nil, fmt.Errorf("resetting %s: %w; the table has %s", which, ErrNoShard, Some(v.names()))
	}
	if len(plan) == 0 {
		return nil, fmt.Errorf("resetting %s: %w: it is there already", which, ErrNothing)
	}
	return plan, nil
}

func (v View) names() (shards []string) {
	for _, r := range v.Rows {
		shards = append(shards, r.Shard)
	}
	return shards
}

// begun are the children of a shard that are not at their beginning.
func (v View) begun(l lease.Lease) (keys []string) {
	for _, r := range v.Rows {
		if slices.Contains(r.Parents, l.Key) && r.State != Missing && r.State != Broken && r.lease.Checkpoint.Sequence != checkpoint.TrimHorizon {
			keys = append(keys, r.Shard)
		}
	}
	return keys
}

// PlanRelease says what to change so that the leases of a worker, or one shard's, are nobody's.
func (v View) PlanRelease(which string) (plan []Repair, err error) {
	for _, r := range v.Rows {
		if r.Owner != "" && (r.Owner == which || r.Shard == which) {
			plan = append(plan, Repair{Shard: r.Shard, seen: r.lease})
		}
	}
	if len(plan) == 0 {
		return nil, fmt.Errorf("releasing %s: %w: no lease is that worker's, and no owned shard is called so", which, ErrNothing)
	}
	return plan, nil
}

// Apply carries a plan out, when no owner is alive. To see that takes as long as an owner may be silent. What has moved since
// the look is left alone, and told.
func (s Source) Apply(ctx context.Context, plan []Repair) (done []Repair, err error) {
	if err := s.silent(ctx, plan); err != nil {
		return nil, err
	}
	for _, r := range plan {
		var changed bool
		if r.To.IsZero() {
			changed, err = s.Table.Disown(ctx, r.seen)
		} else {
			changed, err = s.Table.Reset(ctx, r.seen, r.To, r.At)
		}
		if err != nil {
			return done, err
		}
		if !changed {
			return done, fmt.Errorf("shard %s: %w", r.Shard, ErrMoved)
		}
		done = append(done, r)
	}
	return done, nil
}

// silent waits until every owner of the plan's leases has had the time to renew, and returns an error when one has.
func (s Source) silent(ctx context.Context, plan []Repair) error {
	owned := slices.ContainsFunc(plan, func(r Repair) bool { return r.seen.Owner != "" })
	if !owned {
		return nil
	}
	patience := s.Failover
	for _, r := range plan {
		patience = max(patience, r.seen.Failover)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	now, err := s.Table.Scan(ctx, true)
	if err != nil {
		return err
	}
	for _, r := range plan {
		for _, l := range now.Leases {
			if l.Key == r.Shard && r.seen.Owner != "" && l.Counter != r.seen.Counter {
				return fmt.Errorf("shard %s: %w: %s has renewed it within %s; stop it first", r.Shard, ErrAlive, l.Owner, patience)
			}
		}
	}
	return nil
}
