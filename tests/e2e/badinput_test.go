package e2e

import (
	"strings"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// What only the services can know is told by /ready, with the cause, for as long as it lasts; and when it is over the
// pipeline starts by itself.
func TestWhatIsWrongAtTheStartIsToldAndWaitedFor(t *testing.T) {
	t.Parallel()
	type cause struct {
		options []pulsartest.Option
		config  config
		make    func(w *world) (end func())
		told    []string // all in one body of /ready
	}
	for name, tc := range map[string]cause{
		"missing stream": {
			make: func(w *world) func() {
				must(w.t, w.kinesis.DeleteStream(streamName))
				return func() { must(w.t, w.kinesis.CreateStream(streamName, 2)) }
			},
			told: []string{"awsKinesisStreamName", `no stream`, streamName},
		},
		"no permission for the stream": {
			make: func(w *world) func() {
				f := w.kinesis.Inject(kinesistest.Fault{Code: kinesistest.AccessDenied, Count: -1})
				return f.Remove
			},
			told: []string{"AccessDenied", streamName},
		},
		"no permission to list shards": {
			make: func(w *world) func() {
				f := w.kinesis.Inject(kinesistest.Fault{Operation: "ListShards", Code: kinesistest.AccessDenied, Count: -1})
				return f.Remove
			},
			told: []string{"AccessDenied", streamName},
		},
		"wrong credentials": {
			make: func(w *world) func() {
				f := w.kinesis.Inject(kinesistest.Fault{Code: kinesistest.UnrecognizedClient, Count: -1})
				return f.Remove
			},
			told: []string{"UnrecognizedClient"},
		},
		"expired credentials": {
			make: func(w *world) func() {
				f := w.kinesis.Inject(kinesistest.Fault{Code: kinesistest.ExpiredToken, Count: -1})
				return f.Remove
			},
			told: []string{"ExpiredToken"},
		},
		"no permission to read records": {
			make: func(w *world) func() {
				f := w.kinesis.Inject(kinesistest.Fault{Operation: "GetRecords", Code: kinesistest.AccessDenied, Count: -1})
				return f.Remove
			},
			told: []string{"AccessDenied", "GetRecords"},
		},
		"kinesis unreachable": {
			make: func(w *world) func() {
				w.kinesis.Stop()
				return func() { must(w.t, w.kinesis.Restart()) }
			},
			told: []string{"connection refused"},
		},
		"no permission for the table": {
			make: func(w *world) func() {
				f := w.dynamodb.Inject(dynamotest.Fault{Kind: dynamotest.AccessDenied, Count: -1})
				return f.Remove
			},
			told: []string{"lease table", table, "AccessDenied"},
		},
		"no permission to create the table": {
			make: func(w *world) func() {
				f := w.dynamodb.Inject(dynamotest.Fault{Operation: "CreateTable", Kind: dynamotest.AccessDenied, Count: -1})
				return f.Remove
			},
			told: []string{"lease table", table, "AccessDenied"},
		},
		"no permission to write leases": {
			make: func(w *world) func() {
				f := w.dynamodb.Inject(dynamotest.Fault{Operation: "PutItem", Kind: dynamotest.AccessDenied, Count: -1})
				return f.Remove
			},
			told: []string{"lease", "AccessDenied"},
		},
		"no permission to take leases": {
			make: func(w *world) func() {
				f := w.dynamodb.Inject(dynamotest.Fault{Operation: "UpdateItem", Kind: dynamotest.AccessDenied, Count: -1})
				return f.Remove
			},
			told: []string{"lease", "AccessDenied"},
		},
		"dynamodb unreachable": {
			make: func(w *world) func() {
				w.dynamodb.Stop()
				return w.dynamodb.Restart
			},
			told: []string{"lease table", table, "connection refused"},
		},
		"dynamodb hangs": {
			make: func(w *world) func() {
				f := w.dynamodb.Inject(dynamotest.Fault{Kind: dynamotest.Hang, Count: -1})
				return f.Remove
			},
			told: []string{"lease table", table},
		},
		"kinesis hangs": {
			make: func(w *world) func() {
				f := w.kinesis.Inject(kinesistest.Fault{Kind: kinesistest.Hang, Count: -1})
				return f.Remove
			},
			told: []string{streamName},
		},
		"no pulsar": {
			make: func(w *world) func() {
				w.broker.Stop()
				return func() { must(w.t, w.broker.Restart()) }
			},
			told: []string{"connection refused"},
		},
		"no right to produce": {
			make: func(w *world) func() {
				w.broker.RefuseProducers(topic, pulsartest.Forever, pulsartest.AuthorizationError, "not for you")
				return w.broker.ClearFaults
			},
			told: []string{"creating a producer on orders", "AuthorizationError", "not for you"},
		},
		"pulsar hangs": {
			make: func(w *world) func() { return w.broker.HangLookups("") },
			told: []string{"no answer from Pulsar"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, 2, tc.options...)
			end := tc.make(w)
			p := w.spawn(tc.config)
			w.eventually("not ready, with the cause", func() bool {
				code, body := p.ready()
				if code != 503 || strings.Contains(body, secret) {
					return false
				}
				for _, text := range tc.told {
					if !strings.Contains(body, text) {
						return false
					}
				}
				return true
			})
			_, body := p.ready()
			t.Logf("/ready: %s", body)
			w.eventually("it is in the log", func() bool { return p.logs.has("level=error") })
			if n := strings.Count(p.logs.String(), "level=error"); n > 100 {
				t.Errorf("%d errors in the log", n)
			}
			end()
			w.put(100, 10)
			w.arrived(100)
			w.eventually("ready", func() bool { code, _ := p.ready(); return code == 200 })
			p.stop()
			w.account().balanced().once()
			w.released()
		})
	}
}

// What the config alone shows ends the process at once, and names the field.
func TestWhatIsWrongInTheConfigIsTold(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config config
		told   []string
	}{
		"impossible table name": {config{input: map[string]string{"applicationName": `"My test application"`}}, []string{"applicationName"}},
		"no url":                {config{pulsar: map[string]string{"url": `""`}}, []string{"url"}},
		"no number":             {config{input: map[string]string{"checkpointInterval": `"soon"`}}, []string{"checkpointInterval", "soon"}},
		"broken credentials":    {config{input: map[string]string{"awsCredentialPluginParam": `'{"accessKey":"x"}'`}}, []string{"awsCredentialPluginParam", "secretKey"}},
		"unknown field":         {config{input: map[string]string{"shardCount": "3"}}, []string{"shardCount"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1, 1)
			if tc.config.pulsar != nil {
				w.pulsarURL = `""`
				tc.config.pulsar = nil
			}
			p := w.spawn(tc.config)
			<-p.done
			if p.err == nil {
				t.Error("the exit code is 0")
			}
			for _, text := range tc.told {
				if !strings.Contains(p.logs.String(), text) {
					t.Errorf("%q is not told", text)
				}
			}
		})
	}
}
