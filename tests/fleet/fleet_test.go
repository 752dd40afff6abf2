package fleet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

const (
	streamName = "orders"
	shardCount = 16
	partitions = 4
	// workerProperty tells of each message which worker sent it.
	workerProperty = "worker"
)

// fleet is a stream, a topic and a lease table, and the workers between them.
type fleet struct {
	t        testing.TB
	settings settings
	kinesis  *kinesistest.Server
	topic    topic
	ledger   *ledger
	items    func() []map[string]types.AttributeValue
	// counts are what DynamoDB has been asked; nil with DynamoDB Local, which does not tell.
	counts  func() map[string]dynamotest.Count
	reset   func() // of the counts
	table   string
	workers []*worker // all that ever were, in the order of their starts
	load    *load
	stopped time.Time // when the last workers were asked to stop
}

// fleets counts them: DynamoDB Local is shared, and each needs a table of its own.
var fleets atomic.Int64

type settings struct {
	shards   int // 0: shardCount
	failover time.Duration
	fanOut   bool
	// standIn takes the stand-in of DynamoDB, which counts, although DynamoDB Local could be had.
	standIn bool
	// real takes Apache Pulsar.
	real bool
	// once turns de-duplication on, in the output and in the stand-in of a broker.
	once bool
	// idle is the pause between two reads of a shard; 0: 200 ms.
	idle time.Duration
}

func newFleet(t testing.TB, s settings) *fleet {
	t.Helper()
	if s.shards == 0 {
		s.shards = shardCount
	}
	f := &fleet{t: t, settings: s, kinesis: kinesistest.NewServer(), table: fmt.Sprintf("fleet-%d", fleets.Add(1))}
	t.Cleanup(f.kinesis.Close)
	must(t, f.kinesis.CreateStream(streamName, s.shards))
	if s.real {
		f.topic = newRealTopic(t)
	} else {
		var options []pulsartest.Option
		if s.once {
			options = append(options, pulsartest.Deduplication())
		}
		f.topic = newStandInTopic(t, options...)
	}
	if why := stack.Unavailable(); s.standIn || testing.Short() || why != "" {
		db := dynamotest.NewServer()
		t.Cleanup(db.Close)
		f.ledger = newLedger(t, db.URL())
		f.items = func() []map[string]types.AttributeValue { return db.Items(f.table) }
		f.counts, f.reset = db.Counts, db.ResetCounts
		return f
	}
	db := stack.SharedDynamoDB(t)
	client := db.Client()
	f.ledger = newLedger(t, db.URL())
	f.items = func() []map[string]types.AttributeValue {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		out, err := client.Scan(ctx, &dynamodb.ScanInput{TableName: aws.String(f.table), ConsistentRead: aws.Bool(true)})
		if err != nil {
			return nil // there is none yet
		}
		return out.Items
	}
	return f
}

// longest is the failover time beyond which a slow machine is given no more.
const longest = 12 * time.Second

// cold starts workers under a steady load, and returns when they have fair shares and everything has arrived. Where the
// machine gives them so little time that they lose leases already, it begins again with twice the failover time: every
// story is about a table that can be kept.
func cold(t testing.TB, s settings, n int) (f *fleet, workers []*worker) {
	t.Helper()
	for ; ; s.failover *= 2 {
		f = newFleet(t, s)
		began := time.Now()
		workers = f.startAll(n)
		f.begin(rate)
		last := 2*s.failover > longest
		if last {
			f.awaitFair("from cold", workers, began)
			f.arrived()
			return f, workers
		}
		enough := time.Now().Add(30 * time.Second)
		for !fair(f.shares(), workers) && time.Now().Before(enough) {
			time.Sleep(pollEvery)
		}
		isFair := fair(f.shares(), workers)
		if isFair {
			f.arrived()
		}
		stalls := 0
		e := evidence{history: f.history(), failover: s.failover}
		for _, list := range e.history.tenures {
			for _, tenure := range list {
				if e.stalled(tenure) {
					stalls++
				}
			}
		}
		if isFair && stalls == 0 {
			t.Logf("%d workers from cold: fair shares %v after %s", n, f.shares(), time.Since(began).Round(10*time.Millisecond))
			return f, workers
		}
		t.Logf("%d workers with a failover time of %s: shares %v, %d leases lost by stalls: beginning again with twice the time", n, s.failover, f.shares(), stalls)
		f.load.stop()
		for _, w := range workers {
			w.kill()
		}
	}
}

// start adds a worker.
func (f *fleet) start() *worker {
	f.t.Helper()
	name := fmt.Sprintf("w%d", len(f.workers)+1)
	idle := f.settings.idle
	if idle == 0 {
		idle = 200 * time.Millisecond
	}
	url, topic := f.topic.address()
	yaml := fmt.Sprintf(`
input:
  kinesis_pulsar:
    awsKinesisStreamName: %s
    awsRegion: us-east-1
    awsEndpoint: %s
    dynamoEndpoint: %s
    awsCredentialPluginParam: '{"accessKey":"key","secretKey":"secret"}'
    applicationName: %s
    initialPositionInStream: TRIM_HORIZON
    useEnhancedFanOut: %t
    idleTimeBetweenReadsInMillis: %d
    failoverTimeMillis: %d
`, streamName, f.kinesis.URL(), f.ledger.endpoint(f.t, name), f.table, f.settings.fanOut, idle.Milliseconds(), f.settings.failover.Milliseconds())
	yaml += fmt.Sprintf(`
pipeline:
  processors:
    - mapping: meta %[1]s = "%[2]s"
output:
  pulsar:
    url: %[3]s
    topic: %[4]s
    properties: { include_prefixes: [ kinesis., %[1]s ] }
    deduplication: %[5]t
http: { enabled: false }
logger: { level: INFO }
shutdown_timeout: 20s
`, workerProperty, name, url, topic, f.settings.once)
	w := spawn(f.t, name, yaml)
	f.workers = append(f.workers, w)
	return w
}

// startAll adds n workers at once.
func (f *fleet) startAll(n int) (started []*worker) {
	f.t.Helper()
	for range n {
		started = append(started, f.start())
	}
	return started
}

// stopAll ends workers in good order, all at once.
func (f *fleet) stopAll(workers ...*worker) {
	f.t.Helper()
	f.stopped = time.Now()
	done := make(chan struct{})
	for _, w := range workers {
		go func() {
			defer func() { done <- struct{}{} }()
			w.stop()
		}()
	}
	for range workers {
		<-done
	}
}

// living are the workers whose process is there.
func (f *fleet) living() (living []*worker) {
	for _, w := range f.workers {
		if w.running() {
			living = append(living, w)
		}
	}
	return living
}

// but are the living workers without one.
func (f *fleet) but(one *worker) []*worker {
	return slices.DeleteFunc(f.living(), func(w *worker) bool { return w == one })
}

// workerOf tells which worker has an id: the process is part of it.
func (f *fleet) workerOf(id string) string {
	if id == "" {
		return ""
	}
	for _, w := range f.workers {
		if strings.Contains(id, fmt.Sprintf("-%d-", w.pid)) {
			return w.name
		}
	}
	return "unknown worker " + id
}

// history reads the ledger up to now.
func (f *fleet) history() history { return historyOf(f.ledger.all(), f.workerOf) }

// leases are the rows of the lease table as they are now, by shard.
func (f *fleet) leases() map[string]lease {
	leases := map[string]lease{}
	for _, item := range f.items() {
		l := lease{}
		for name, value := range item {
			switch v := value.(type) {
			case *types.AttributeValueMemberS:
				l[name] = v.Value
			case *types.AttributeValueMemberN:
				l[name] = v.Value
			}
		}
		leases[l["leaseKey"]] = l
	}
	return leases
}

// shares are how many leases each worker has of those whose shards are not read to their end; the key "" stands for
// leases without an owner.
func (f *fleet) shares() map[string]int {
	shares := map[string]int{}
	for _, l := range f.leases() {
		if !l.ended() {
			shares[f.workerOf(l.owner())]++
		}
	}
	return shares
}

// fair tells whether the workers, and nobody else, have all leases, shares within one of each other.
func fair(shares map[string]int, workers []*worker) bool {
	if len(shares) != len(workers) || len(shares) == 0 {
		return false
	}
	for _, w := range workers {
		if shares[w.name] == 0 {
			return false
		}
	}
	counts := slices.Sorted(maps.Values(shares))
	return counts[len(counts)-1]-counts[0] <= 1
}

// awaitOwned waits until the workers have all leases between them, and returns how long that took since a moment.
func (f *fleet) awaitOwned(why string, workers []*worker, since time.Time) time.Duration {
	f.t.Helper()
	took, _ := f.await(why+": everything owned", workers, since, func(shares map[string]int) bool {
		others := maps.Clone(shares)
		for _, w := range workers {
			delete(others, w.name)
		}
		return len(others) == 0
	})
	return took
}

// awaitFair waits until the workers have fair shares. It returns how long that took since a moment, and how many scans
// the worker that made most has made in that time.
func (f *fleet) awaitFair(why string, workers []*worker, since time.Time) (took time.Duration, rounds int) {
	f.t.Helper()
	return f.await(why+": fair shares", workers, since, func(shares map[string]int) bool { return fair(shares, workers) })
}

func (f *fleet) await(what string, workers []*worker, since time.Time, holds func(shares map[string]int) bool) (took time.Duration, rounds int) {
	f.t.Helper()
	shares := f.shares()
	for ; len(shares) == 0 || !holds(shares); shares = f.shares() {
		if time.Since(since) > patience {
			f.t.Fatalf("%s: not after %s: %v", what, patience, shares)
		}
		time.Sleep(pollEvery)
	}
	took = time.Since(since)
	calls := f.ledger.all()
	for _, w := range workers {
		rounds = max(rounds, scans(calls, w.name, since))
	}
	f.t.Logf("%s: %v after %s, %d scans", what, shares, took.Round(10*time.Millisecond), rounds)
	return took, rounds
}

// released fails the test unless every lease is free and at its shard's last record. A lease whose owner has missed a
// renewal may have been lost when the owner was stopped; at full size that is no excuse.
func (f *fleet) released() {
	f.t.Helper()
	leases, history := f.leases(), f.history()
	for shard, records := range f.kinesis.Records(streamName) {
		l := leases[shard]
		if list := history.tenures[shard]; len(list) > 0 && !l.ended() && !*full {
			last := list[len(list)-1]
			if lapse := max(last.lapse, f.stopped.Sub(last.renewed)); lapse > f.settings.failover/2 {
				f.t.Logf("%s was not renewed for %s by %s: what the stop has left of it is not looked at", shard, lapse.Round(time.Millisecond), last.worker)
				continue
			}
		}
		if owner := l.owner(); owner != "" {
			f.t.Errorf("lease %s still belongs to %s", shard, f.workerOf(owner))
		}
		if len(records) > 0 && !l.ended() && l["checkpoint"] != records[len(records)-1].SequenceNumber {
			f.t.Errorf("lease %s is at %s, the last record at %s", shard, l["checkpoint"], records[len(records)-1].SequenceNumber)
		}
	}
}
