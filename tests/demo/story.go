package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// demo is one telling of the story.
type demo struct {
	settings
	services *services
	pipe     *pipeline
	out      *screen

	ledger  *ledger
	pace    pace
	workers names
}

// tell puts the records in, runs, kills, restarts and stops the pipeline, and collects the evidence.
func (d *demo) tell(ctx context.Context) (evidence, error) {
	d.ledger = newLedger(d.services.kinesis.Shards(streamName))
	background, ctx := errgroup.WithContext(ctx)
	following, stopFollowing := context.WithCancel(ctx)
	defer func() {
		stopFollowing()
		_ = background.Wait() // its first error has ended ctx, and is its cause
	}()
	for partition := range partitions {
		background.Go(func() error { return d.services.topic.follow(following, partition, d.ledger.arrived) })
	}
	background.Go(func() error {
		return produce(following, d.services.kinesis, d.records, d.size, d.rate, d.ledger.put)
	})

	kills, err := d.pipelines(ctx)
	if err != nil {
		return evidence{}, err
	}
	e := evidence{Records: d.services.kinesis.Records(streamName), Kills: kills, Stalled: d.pipe.stalled()}
	if e.Leases, err = d.services.readLeases(ctx); err != nil {
		return evidence{}, err
	}
	d.out.say("Reading the topic back from its beginning.")
	e.Messages, err = readBack(ctx, d.services.topic)
	return e, err
}

// pipelines runs the binary until all records are in the topic. None is left when it returns.
func (d *demo) pipelines(ctx context.Context) ([]kill, error) {
	p, err := d.pipe.start()
	if err != nil {
		return nil, err
	}
	defer func() { p.kill() }()
	began := time.Now()
	if err := p.ready(ctx); err != nil {
		return nil, err
	}
	d.out.say(fmt.Sprintf("The pipeline runs (process 1, pid %d); it was connected after %.1f s.", p.pid, time.Since(began).Seconds()))

	var kills []kill
	if d.kill {
		if err := d.untilWorthKilling(ctx, p); err != nil {
			return nil, err
		}
		k, old, err := d.killHard(ctx, p)
		if err != nil {
			return nil, err
		}
		kills = append(kills, k)
		if p, err = d.pipe.start(); err != nil {
			return nil, err
		}
		if err := d.untilTakenOver(ctx, p, k, old); err != nil {
			return nil, err
		}
	}
	missing, err := d.untilDone(ctx, p)
	if err != nil {
		return nil, err
	}
	d.out.settle()
	if missing == 0 {
		d.out.say("Every record has been seen in the topic. Stopping the pipeline with SIGTERM.")
	} else {
		d.out.say(fmt.Sprintf("Nothing has come for %.0f s. Records not seen in the topic: %s. Stopping the pipeline with SIGTERM.", quiet.Seconds(), grouped(missing)))
	}
	took, err := p.stop()
	if err != nil {
		return nil, err
	}
	d.out.say(fmt.Sprintf("It stopped cleanly within %d ms.", took.Milliseconds()+1))
	return kills, nil
}

// untilWorthKilling waits for the middle, and there for a moment in which Pulsar has records that no checkpoint has
// passed: a kill right after a checkpoint would have nothing to repeat, and prove little.
func (d *demo) untilWorthKilling(ctx context.Context, p *process) error {
	const patience = 5 * time.Second
	middle := time.Time{}
	return d.watch(ctx, p, func(s status) bool {
		if s.Delivered < d.records/2 {
			return false
		}
		if middle.IsZero() {
			middle = time.Now()
		}
		return s.Delivered-s.checkpointed() >= int(d.rate/4) || time.Since(middle) > patience
	})
}

// killHard kills the process while records flow. It returns what the lease table held then, and who owned leases.
func (d *demo) killHard(ctx context.Context, p *process) (kill, []string, error) {
	p.kill()
	k := kill{At: time.Now()}
	var err error
	if k.Leases, err = d.services.readLeases(ctx); err != nil {
		return k, nil, err
	}
	s := d.ledger.status(k.Leases)
	d.out.settle()
	d.out.say(fmt.Sprintf("Killed process 1 (SIGKILL) in full flow: %s records in Pulsar, checkpoints stored for %s of them.", grouped(s.Delivered), grouped(s.checkpointed())))
	return k, s.owners(), nil
}

// untilTakenOver waits until the new process owns the leases that the dead one left behind.
func (d *demo) untilTakenOver(ctx context.Context, p *process, k kill, old []string) error {
	d.out.say(fmt.Sprintf("Started it again (process 2, pid %d). The leases still bear the name of the dead process: it takes them", p.pid))
	d.out.print("          when nobody has renewed them for failoverTimeMillis (5 s). The stream is filled on meanwhile.")
	var waiting int
	err := d.watch(ctx, p, func(s status) bool {
		waiting = s.behind()
		return !slices.ContainsFunc(s.Shards, func(shard shardStatus) bool { return shard.Owner == "" || slices.Contains(old, shard.Owner) })
	})
	if err == nil {
		d.out.settle()
		d.out.say(fmt.Sprintf("Taken over %.1f s after the kill; %s records have piled up, and it goes on from the stored checkpoints.", time.Since(k.At).Seconds(), grouped(waiting)))
	}
	return err
}

// quiet is how long nothing must come, when all records are in the stream, for the rest to be taken for lost.
const quiet = time.Minute

// untilDone waits until every record is in the topic. It gives up, so that the account can tell what is missing, when
// nothing comes any more; then it returns how many records that is.
func (d *demo) untilDone(ctx context.Context, p *process) (missing int, err error) {
	last, since := -1, time.Now()
	err = d.watch(ctx, p, func(s status) bool {
		if s.Delivered != last || s.Put < d.records {
			last, since = s.Delivered, time.Now()
		}
		missing = d.records - s.Delivered
		return missing <= 0 || time.Since(since) > quiet
	})
	return max(missing, 0), err
}

// watchPeriod is how often the lease table is read and the picture drawn.
const watchPeriod = 200 * time.Millisecond

// watch shows progress until a condition holds. It fails when ctx ends, or the process.
func (d *demo) watch(ctx context.Context, p *process, until func(status) bool) error {
	for {
		leases, err := d.services.readLeases(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		s := d.ledger.status(leases)
		speed := d.pace.megabytesPerSecond(time.Now(), s.Bytes)
		d.out.progress(s.table(d.records, speed, &d.workers), s.line(speed))
		if until(s) {
			return nil
		}
		if err := p.sleep(ctx, watchPeriod); err != nil {
			return err
		}
	}
}
