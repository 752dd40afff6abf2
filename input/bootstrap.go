package input

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
)

// bootstrap brings the lease table into the state from which leases can be taken: it exists, it is this stream's, and
// every shard that a first start has to read has a lease. It returns the configured start, with LATEST resolved.
//
// The order is the protocol: the anchor is fixed before anything is listed, the table is read before anything is
// written, and the scan is consistent, since an eventually consistent one can miss rows that a parallel first start has
// just written.
func bootstrap(ctx context.Context, api streamAPI, table *lease.Table, c Config, s stream, log *onceLog) (shard.Start, error) {
	start := shard.Start{Position: string(c.InitialPosition), At: c.StartAtTime}
	if c.InitialPosition == Latest {
		start.At = s.anchor()
	}
	created, err := table.EnsureExists(ctx, c.tableCreation())
	if err != nil {
		return start, fmt.Errorf("preparing lease table %q: %w", table.Name(), err)
	}
	if created.Table {
		log.Infof("Created lease table %s", table.Name())
	}
	for _, without := range created.Without {
		log.Warnf("Lease table %s was created without %s; it can be added by hand, leases work without", table.Name(), without)
	}
	snapshot, err := watch(ctx, table, c, log)
	if err != nil {
		return start, err
	}
	if len(snapshot.Leases) == 0 {
		return start, firstStart(ctx, api, table, s, start)
	}
	if err := lease.CheckStream(snapshot.Leases, s.identity.Brand()); errors.Is(err, lease.ErrRecreatedStream) && c.RecreatedStream == StartOver {
		return shard.Start{Position: checkpoint.TrimHorizon}, startOver(ctx, api, table, c, s, log.Logger)
	}
	return start, laterStart(ctx, api, table, snapshot.Leases, s, start, log.Logger)
}

// watch reads the table, and where KCL 3.x has left its traces makes sure first that none of its workers is at work (r8.3).
// It may take a minute and a half then.
func watch(ctx context.Context, table *lease.Table, c Config, log *onceLog) (lease.Snapshot, error) {
	seen, err := table.Watch(ctx, lease.WatchConfig{Failover: c.FailoverTime, Log: log})
	for _, unreadable := range seen.Marks.Unreadable {
		log.WarnOnce("unreadable "+unreadable, "Not permitted to look for KCL 3.x beside this lease table (%s); going on without, as the role of an existing connector may allow no more", unreadable)
	}
	switch {
	case errors.Is(err, lease.ErrKCL3):
		return lease.Snapshot{}, fmt.Errorf("applicationName: %w; stop the workers of KCL first, or write another applicationName", err)
	case err != nil:
		return lease.Snapshot{}, fmt.Errorf("reading lease table %q: %w", table.Name(), err)
	}
	if isTakeOver(seen) {
		log.Infof("Taking over lease table %s of a KCL 3.x application, none of whose workers is at work", table.Name())
	}
	if names := foreignItems(seen.Snapshot); len(names) > 0 && isTakeOver(seen) {
		log.WarnOnce("foreign items", "Lease table %s holds %d items of KCL 3.x beside the leases, %s the first. They do no harm here and to KCL 3.x, but KCL 2.x can't read a table with them: delete them before going back to KCL 2.x",
			table.Name(), len(names), names[0])
	}
	return seen.Snapshot, nil
}

// isTakeOver tells whether the table is KCL 3.x's still: it has marks of it, and work that no worker of ours ever had.
func isTakeOver(seen lease.Watched) bool {
	return len(seen.Marks.Marks) > 0 && slices.ContainsFunc(seen.Snapshot.Leases, func(l lease.Lease) bool { return !l.Ended() && l.Acquisition == "" })
}

// foreignItems are the keys of items that are no leases.
func foreignItems(s lease.Snapshot) (keys []string) {
	for _, f := range s.Foreign {
		keys = append(keys, f.Key)
	}
	slices.Sort(keys)
	return keys
}

// firstStart fills an empty table. Several workers may do it at once: each row is created once, and all end with the
// earliest anchor.
func firstStart(ctx context.Context, api streamAPI, table *lease.Table, s stream, start shard.Start) error {
	shards, err := listFirst(ctx, api, s, start)
	if err != nil {
		return err
	}
	if len(shards) == 0 {
		return fmt.Errorf("kinesis lists no shards for %s", s.identity.ARN)
	}
	if err := createLeases(ctx, table, shard.FirstLeases(shards, start, s.identity.Brand())); err != nil {
		return err
	}
	if start.Position == checkpoint.Latest {
		return alignAnchors(ctx, table)
	}
	return nil
}

func createLeases(ctx context.Context, table *lease.Table, leases []lease.Lease) error {
	for _, l := range leases {
		if _, _, err := table.Create(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// alignAnchors lowers every LATEST row's anchor to the earliest in the table. Two first starts that ran into each other
// leave rows of both; the later anchor would lose what arrived between the two.
func alignAnchors(ctx context.Context, table *lease.Table) error {
	snapshot, err := table.Scan(ctx, true)
	if err != nil {
		return fmt.Errorf("reading back created leases: %w", err)
	}
	earliest := earliestAnchor(snapshot.Leases)
	for _, l := range snapshot.Leases {
		if l.Checkpoint.Sequence == checkpoint.Latest && l.Start.After(earliest) {
			if _, err := table.LowerStart(ctx, l.Key, earliest); err != nil {
				return fmt.Errorf("aligning the start of lease %s: %w", l.Key, err)
			}
		}
	}
	return nil
}

func earliestAnchor(leases []lease.Lease) time.Time {
	var earliest time.Time
	for _, l := range leases {
		if !l.Start.IsZero() && (earliest.IsZero() || l.Start.Before(earliest)) {
			earliest = l.Start
		}
	}
	return earliest
}

// laterStart checks that a table with leases is this stream's, gives KCL's LATEST rows a fixed moment, and mends the
// holes that a crash in the middle of a first start has left.
func laterStart(ctx context.Context, api streamAPI, table *lease.Table, leases []lease.Lease, s stream, start shard.Start, log *service.Logger) error {
	shards, err := listShards(ctx, api, s.identity.ARN, nil)
	if err != nil {
		return err
	}
	if err := shard.CheckTable(leases, shards, s.identity); err != nil {
		return fmt.Errorf("applicationName: %w; give this stream an applicationName of its own (or, for a stream created again, recreatedStream: START_OVER: the positions in the table are void)", err)
	}
	byKey := make(map[string]lease.Lease, len(leases))
	for _, l := range leases {
		byKey[l.Key] = l
		if l.Checkpoint.Sequence == checkpoint.Latest && l.Start.IsZero() {
			if _, err := table.Anchor(ctx, l.Key, s.anchor()); err != nil {
				return fmt.Errorf("fixing the start of lease %s: %w", l.Key, err)
			}
		}
	}
	if start.Position == checkpoint.Latest {
		start.At = earliestAnchor(leases)
	}
	holes, err := findHoles(ctx, api, s, shards, byKey, start)
	if err != nil || len(holes) == 0 {
		return err
	}
	tell := log.Warnf
	if isFirstStart(leases) {
		tell = log.Infof // another worker is just at it, or did not get to the end of it
	}
	tell("The lease table lacks leases of %d shards, %s the first; they are read from %s on", len(holes), holes[0].Key, holes[0].Checkpoint)
	return createLeases(ctx, table, holes)
}

// isFirstStart tells whether the table is as a first start leaves it: none of its leases has ever had an owner. What it
// lacks yet is nobody's loss.
func isFirstStart(leases []lease.Lease) bool {
	return !slices.ContainsFunc(leases, func(l lease.Lease) bool { return l.Counter > 0 || l.Owner != "" })
}

// findHoles looks for shards that should have a lease and could never get one any more.
func findHoles(ctx context.Context, api streamAPI, s stream, all []shard.Shard, leases map[string]lease.Lease, start shard.Start) ([]lease.Lease, error) {
	if start.Position != checkpoint.TrimHorizon && start.At.IsZero() {
		start.Position = checkpoint.TrimHorizon
	}
	candidates, err := listFirst(ctx, api, s, start)
	if err != nil {
		return nil, err
	}
	return shard.Holes(candidates, all, leases, start, s.identity.Brand()), nil
}
