package kcltest

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Entity types of KCL 3.5's single table.
const (
	entityLease     = "LEASE"
	entityLeader    = "LEADER"
	entityMigration = "CLIENT_VERSION_MIGRATION"
	entityWorker    = "WORKER_METRIC_STATS"
)

// Keys and constants of KCL 3.x.
const (
	leaderKey      = "Leader"
	migrationKey   = "Migration3.0"
	reportPeriod   = 30 * time.Second
	activeFor      = 2 * reportPeriod
	leaderDuration = 120 * time.Second
	leaderPeriod   = 30 * time.Second
	balanceEvery   = 3 // runs of the assignment
	handOverTime   = 30 * time.Second
)

// runThree starts what KCL 3.x does beside renewing.
func (w *Worker) runThree() {
	w.migrate(w.ctx)
	w.every(reportPeriod, w.report)
	w.wg.Go(func() { w.lead(w.ctx) })
	w.every(w.cfg.Failover-epsilon, w.discover)
}

// migrate notes the client version of a new application.
func (w *Worker) migrate(ctx context.Context) {
	now := num(time.Now().UnixMilli())
	_, _ = w.table.putNew(ctx, item{
		"leaseKey": str(migrationKey), "entityType": str(entityMigration), "cv": str("CLIENT_VERSION_3X"), "mb": str(w.cfg.WorkerID), "mts": now,
		"h": &types.AttributeValueMemberL{Value: []types.AttributeValue{&types.AttributeValueMemberM{Value: item{
			"cv": str("CLIENT_VERSION_INIT"), "mb": str(w.cfg.WorkerID), "mts": now,
		}}}},
	})
}

// report writes the worker's row; without it a worker gets no leases.
func (w *Worker) report(ctx context.Context) {
	now := num(time.Now().Unix())
	empty := &types.AttributeValueMemberM{Value: item{}}
	_, _ = w.table.update(ctx, w.cfg.WorkerID, nil, updates{
		"entityType": put(str(entityWorker)), "lut": put(now), "slu": put(now), "sup": put(num(1)), "sts": put(empty), "opr": put(empty),
	})
}

// lead tries to be the leader, and assigns leases while it is.
func (w *Worker) lead(ctx context.Context) {
	var observed string
	var since, beat time.Duration
	version := ""
	for run := 0; ; {
		now := w.cfg.Clock()
		switch {
		case version != "":
			if now-beat < leaderPeriod {
				break
			}
			next := rand.Text()
			done, err := w.table.update(ctx, leaderKey, wants{"recordVersionNumber": str(version), "ownerName": str(w.cfg.WorkerID)},
				updates{"recordVersionNumber": put(str(next)), "leaseDuration": put(str(milliseconds(leaderDuration)))})
			if err == nil && done {
				version, beat = next, now
			} else if now-beat > leaderDuration {
				version = ""
			}
		default:
			rvn, found, err := w.leaderVersion(ctx)
			if err != nil {
				break
			}
			if rvn != observed {
				observed, since = rvn, now
			}
			if !found || now-since > leaderDuration {
				next := rand.Text()
				if w.seize(ctx, next, observed, found) {
					version, beat, run, w.seen = next, now, 0, nil
				}
			}
		}
		if version != "" {
			w.assignLeases(ctx, run)
			run++
		}
		if !sleep(ctx, 2*w.cfg.Failover) {
			return
		}
	}
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func (w *Worker) leaderVersion(ctx context.Context) (version string, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.RequestTimeout)
	defer cancel()
	out, err := w.cfg.API.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String(w.cfg.Table), Key: item{"leaseKey": str(leaderKey)}, ConsistentRead: aws.Bool(true)})
	if err != nil || len(out.Item) == 0 {
		return "", false, err
	}
	return textOf(out.Item, "recordVersionNumber"), true, nil
}

// seize takes the lock that nobody has, or whose owner has not moved it for its time.
func (w *Worker) seize(ctx context.Context, next, observed string, found bool) bool {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.RequestTimeout)
	defer cancel()
	condition := wants{"leaseKey": nil}
	if found {
		condition = wants{"leaseKey": str(leaderKey), "recordVersionNumber": str(observed)}
	}
	_, err := w.cfg.API.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String(w.cfg.Table), Expected: condition.expected(), Item: item{
		"leaseKey": str(leaderKey), "entityType": str(entityLeader), "ownerName": str(w.cfg.WorkerID),
		"leaseDuration": str(milliseconds(leaderDuration)), "recordVersionNumber": str(next),
	}})
	return err == nil
}

// assignLeases gives expired and free leases to the active workers, and every third time moves some from those that have
// more than their share.
func (w *Worker) assignLeases(ctx context.Context, run int) {
	items, err := w.table.items(ctx)
	if err != nil {
		return
	}
	now := w.cfg.Clock()
	var leases []Lease
	counts := map[string]int{}
	for _, m := range items {
		switch textOf(m, "entityType") {
		case entityWorker:
			if lut, err := numberOf(m, "lut"); err == nil && time.Since(time.Unix(lut, 0)) <= activeFor {
				counts[textOf(m, "leaseKey")] += 0
			}
		case "", entityLease:
			if l, err := decode(m); err == nil {
				leases = append(leases, l)
			}
		}
	}
	w.seen = observe(w.seen, leases, now) // a new leader has seen nothing expire yet
	if len(counts) == 0 {
		return
	}
	var free []Lease
	for _, l := range sorted(w.seen) {
		switch owner := l.actualOwner(); {
		case owner == "", now-l.seenAt > w.cfg.Failover:
			free = append(free, l)
		default:
			if _, active := counts[l.Owner]; active {
				counts[l.Owner]++
			}
		}
	}
	for _, l := range free {
		to := least(counts)
		if w.assign(ctx, l, to) {
			counts[to]++
			w.cfg.OnEvent(Event{Kind: Took, Key: l.Key, Counter: l.Counter + 1})
		}
	}
	if run%balanceEvery != 0 {
		return
	}
	for _, l := range sorted(w.seen) {
		to := least(counts)
		if l.CheckpointOwner == "" && l.Owner != "" && l.Checkpoint.Sequence != ShardEnd && counts[l.Owner] > counts[to]+1 && !slices.ContainsFunc(free, func(f Lease) bool { return f.Key == l.Key }) {
			done, err := w.table.update(ctx, l.Key, wants{"leaseKey": str(l.Key), "leaseOwner": str(l.Owner), "checkpointOwner": nil},
				updates{"leaseOwner": put(str(to)), "checkpointOwner": put(str(l.Owner))})
			if err == nil && done {
				counts[l.Owner]--
				counts[to]++
			}
		}
	}
}

func least(counts map[string]int) (worker string) {
	for id, n := range counts {
		if worker == "" || n < counts[worker] || n == counts[worker] && strings.Compare(id, worker) < 0 {
			worker = id
		}
	}
	return worker
}

// assign makes a worker the owner at once, conditional on the owners and not on the counter. It also completes a hand-over.
func (w *Worker) assign(ctx context.Context, l Lease, to string) bool {
	u := updates{"leaseOwner": put(str(to)), "checkpointOwner": gone, "leaseCounter": add(1)}
	if l.Owner != "" && l.Owner != to || l.CheckpointOwner == to {
		u["ownerSwitchesSinceCheckpoint"] = add(1)
	}
	done, err := w.table.update(ctx, l.Key, wants{"leaseKey": str(l.Key), "leaseOwner": orAbsent(l.Owner), "checkpointOwner": orAbsent(l.CheckpointOwner)}, u)
	return err == nil && done
}

// discover starts on leases that were assigned to this worker. (KCL asks its index; a scan tells the same.)
func (w *Worker) discover(ctx context.Context) {
	leases, err := w.table.list(ctx)
	if err != nil {
		return
	}
	for _, l := range leases {
		if l.Owner == w.cfg.WorkerID && l.CheckpointOwner == "" {
			w.keep(l)
		}
	}
}

// startGiving ends the consumer, and then hands the lease to its next owner; after 30 s in any case.
func (w *Worker) startGiving(h *held, next string) {
	w.mu.Lock()
	under := h.next != ""
	h.next = next
	w.mu.Unlock()
	if under {
		return
	}
	w.wg.Go(func() {
		h.cancel()
		timer := time.NewTimer(handOverTime)
		defer timer.Stop()
		select {
		case <-h.idle:
		case <-timer.C:
		case <-w.ctx.Done():
			return
		}
		for w.isHeld(h) {
			if l, ok := w.begin(w.ctx, h); ok {
				given := w.assign(w.ctx, l, next)
				<-h.writing
				if given {
					w.drop(h, Given)
					return
				}
			}
			if !sleep(w.ctx, time.Second) {
				return
			}
		}
	})
}

// hasDelivered tells whether the lease has a throughput to tell of.
func (w *Worker) hasDelivered(h *held) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return h.delivered
}

// isNullPointer tells the exception that ends KCL 2.x's scans.
func isNullPointer(err error) bool {
	return err != nil && strings.HasPrefix(fmt.Sprint(err), "NullPointerException")
}
