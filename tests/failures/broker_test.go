package failures

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

// maxMessageSize is the broker's limit, small enough for a Kinesis record to be over it.
const maxMessageSize = 256 << 10

// TestARealBroker is one test since all cases share one broker, which the last ones stop and kill.
func TestARealBroker(t *testing.T) {
	broker := stack.PulsarWith(t, stack.PulsarOptions{Secure: true, Conf: map[string]string{
		"maxMessageSize": "262144",
		// How often a connection's token is looked at again.
		"authenticationRefreshCheckSeconds": "1",
	}})
	build(t)
	t.Run("while it runs", func(t *testing.T) {
		for name, story := range map[string]func(*testing.T, *stack.PulsarService){
			"topics are unloaded":              topicsAreUnloaded,
			"a topic is terminated":            aTopicIsTerminated,
			"a topic is deleted":               aTopicIsDeleted,
			"a topic is made anew":             aTopicIsMadeAnew,
			"quota, producers fail":            func(t *testing.T, b *stack.PulsarService) { quota(t, b, "producer_exception") },
			"quota, producers wait":            func(t *testing.T, b *stack.PulsarService) { quota(t, b, "producer_request_hold") },
			"a permission is withdrawn":        aPermissionIsWithdrawn,
			"a schema is enforced":             aSchemaIsEnforced,
			"a topic's own limit of size":      aTopicsOwnLimitOfSize,
			"an oversize record, chunks":       anOversizeRecordGoesInChunks,
			"an oversize record, dead letters": anOversizeRecordGoesToTheDeadLetters,
			"an oversize record, fallback":     anOversizeRecordGoesToTheFallback,
			"an oversize record, and no other": anOversizeRecordStopsItsShardAlone,
			"TLS and a token":                  tlsAndAToken,
			"unknown authority":                unknownAuthority,
			"wrong tokens":                     wrongTokens,
			"a token expires":                  aTokenExpires,
			"a role that may not consume":      mayNotConsume,
		} {
			t.Run(strings.ReplaceAll(name, ",", ""), func(t *testing.T) {
				t.Parallel()
				story(t, broker)
			})
		}
	})
	t.Run("restarts", func(t *testing.T) { restarts(t, broker) })
}

// An unload is what a load balancer does all day: nobody may notice it.
func topicsAreUnloaded(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 4)
	p := w.run(config{})
	w.feed(300)
	w.settled() // it has begun
	w.quietly("warnings", func() int { return p.logs.count("level=warning") }, func() {
		for range 6 {
			w.feed(300)
			time.Sleep(300 * time.Millisecond)
			w.admin("PUT", w.topicPath("/unload"), nil)
		}
		w.settled()
	})
	w.account()
	p.ready()
	p.stop()
}

func aTopicIsTerminated(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 0)
	p := w.run(config{})
	w.feed(300)
	w.settled()
	w.admin("POST", w.topicPath("/terminate"), nil)
	w.feed(300)
	p.notReadyWhileFed("erminated")
	w.earlier = w.read()
	w.admin("DELETE", w.topicPath("?force=true"), nil) // it is made again by the first who uses it
	p.ready()
	w.feed(100)
	w.settled()
	w.account()
	p.stop()
}

func aTopicIsDeleted(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 0)
	p := w.run(config{})
	w.feed(300)
	w.settled()
	w.earlier = w.read()
	w.admin("DELETE", w.topicPath("?force=true"), nil)
	w.feed(300)
	w.settled()
	w.account()
	p.ready()
	p.stop()
}

// A partitioned topic is deleted, and some time later made again with fewer partitions.
func aTopicIsMadeAnew(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 4)
	p := w.run(config{})
	w.feed(300)
	w.settled()
	w.earlier = w.read()
	// Without automatic creation: it would make a topic that is not partitioned of it.
	w.admin("POST", w.namespacePath("/autoTopicCreation"), map[string]any{"allowAutoTopicCreation": false})
	w.admin("DELETE", w.topicPath("/partitions?force=true"), nil)
	w.feed(300)
	p.notReadyWhileFed("orders")
	w.partitions = 2
	w.createTopic()
	p.ready()
	w.feed(100)
	w.settled()
	w.account()
	p.stop()
}

// A consumer that is too far behind blocks the topic, by one of two policies.
func quota(t *testing.T, broker *stack.PulsarService, policy string) {
	w := newWorld(t, broker, 0)
	w.admin("PUT", w.topicPath("/subscription/slow"), nil)
	p := w.run(config{})
	w.feed(100)
	w.settled()
	w.admin("POST", w.namespacePath("/backlogQuota?backlogQuotaType=destination_storage"), map[string]any{"limitSize": 2000, "limitTime": -1, "policy": policy})
	p.notReadyWhileFed("uota")
	w.admin("POST", w.topicPath("/subscription/slow/skip_all"), nil)
	w.admin("DELETE", w.namespacePath("/backlogQuota?backlogQuotaType=destination_storage"), nil)
	p.ready()
	w.feed(100)
	w.settled()
	w.account()
	p.stop()
}

func aPermissionIsWithdrawn(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 2)
	grant := func() { w.admin("POST", w.namespacePath("/permissions/writer"), []string{"produce"}) }
	grant()
	p := w.run(config{token: broker.Security().Token("writer")})
	w.feed(300)
	w.settled()
	w.admin("DELETE", w.namespacePath("/permissions/writer"), nil)
	p.notReadyWhileUnloaded("uthoriz")
	grant()
	p.ready()
	w.feed(100)
	w.settled()
	w.account()
	p.stop()
}

// Producers without a schema, as ours are, are refused by a topic that has one and insists on it.
func aSchemaIsEnforced(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 0)
	p := w.run(config{})
	w.feed(300)
	w.settled()
	w.admin("POST", "/admin/v2/schemas/"+w.namespace+"/orders/schema", map[string]any{
		"type": "JSON", "schema": `{"type":"record","name":"order","fields":[{"name":"id","type":"string"}]}`, "properties": map[string]string{},
	})
	w.admin("POST", w.namespacePath("/schemaValidationEnforced"), true)
	p.notReadyWhileUnloaded("chema")
	w.admin("POST", w.namespacePath("/schemaValidationEnforced"), false)
	p.ready()
	w.feed(100)
	w.settled()
	w.account()
	p.stop()
}

// A topic's own limit is told to no client, and a message over it is not answered in a way that the client understands. It is a
// limit of what is stored together, so a batch of small messages can be over it, too.
func aTopicsOwnLimitOfSize(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 0)
	w.admin("POST", w.topicPath("/maxMessageSize"), 50_000)
	p := w.run(config{pulsar: "compression: none"})
	w.feed(100)
	w.settled()
	// A policy comes to the topic by way of another topic, at its own time.
	w.whileFed("the gauge", func() bool { return p.blocked() == 1 }, func() {
		_, err := w.kinesis.Put(streamName, "key-1", []byte(strings.Repeat("x", 100_000)))
		must(t, err)
		w.feed(20)
	})
	w.eventually("a warning", func() bool { return p.logs.count("level=warning", "orders") > 0 })
	w.admin("DELETE", w.topicPath("/maxMessageSize"), nil)
	w.feed(100)
	w.settled()
	w.account()
	w.eventually("the gauge is back", func() bool { return p.blocked() == 0 })
	p.ready()
	// It is blocked once, unless the broker itself takes the limit for gone and then for there again.
	told, over := p.logs.count("level=warning", "have been waiting", "Exceed maximum message size"), p.logs.count("are confirmed again")
	if told < 1 || told > over {
		t.Errorf("%d warnings with the broker's words, and %d times it was over", told, over)
	}
	p.stop()
}

// oversize puts a record over the broker's limit among others, and returns its shard and sequence number.
func (w *world) oversize() (shard, sequence string) {
	w.t.Helper()
	w.feed(50)
	put, err := w.kinesis.Put(streamName, "key-1", []byte(strings.Repeat("x", maxMessageSize+1000)))
	must(w.t, err)
	w.feed(50)
	return put[0].ShardID, put[0].SequenceNumber
}

func anOversizeRecordGoesInChunks(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 2)
	p := w.run(config{pulsar: "compression: none"})
	w.quietly("further copies though nothing failed", func() int { return w.account() }, func() {
		for range 3 {
			w.oversize()
			w.settled()
		}
	})
	p.ready()
	p.stop()
}

func anOversizeRecordGoesToTheDeadLetters(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 2)
	shard, sequence := w.oversize()
	letters := "persistent://" + w.namespace + "/letters"
	p := w.run(config{pulsar: "compression: none\nchunking: off\ndead_letter_topic: " + letters})
	w.settled()
	w.account(sequence)
	// By a consumer: a reader of the Go client (v0.21.0) never gets a topic's first message if that is in chunks.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := w.client()
	defer client.Close()
	consumer, err := client.Subscribe(pulsar.ConsumerOptions{Topic: letters, SubscriptionName: "post", SubscriptionInitialPosition: pulsar.SubscriptionPositionEarliest})
	must(t, err)
	defer consumer.Close()
	m, err := consumer.Receive(ctx)
	must(t, err)
	if got := m.Properties()["kinesis.sequence.number"]; got != sequence || len(m.Payload()) != maxMessageSize+1000 {
		t.Errorf("the dead letter is record %s with %d bytes, want %s of %s", got, len(m.Payload()), sequence, shard)
	}
	p.ready()
	p.stop()
}

func anOversizeRecordGoesToTheFallback(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 2)
	_, sequence := w.oversize()
	p := w.run(config{pulsar: "compression: none\nchunking: off", wrap: "fallback:\n  - PULSAR\n  - drop: {}\n"})
	w.settled()
	w.account(sequence)
	p.ready()
	p.stop()
}

func anOversizeRecordStopsItsShardAlone(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 2)
	shard, sequence := w.oversize()
	p := w.run(config{pulsar: "compression: none\nchunking: off"})
	w.eventually("an operator is told", func() bool { return p.logs.count("level=warning", sequence, shard) > 0 })
	others := 0
	for id, list := range w.kinesis.Records(streamName) {
		if id != shard {
			others += len(list)
		}
	}
	w.eventually("the other shards go on", func() bool { return len(w.read()) >= others })
	p.ready()
	// A lease that was lost, by a machine that stood still, is a new one to be told of.
	if n := p.logs.count("level=warning", sequence, shard); n > 1 && p.logs.count("Stopped", "shards") == 0 {
		t.Errorf("an operator is told %d times", n)
	}
	p.stop()
}

// restarts comes last, when nobody else uses the broker.
func restarts(t *testing.T, broker *stack.PulsarService) {
	w := newWorld(t, broker, 4)
	p := w.run(config{})
	w.feed(500)
	w.settled()
	ends := map[string]func(){"by a crash": broker.Kill}
	if *full {
		ends["in good order"] = broker.Stop
	}
	for name, end := range ends {
		t.Log(name)
		w.feed(300)
		end()
		w.feed(300)
		p.notReady("connection refused")
		must(t, broker.Start(t.Context()))
		p.ready()
		w.feed(300)
		w.settled()
	}
	w.account()
	p.stop()
}
