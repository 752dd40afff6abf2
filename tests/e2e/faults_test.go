package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

func TestPulsarThatIsDownAtTheStartIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 2)
	w.broker.Stop()
	w.put(200, 10)
	p := w.spawn(config{})
	w.eventually("not ready, with the cause", func() bool {
		code, body := p.ready()
		return code == 503 && strings.Contains(body, "connection refused") && strings.Contains(body, strings.TrimPrefix(w.pulsarURL, "pulsar://"))
	})
	must(t, w.broker.Restart())
	w.arrived(200)
	w.eventually("ready", func() bool { code, _ := p.ready(); return code == 200 })
	p.stop()
	w.account().balanced().once()
	w.released()
}

func TestPulsarIsRestartedInTheMiddle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 4)
	p := w.spawn(config{pipeline: wild})
	w.arrived(w.put(500, 40))
	for range 3 {
		w.put(500, 40)
		w.broker.Stop()
		w.put(500, 40)
		must(t, w.broker.Restart())
		w.put(200, 40)
		w.settled()
		w.account().balanced()
	}
	// For longer, with everything in flight.
	release := w.broker.StallReceipts("")
	w.put(400, 40)
	w.eventually("messages wait for receipts", func() bool { return w.delivered() > w.total()-400 })
	w.broker.Stop()
	release()
	w.eventually("not ready while it is away", func() bool {
		code, body := p.ready()
		return code == 503 && strings.Contains(body, "connection refused")
	})
	must(t, w.broker.Restart())
	w.settled()
	w.eventually("ready again", func() bool { code, _ := p.ready(); return code == 200 })
	p.stop()
	w.account().balanced()
	w.released()
}

func TestDroppedConnectionsAndLostReceipts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 4)
	p := w.start(config{pipeline: wild, pulsar: map[string]string{"producer_batching": "{ max_messages: 11 }"}})
	for range 25 {
		w.put(150, 40)
		switch rand.IntN(4) {
		case 0:
			w.broker.DropConnections()
		case 1: // receipts that never come, until the connection breaks
			w.broker.SwallowReceipts(topic, 3)
			time.Sleep(100 * time.Millisecond)
			w.broker.DropConnections()
		case 2:
			w.broker.DropAfterStore(topic, 2)
		case 3:
			w.broker.CorruptSends(topic, 1)
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.broker.ClearFaults()
	w.broker.DropConnections()
	w.settled()
	a := w.account().balanced()
	t.Logf("%d of %d records more than once", len(a.duplicates), w.total())
	p.stop()
	w.released()
}

func TestDynamoDBIsAwayForLongerThanTheFailoverTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 3)
	p := w.spawn(config{quick: true, pipeline: wild})
	w.arrived(w.put(300, 20))
	w.dynamodb.Stop()
	before := w.total()
	began := time.Now()
	for time.Since(began) < 6*time.Second {
		w.put(20, 20)
		time.Sleep(100 * time.Millisecond)
	}
	w.eventually("not ready, with the cause", func() bool {
		code, body := p.ready()
		return code == 503 && strings.Contains(body, "lease table") && strings.Contains(body, table)
	})
	// Others may own the shards by now: nothing new may be sent. What the client was handed before may still be on its way.
	held := 0
	w.eventually("nothing is sent without a lease", func() bool {
		held = w.delivered()
		w.put(100, 20)
		time.Sleep(time.Second)
		return w.delivered() == held
	})
	if held == before {
		t.Log("nothing was delivered while the table was away")
	}
	w.dynamodb.Restart()
	w.arrived(w.total())
	w.eventually("ready again", func() bool { code, _ := p.ready(); return code == 200 })
	w.settled()
	w.account().balanced()
	p.stop()
	w.released()
}

func TestADynamoDBThatFailsHalfOfTheTimeCostsNothing(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]dynamotest.Kind{
		"throttled": dynamotest.Throttle, "errors": dynamotest.InternalError, "lost answers": dynamotest.LoseAnswer,
		"applied errors": dynamotest.AppliedInternalError, "late writes": dynamotest.LateWrite,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, 2)
			p := w.start(config{input: map[string]string{"failoverTimeMillis": "12000", "backoffTime": "200"}})
			// It is running before the trouble begins: a start makes some ten calls, and begins anew ever more slowly
			// when one of them has failed three times, which under these odds can take any time.
			w.arrived(w.put(20, 20))
			// Never more than three in a row of one item: a row of them that outlasts a lease comes by chance now and then.
			var mu sync.Mutex
			row := map[string]int{}
			w.dynamodb.OnRequest(func(r dynamotest.Request) *dynamotest.Fault {
				mu.Lock()
				defer mu.Unlock()
				of := r.Operation + leaseOf(r.Key)["leaseKey"]
				if rand.IntN(100) < 40 && row[of] < 3 {
					row[of]++
					return &dynamotest.Fault{Kind: kind, Delay: 300 * time.Millisecond}
				}
				row[of] = 0
				return nil
			})
			w.feed(80, 20, 20)
			w.settled()
			w.dynamodb.OnRequest(nil)
			p.stop()
			w.account().balanced().once()
			w.released()
		})
	}
}

func TestAKinesisThatFailsLosesNothingAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]kinesistest.Fault{
		"throttled":           {Operation: "GetRecords"},
		"limit exceeded":      {Operation: "GetRecords", Code: kinesistest.LimitExceeded},
		"internal failure":    {Operation: "GetRecords", Code: kinesistest.InternalFailure},
		"unavailable":         {Operation: "GetRecords", Code: kinesistest.ServiceUnavailable},
		"kms throttled":       {Operation: "GetRecords", Code: kinesistest.KMSThrottling},
		"expired iterators":   {Kind: kinesistest.Expire, Operation: "GetRecords"},
		"expired by name":     {Operation: "GetRecords", Code: kinesistest.ExpiredIterator},
		"cut at once":         {Kind: kinesistest.Cut, Operation: "GetRecords"},
		"cut in the middle":   {Kind: kinesistest.Cut, Operation: "GetRecords", Bytes: 700},
		"slow":                {Kind: kinesistest.Slow, Operation: "GetRecords", Delay: 300 * time.Millisecond},
		"no iterators":        {Operation: "GetShardIterator", Code: kinesistest.ProvisionedThroughputExceeded},
		"iterators forgotten": {Operation: "GetRecords", Code: kinesistest.InvalidArgument},
		"expired token":       {Operation: "GetRecords", Code: kinesistest.ExpiredToken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, 2)
			fault.Count = 1
			p := w.start(config{input: map[string]string{"backoffTime": "100", "maxRecords": "100"}})
			for range 12 {
				w.put(60, 20)
				w.kinesis.Inject(fault)
				time.Sleep(100 * time.Millisecond)
				if rand.IntN(3) == 0 {
					w.kinesis.ExpireIterators()
				}
			}
			w.arrived(720)
			p.stop()
			w.account().balanced().once()
			w.released()
		})
	}
}

func TestKinesisIsAwayForAWhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 2)
	p := w.spawn(config{})
	w.arrived(w.put(200, 20))
	w.kinesis.Stop()
	w.put(200, 20)
	w.eventually("not ready, with the cause", func() bool {
		code, body := p.ready()
		return code == 503 && strings.Contains(body, "connection refused")
	})
	if owners := w.owners(); len(owners) != 1 {
		t.Errorf("leases are given up for a trouble of Kinesis: %v", owners)
	}
	must(t, w.kinesis.Restart())
	w.arrived(400)
	w.eventually("ready again", func() bool { code, _ := p.ready(); return code == 200 })
	p.stop()
	w.account().balanced().once()
	w.released()
}

func TestLeasesSurviveABlockedOutputForLongerThanTheFailoverTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 3)
	p := w.start(config{input: map[string]string{"failoverTimeMillis": "6000"}})
	w.arrived(w.put(300, 30))
	before := w.owners()
	release := w.broker.StallReceipts("")
	defer release()
	w.put(3000, 30)
	w.throughout(8*time.Second, "the leases are kept", func() bool { return fmt.Sprint(w.owners()) == fmt.Sprint(before) })
	release()
	w.settled()
	p.stop()
	w.account().balanced().once()
	w.released()
}

// P7: what one slow partition cannot take must not take the others' share of the queue.
func TestASlowPartitionStopsOnlyItsOwnShard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 4)
	slow := "shardId-000000000001"
	p := w.start(config{input: map[string]string{"messageKeyMode": "SHARD_ID", "kinesisRecordProperties": propertyKey + "," + propertySequence, "receiveQueueSize": "200"}})
	w.arrived(w.put(200, 40))
	partition := int(murmur3(slow) % 4)
	own := func(shard string) bool { return int(murmur3(shard)%4) == partition }
	release := w.broker.StallReceipts(fmt.Sprintf("%s-partition-%d", topic, partition))
	defer release()
	// More than the whole queue holds, for each.
	w.put(2400, 400)
	w.eventually("the other shards are delivered", func() bool {
		leases := w.leases()
		for shard, list := range w.kinesis.Records(streamName) {
			if !own(shard) && leases[shard]["checkpoint"] != list[len(list)-1].SequenceNumber {
				return false
			}
		}
		return true
	})
	// Rule 32 frees the queue of a blocked shard after 30 s. The others must not have had to wait for that.
	if p.logs.has("level=WARN", "is blocked", slow) {
		t.Error("the other shards had to wait until the blocked one gave its queue back")
	}
	release()
}

// I8: with an output that takes nothing, no more is read than the budget, and one record of each shard.
func TestMemoryIsBoundedWhileTheOutputIsBlocked(t *testing.T) {
	t.Parallel()
	const shards, size, budget = 4, 50_000, 2 << 20
	w := newWorld(t, shards, 4)
	for i := range 400 {
		_, err := w.kinesis.Put(streamName, fmt.Sprint("key-", i), bytes.Repeat([]byte{byte(i)}, size))
		must(t, err)
	}
	served, endpoint := w.countServed()
	release := w.broker.StallReceipts("")
	defer release()
	p := w.start(config{input: map[string]string{"awsEndpoint": endpoint, "maxBufferedBytes": fmt.Sprint(budget)}})
	w.eventually("the budget is used", func() bool { return served.Load() > budget/2 })
	w.throughout(6*time.Second, "the bytes read are within the budget", func() bool { return served.Load() <= budget+shards*size })
	t.Logf("%d bytes held, of a budget of %d", served.Load(), budget)
	release()
	w.arrived(400)
	p.stop()
	w.account().balanced().once()
	w.released()
}

// countServed puts a proxy before Kinesis that counts the bytes of the records in its answers, of each record once: one that is read
// again is one that was dropped.
func (w *world) countServed() (served *atomic.Int64, endpoint string) {
	served = &atomic.Int64{}
	target, err := url.Parse(w.kinesis.URL())
	must(w.t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true
	proxy.Transport = transport
	var mu sync.Mutex
	seen := map[string]bool{}
	proxy.ModifyResponse = func(res *http.Response) error {
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		res.Body = io.NopCloser(bytes.NewReader(body))
		var answer struct {
			Records []struct {
				Data           []byte
				SequenceNumber string
			}
		}
		if json.Unmarshal(body, &answer) == nil {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range answer.Records {
				if !seen[r.SequenceNumber] {
					seen[r.SequenceNumber] = true
					served.Add(int64(len(r.Data)))
				}
			}
		}
		return nil
	}
	server := httptest.NewServer(proxy)
	w.t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	return served, server.URL
}

// Records as large as the whole budget go through one by one, of all shards.
func TestRecordsLargerThanTheBudgetGoThrough(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 3)
	for i := range 24 {
		_, err := w.kinesis.Put(streamName, fmt.Sprint("key-", i), bytes.Repeat([]byte{byte(i)}, 1<<20-10))
		must(t, err)
	}
	p := w.start(config{input: map[string]string{"maxBufferedBytes": fmt.Sprint(1 << 20)}})
	w.arrived(24)
	p.stop()
	w.account().balanced().once()
	w.released()
}
