package fleet

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"
)

// quick is the shortest failover time there is, for stories that wait for it.
const quick = 3 * time.Second

// rate is how many records a second the stream takes in a story.
const rate = 400

// busiest is the living worker with the most leases.
func (f *fleet) busiest() *worker {
	shares := f.shares()
	return slices.MaxFunc(f.living(), func(a, b *worker) int { return shares[a.name] - shares[b.name] })
}

func TestAKilledWorkersShardsGoOnWithTheOthers(t *testing.T) {
	story(t)
	f, _ := cold(t, settings{failover: quick, real: *full}, 3)

	victim := f.busiest()
	victim.kill()
	killed := time.Now() // not before: what comes until it is gone it may deliver
	f.awaitFair("one of three killed", f.living(), killed)
	f.arrived()
	t.Logf("from the kill to records: %s", summary(durations(f.takeovers(victim, killed), func(t takeover) time.Duration { return t.fromEnd })))
	f.start()
	f.awaitFair("another in its place", f.living(), time.Now())
	f.load.stop()
	f.arrived()
	f.stopAll(f.living()...)
	f.released()
	f.balance(map[string]time.Time{victim.name: killed})
	f.logGaps()
}

// A paused worker is replaced. When it goes on it finds confirmations for what it had sent, and a queue of records that it
// had read: none of those may go to Pulsar, and nothing into the table, before it has leases anew.
func TestAPausedWorkerDeliversAndWritesNothingWhenItGoesOn(t *testing.T) {
	story(t)
	f, _ := cold(t, settings{failover: quick}, 3)
	broker := f.topic.(standInTopic).broker
	a := f.pauseOne(func() (confirm func()) {
		// One batch of each shard is under way, the next ones lie ready.
		confirm = broker.StallReceipts(topicName)
		// The last batch is on its way when nothing has arrived for a second, in which the stream has gone on.
		stored, since := f.topic.count(), time.Now()
		eventually(t, "a queue behind what is not confirmed", func() bool {
			if now := f.topic.count(); now != stored {
				stored, since = now, time.Now()
			}
			return time.Since(since) > time.Second && f.total()-stored > 2*rate
		})
		return confirm
	})
	if a.late > 0 {
		t.Errorf("%d messages were published by the worker that had been paused, without a lease", a.late)
	}
}

// The same with Apache Pulsar, which can't be told to hold confirmations back.
func TestAPausedWorkerBesideApachePulsar(t *testing.T) {
	story(t)
	if !*full {
		t.Skip("a story of -fleet.full")
	}
	f, _ := cold(t, settings{failover: quick, real: true}, 3)
	f.pauseOne(func() (confirm func()) { return func() {} })
}

// pauseOne tells the story of a pause. prepare is called right before it, what it returns right after its begin.
func (f *fleet) pauseOne(prepare func() (confirm func())) account {
	t := f.t
	t.Helper()
	pause := 8 * time.Second
	if *full {
		pause = 30 * time.Second
	}
	victim := f.busiest()
	confirm := prepare()
	victim.pause()
	paused := time.Now()
	before := f.history()
	confirm()
	f.awaitFair("one of three paused", f.but(victim), paused)
	f.arrived()
	time.Sleep(pause - time.Since(paused))
	resumed := time.Now()
	victim.resume()
	eventually(t, "it notices", func() bool { return victim.logs.has("level=warning", "Stopped", "shards") })
	f.awaitFair("it goes on", f.living(), resumed)
	f.arrived()
	f.load.stop()
	f.arrived()
	f.stopAll(f.living()...)
	f.released()

	old := map[string]bool{}
	for _, list := range before.tenures {
		for _, tenure := range list {
			if tenure.worker == victim.name {
				old[tenure.acquisition] = true
			}
		}
	}
	stale := map[string][]string{}
	for _, c := range f.ledger.all() {
		if c.worker != victim.name || !c.sent.After(resumed) {
			continue
		}
		// To take a lease anew is what it may try at once, on the very lease that it had: that names an old acquisition as
		// a condition, and a new one of its own.
		asOwner := slices.ContainsFunc(c.acquisitions, func(a string) bool { return old[a] })
		anew := slices.ContainsFunc(c.acquisitions, func(a string) bool { return !old[a] && f.workerOf(a) == victim.name })
		if !asOwner || anew {
			continue
		}
		stale[c.key] = append(stale[c.key], fmt.Sprintf("%s answered %d", c.operation, c.status))
		if c.status == http.StatusOK {
			t.Errorf("after its pause it wrote to %s as the owner that it no longer was", c.key)
		}
	}
	// The pause may have come right between a renewal's look at the fence and its sending. That one is refused by its condition. It
	// is one moment of a second, of one lease: not of two.
	if len(stale) > 1 {
		t.Errorf("after its pause it tried to write as the owner that it no longer was: %v", stale)
	}
	return f.balance(map[string]time.Time{victim.name: paused})
}
