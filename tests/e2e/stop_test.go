package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

// standsAt checks that every lease is free, and stands where it should.
func (w *world) standsAt(checkpoints map[string]string) {
	w.t.Helper()
	for shard, l := range w.leases() {
		if l["leaseOwner"] != "" {
			w.t.Errorf("lease %s still belongs to %s", shard, l["leaseOwner"])
		}
		if want := checkpoints[shard]; l["checkpoint"] != want {
			w.t.Errorf("lease %s is at %s, the last confirmed record at %s", shard, l["checkpoint"], want)
		}
	}
}

// lastRecords are the sequence numbers of the shards' last records.
func (w *world) lastRecords() map[string]string {
	last := map[string]string{}
	for shard, list := range w.kinesis.Records(streamName) {
		if len(list) > 0 {
			last[shard] = list[len(list)-1].SequenceNumber
		}
	}
	return last
}

func TestAStopWithABlockedOutputIsBounded(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(w *world) (stop func() time.Duration){
		"SIGTERM": func(w *world) func() time.Duration { return w.spawn(config{}).stop },
		"StopWithin": func(w *world) func() time.Duration {
			return w.start(config{pulsar: map[string]string{"operation_timeout": "10s"}}).stop // so long the client lingers
		},
	} {
		for _, how := range []string{"stalled", "down", "nacking"} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, 3, 3)
				stop := run(w)
				w.arrived(w.put(300, 30))
				confirmed := w.lastRecords()
				w.settled()
				switch how {
				case "stalled":
					release := w.broker.StallReceipts("")
					defer release()
				case "down":
					w.broker.Stop()
				case "nacking":
					w.broker.FailSends(topic, -1, 9, "the checksum is always wrong")
				}
				w.put(3000, 30)
				if how == "stalled" {
					w.eventually("messages wait for receipts", func() bool { return w.delivered() > 300 })
				} else {
					w.throughout(500*time.Millisecond, "nothing is delivered", func() bool { return w.delivered() == 300 })
				}
				if took := stop(); took > 2*stopWithin {
					t.Errorf("the stop took %s", took)
				} else {
					t.Logf("the stop took %s", took.Round(time.Millisecond))
				}
				w.standsAt(confirmed)
			})
		}
	}
}

func TestAStopBeforeAnythingCouldConnect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.kinesis.Stop()
	w.dynamodb.Stop()
	p := w.start(config{})
	w.eventually("it tries", func() bool { return p.logs.has("level=ERROR", "kinesis_pulsar") })
	// Nothing has to be waited for.
	if took := p.stop(); took > stopWithin/2 {
		t.Errorf("the stop took %s", took)
	}
	// Benthos itself keeps an output that can't connect until the time of the stop is nearly over.
	w.broker.Stop()
	p = w.start(config{})
	w.eventually("both try", func() bool {
		return p.logs.has("level=ERROR", "kinesis_pulsar") && p.logs.has("level=ERROR", "to pulsar", "connection refused")
	})
	if took := p.stop(); took > 2*stopWithin {
		t.Errorf("the stop took %s", took)
	}
}

// A stop whose release of the leases cannot be written is bounded too.
func TestAStopWithoutDynamoDBIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 2)
	p := w.start(config{quick: true})
	w.arrived(w.put(100, 10))
	w.dynamodb.Stop()
	// It needs some three seconds. By itself Benthos ends what does not end after three quarters of the time for a stop.
	if took := p.stop(); took > stopWithin*5/8 {
		t.Errorf("the stop took %s", took)
	}
	w.dynamodb.Restart()
	q := w.start(config{quick: true})
	w.arrived(w.put(100, 10))
	q.stop()
	w.account().balanced()
	w.released()
}

func TestStreamsModeMovesLeasesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 3)
	address := stack.FreeAddress(t)
	root := filepath.Join(t.TempDir(), "root.yaml")
	must(t, os.WriteFile(root, fmt.Appendf(nil, "http: { address: %s }\nlogger: { level: DEBUG }\nshutdown_timeout: %s\n", address, stopWithin), 0o600))
	p := w.exec(address, "streams", "-o", root)
	// Benthos answers /ping before the endpoints of the streams are there.
	w.eventually("the API answers", func() bool { code, _ := get(p.http + "/streams"); return code == 200 })
	// With a failover so long that a lease which was not released would not move within the test.
	yaml := w.yaml(config{input: map[string]string{"failoverTimeMillis": "600000"}})
	call := func(method, path string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, p.http+path, bytes.NewReader([]byte(yaml)))
		must(t, err)
		if code, body := do(req); code != http.StatusOK {
			t.Fatalf("%s %s: %d %s", method, path, code, body)
		}
	}
	call(http.MethodPost, "/streams/a")
	w.arrived(w.put(300, 30))
	before := w.owners()
	call(http.MethodDelete, "/streams/a")
	w.released()
	call(http.MethodPost, "/streams/a")
	began := time.Now()
	w.arrived(w.put(300, 30))
	t.Logf("the stream made again delivered after %s", time.Since(began).Round(time.Millisecond))
	if after := w.owners(); len(after) != 1 || fmt.Sprint(after) == fmt.Sprint(before) {
		t.Errorf("owners %v, before %v", after, before)
	}
	call(http.MethodPut, "/streams/a")
	w.arrived(w.put(300, 30))
	w.eventually("ready", func() bool { code, _ := p.ready(); return code == 200 })
	p.stop()
	w.account().balanced().once()
	w.released()
}
