package output

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// adminAPI is the part of Pulsar's admin API that is asked, for one topic of two partitions. Other paths are not found.
type adminAPI struct {
	*httptest.Server
	token string // that must be shown, "" for none

	mu struct {
		sync.Mutex
		on       bool
		lag      int // questions until a policy has reached the partitions
		get, set int // what the policy's own path answers with, 0 = as it should
		stats    int
		requests []string
	}
}

func newAdminAPI(t *testing.T, edit func(*adminAPI)) *adminAPI {
	a := &adminAPI{}
	a.mu.lag = 2
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	edit(a)
	return a
}

func (a *adminAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	refuse := func(status int) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"reason": "because of a test"})
	}
	a.mu.requests = append(a.mu.requests, r.Method+" "+r.URL.Path)
	if a.token != "" && r.Header.Get("Authorization") != "Bearer "+a.token {
		refuse(http.StatusUnauthorized)
		return
	}
	const topic = "/admin/v2/persistent/public/default/orders"
	switch path := strings.TrimPrefix(r.URL.Path, "/proxy"); {
	case path == topic+"/deduplicationEnabled" && r.Method == http.MethodGet && a.mu.get != 0:
		refuse(a.mu.get)
	case path == topic+"/deduplicationEnabled" && r.Method == http.MethodGet && r.URL.Query().Get("applied") == "true":
		fmt.Fprint(w, a.mu.on)
	case path == topic+"/deduplicationEnabled" && r.Method == http.MethodPost && a.mu.set != 0:
		refuse(a.mu.set)
	case path == topic+"/deduplicationEnabled" && r.Method == http.MethodPost:
		if content, _ := io.ReadAll(r.Body); string(content) != "true" || r.Header.Get("Content-Type") != "application/json" {
			refuse(http.StatusBadRequest)
			return
		}
		a.mu.on = true
		w.WriteHeader(http.StatusNoContent)
	case (path == topic+"-partition-0/stats" || path == topic+"-partition-1/stats") && a.mu.stats != 0:
		refuse(a.mu.stats)
	case path == topic+"-partition-0/stats" || path == topic+"-partition-1/stats":
		status := "Enabled"
		if a.mu.lag--; !a.mu.on || a.mu.lag >= 0 {
			status = "Disabled"
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"deduplicationStatus": status, "msgRateIn": 0.5})
	default:
		refuse(http.StatusNotFound)
	}
}

func (a *adminAPI) asked(request string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.mu.requests {
		if strings.HasPrefix(r, request) {
			n++
		}
	}
	return n
}

// Whether the topic de-duplicates is known before the first message, and a topic that does not is mended where the role
// may do that.
func TestTheAdminAPIIsAskedWhetherTheTopicDeduplicates(t *testing.T) {
	t.Parallel()
	const switchedOn = "POST /admin/v2/persistent/public/default/orders/deduplicationEnabled"
	for name, c := range map[string]struct {
		edit func(*adminAPI)
		// fails is what the error of Connect says, trial what that of a connection test says; "" = there is none.
		fails, trial string
		warns        string
		posts        int
	}{
		"it does":                      {edit: func(a *adminAPI) { a.mu.on, a.mu.lag = true, 0 }},
		"it will at once":              {edit: func(a *adminAPI) { a.mu.on, a.mu.lag = true, 3 }},
		"it does not":                  {edit: func(a *adminAPI) {}, posts: 1},
		"the statistics are forbidden": {edit: func(a *adminAPI) { a.mu.stats = http.StatusForbidden }, posts: 1},
		"no partition is loaded yet":   {edit: func(a *adminAPI) { a.mu.stats = http.StatusNotFound }, posts: 1},
		"switching is forbidden": {
			edit: func(a *adminAPI) { a.mu.set = http.StatusForbidden }, posts: 1,
			fails: "pulsar-admin topics set-deduplication --enable TOPIC`. It could not be switched on over admin_url: 403 Forbidden: because of a test",
			trial: "403 Forbidden",
		},
		"topics have no policies": {
			edit: func(a *adminAPI) { a.mu.set = http.StatusMethodNotAllowed }, posts: 1,
			fails: "405 Method Not Allowed", trial: "405 Method Not Allowed",
		},
		"asking is forbidden": {
			edit:  func(a *adminAPI) { a.mu.get = http.StatusUnauthorized },
			warns: "admin_url: asking whether the topic de-duplicates: 401 Unauthorized: because of a test; the first message will tell",
			trial: "admin_url: asking whether the topic de-duplicates: 401",
		},
		"it is away": {edit: func(a *adminAPI) { a.Server.URL = "http://127.0.0.1:1" }, warns: "connection refused", trial: "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBroker(t, pulsartest.Deduplication())
			if err := b.CreatePartitionedTopic("orders", 2); err != nil {
				t.Fatal(err)
			}
			a := newAdminAPI(t, c.edit)
			conf, err := parse(t, "url: "+b.URL()+"\ntopic: orders\ndeduplication: true\nadmin_url: "+a.URL+"/")
			if err != nil {
				t.Fatal(err)
			}
			var log lockedBuffer
			o := newOutput(conf, service.MockResources(service.MockResourcesOptUseLogger(service.NewLoggerFromSlog(slog.New(slog.NewTextHandler(&log, nil))))))
			t.Cleanup(func() { _ = o.Close(context.Background()); <-o.session.Load().finished })
			err = o.Connect(t.Context())
			if said := fmt.Sprint(err); (err == nil) != (c.fails == "") || !strings.Contains(said, c.fails) && c.fails != "" {
				t.Errorf("Connect: %s", said)
			}
			if c.fails != "" && !errors.Is(err, errDeduplicationOff) {
				t.Errorf("Connect: %v", err)
			}
			if n := a.asked(switchedOn); n != c.posts {
				t.Errorf("switched on %d times", n)
			}
			// Once is enough.
			before := a.asked("")
			if err := o.Connect(t.Context()); (err == nil) != (c.fails == "") {
				t.Errorf("Connect again: %v", err)
			}
			if c.fails == "" && c.warns == "" && a.asked("") != before {
				t.Errorf("asked again: %q", a.mu.requests[before:])
			}
			warned := strings.Count(log.String(), "level=WARN")
			if c.warns == "" && warned > 0 || c.warns != "" && (warned != 1 || !strings.Contains(log.String(), c.warns)) {
				t.Errorf("the log: %s", log.String())
			}
			if c.posts > 0 && c.fails == "" && !strings.Contains(log.String(), "De-duplication was switched on for topic orders") {
				t.Errorf("nobody was told: %s", log.String())
			}
			results := o.ConnectionTest(t.Context())
			if err := results[0].Err; (err == nil) != (c.trial == "") || err != nil && !strings.Contains(err.Error(), c.trial) {
				t.Errorf("the connection test: %v", err)
			}
			if c.fails != "" {
				return
			}
			s := (&counter{}).newRun()
			batch, _ := s.batch(0, 1, 2)
			if err := o.WriteBatch(t.Context(), batch); err != nil {
				t.Errorf("writing: %v", err)
			}
		})
	}
}

// A broker sends who asks to the one that has the topic. The token goes along, and is in no error.
func TestTheAdminAPIIsShownTheToken(t *testing.T) {
	t.Parallel()
	a := newAdminAPI(t, func(a *adminAPI) { a.token = "hush-hush" })
	redirect := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(a.URL, "127.0.0.1", "localhost", 1)+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	}))
	t.Cleanup(redirect.Close)
	provider, err := tokenConfig{enabled: true, token: "hush-hush"}.provider()
	if err != nil {
		t.Fatal(err)
	}
	api := newAdmin(redirect.URL, "persistent://public/default/orders", nil, provider)
	if on, err := api.deduplicates(t.Context()); on || err != nil {
		t.Errorf("%t, %v", on, err)
	}
	if err := api.enable(t.Context()); err != nil {
		t.Error(err)
	}
	if on, err := api.deduplicates(t.Context()); !on || err != nil {
		t.Errorf("%t, %v", on, err)
	}
	wrong, _ := tokenConfig{enabled: true, token: "hush-hush-hush"}.provider()
	_, err = newAdmin(redirect.URL, "orders", nil, wrong).deduplicates(t.Context())
	if err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), "401 Unauthorized") {
		t.Errorf("%v", err)
	}
}

// What is no admin API is told from one that says no.
func TestSomethingElseAnswersForTheAdminAPI(t *testing.T) {
	t.Parallel()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>welcome</html>") }))
	t.Cleanup(page.Close)
	if _, err := newAdmin(page.URL, "orders", nil, nil).deduplicates(t.Context()); err == nil || !strings.Contains(err.Error(), "something else than Pulsar's admin API") {
		t.Errorf("%v", err)
	}
	long := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, strings.Repeat("no\n", 5000), http.StatusBadGateway)
	}))
	t.Cleanup(long.Close)
	if _, err := newAdmin(long.URL, "orders", nil, nil).deduplicates(t.Context()); err == nil || len(err.Error()) > 300 || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

func TestPathsOfTopics(t *testing.T) {
	t.Parallel()
	for topic, want := range map[string]string{
		"orders":                             "persistent/public/default/orders",
		"shop/eu/orders":                     "persistent/shop/eu/orders",
		"persistent://shop/eu/orders":        "persistent/shop/eu/orders",
		"persistent://shop/eu/a/b c":         "persistent/shop/eu/a%2Fb%20c",
		"persistent://shop/eu/o-partition-3": "persistent/shop/eu/o-partition-3",
	} {
		if got := topicPath(topic); got != want {
			t.Errorf("%s: %s", topic, got)
		}
	}
}

// On a real broker: a topic of which no policy says anything de-duplicates when Connect returns, and so the message that
// is sent twice to prove it is stored once.
func TestARealTopicIsMadeToDeduplicate(t *testing.T) {
	broker := stack.SharedPulsar(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	topic := fmt.Sprintf("persistent://public/default/admin-%d", time.Now().UnixNano())
	if err := broker.CreatePartitionedTopic(ctx, topic, 2); err != nil {
		t.Fatal(err)
	}
	o := connected(t, broker.ServiceURL(), "topic: "+topic+"\ndeduplication: true\nadmin_url: "+broker.AdminURL())
	s := (&counter{}).newRun()
	batch, _ := s.batch(0, 1, 2, 3, 4, 5)
	if err := o.WriteBatch(ctx, batch); err != nil {
		t.Fatal(err)
	}
	if !o.session.Load().proven.Load() {
		t.Error("the message that was sent twice was not answered as a duplicate")
	}
}
