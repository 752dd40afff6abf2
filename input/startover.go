package input

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
)

// errStillRead is returned while a worker seems to read the old stream still.
var errStillRead = errors.New("a worker still renews leases of the stream that was deleted; stop it, or wait until it has noticed")

// startOver turns the leases of a stream that was deleted into those of the one created under its name since, at its
// beginning: what has arrived since it was created was never read, so LATEST would lose it.
//
// The new rows come first, the old ones go last, and each write is conditional on what was seen. So a crash in between
// leaves an old row, by which the next start knows that it has to go on starting over.
func startOver(ctx context.Context, api streamAPI, table *lease.Table, c Config, s stream, log *service.Logger) error {
	brand := s.identity.Brand()
	old, err := restingLeases(ctx, table, c, brand)
	if err != nil {
		return err
	}
	start := shard.Start{Position: checkpoint.TrimHorizon}
	shards, err := listFirst(ctx, api, s, start)
	if err != nil {
		return err
	}
	fresh := shard.FirstLeases(shards, start, brand)
	log.Warnf("The stream was deleted and created again: starting over with %d shards, from its beginning", len(fresh))
	isFresh := map[string]bool{}
	for _, l := range fresh {
		isFresh[l.Key] = true
		if _, has := old[l.Key]; has {
			continue
		}
		if _, _, err := table.Create(ctx, l); err != nil {
			return err
		}
	}
	for _, l := range fresh {
		if seen, has := old[l.Key]; has {
			if _, err := table.Replace(ctx, seen, l); err != nil {
				return err
			}
		}
	}
	for _, seen := range old {
		if !isFresh[seen.Key] {
			if _, err := table.DeleteOfOtherStream(ctx, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// restingLeases returns the leases of the earlier stream, all of which must have stood still for as long as an owner may
// believe in one.
func restingLeases(ctx context.Context, table *lease.Table, c Config, brand string) (map[string]lease.Lease, error) {
	before, patience, err := leasesOfOther(ctx, table, brand)
	if err != nil {
		return nil, err
	}
	for _, l := range before {
		if l.Owner != "" || l.CheckpointOwner != "" {
			if err := sleep(ctx, max(patience, c.FailoverTime)); err != nil {
				return nil, err
			}
			break
		}
	}
	after, _, err := leasesOfOther(ctx, table, brand)
	if err != nil {
		return nil, err
	}
	for key, l := range after {
		if l.Counter != before[key].Counter {
			return nil, fmt.Errorf("starting over: %w (lease %s of worker %s)", errStillRead, key, l.Owner)
		}
	}
	return after, nil
}

// leasesOfOther returns the leases that name another stream, and the longest time that an owner of ours believes in one.
func leasesOfOther(ctx context.Context, table *lease.Table, brand string) (map[string]lease.Lease, time.Duration, error) {
	snapshot, err := table.Scan(ctx, true)
	if err != nil {
		return nil, 0, fmt.Errorf("starting over: %w", err)
	}
	var patience time.Duration
	leases := map[string]lease.Lease{}
	for _, l := range snapshot.Leases {
		if l.Stream != "" && l.Stream != brand {
			leases[l.Key] = l
			patience = max(patience, l.Failover)
		}
	}
	return leases, patience, nil
}
