package fleet

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/wholebody"
)

// ledger stands between the workers and DynamoDB. Each worker has an endpoint of its own, so that it is known who sent
// what; requests and answers pass unchanged.
type ledger struct {
	backend   string
	transport *http.Transport

	mu struct {
		sync.Mutex
		calls    []call
		underWay map[string]int // requests of each worker that have not been answered
	}
}

// call is one request to DynamoDB.
type call struct {
	worker, operation, key string
	sent, answered         time.Time
	status                 int
	// acquisitions are the acquisition ids that the request names: an owner's write is conditional on its own.
	acquisitions []string
	// moves tells whether the request writes the lease's counter: whoever owns a lease or comes to own it does, who asks for
	// it, withdraws, anchors it or names its children does not.
	moves bool
	// after is the lease as an applied write has left it; nil for everything else.
	after lease
}

// lease is one row of the lease table, its values as texts.
type lease map[string]string

func (l lease) owner() string { return l["leaseOwner"] }
func (l lease) counter() int  { n, _ := strconv.Atoi(l["leaseCounter"]); return n }
func (l lease) ended() bool   { return l["checkpoint"] == "SHARD_END" }

func newLedger(t testing.TB, backend string) *ledger {
	l := &ledger{backend: backend, transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	l.mu.underWay = map[string]int{}
	t.Cleanup(l.transport.CloseIdleConnections)
	return l
}

// endpoint is what a worker is given as DynamoDB's URL, until the test ends.
func (l *ledger) endpoint(t testing.TB, worker string) string {
	client := &http.Client{Transport: wholebody.Transport(l.transport)}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent := time.Now()
		l.count(worker, 1)
		defer l.count(worker, -1)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		// A worker that dies does not take its request back: what it had sent takes effect, and is written down.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), patience)
		defer cancel()
		out, err := http.NewRequestWithContext(ctx, r.Method, l.backend+r.URL.Path, bytes.NewReader(body))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		out.Header = r.Header.Clone()
		answer, err := client.Do(out)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		c := call{worker: worker, sent: sent, answered: time.Now(), status: answer.StatusCode}
		_, c.operation, _ = strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		c.read(body, text)
		l.mu.Lock()
		l.mu.calls = append(l.mu.calls, c)
		l.mu.Unlock()
		for name, values := range answer.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.StatusCode)
		_, _ = w.Write(text)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func (l *ledger) count(worker string, by int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.underWay[worker] += by
}

// isQuiet tells whether all that a worker has asked has been answered.
func (l *ledger) isQuiet(worker string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.underWay[worker] == 0
}

type attributes map[string]map[string]any

func (a attributes) texts() lease {
	l := lease{}
	for name, value := range a {
		for kind, v := range value {
			if s, ok := v.(string); ok && (kind == "S" || kind == "N") {
				l[name] = s
			}
		}
	}
	return l
}

// read takes from a request and its answer what the account needs.
func (c *call) read(request, answer []byte) {
	var q struct {
		Key, Item                 attributes
		UpdateExpression          string
		ExpressionAttributeNames  map[string]string
		ExpressionAttributeValues attributes
	}
	if json.Unmarshal(request, &q) != nil {
		return
	}
	for _, value := range q.ExpressionAttributeValues.texts() {
		if strings.Contains(value, "#") {
			c.acquisitions = append(c.acquisitions, value)
		}
	}
	item := q.Item.texts()
	c.moves = item["leaseCounter"] != "" || names(q.UpdateExpression, q.ExpressionAttributeNames, "leaseCounter")
	if c.key = q.Key.texts()["leaseKey"]; c.key == "" {
		c.key = item["leaseKey"]
	}
	if c.status != http.StatusOK {
		return
	}
	switch c.operation {
	case "PutItem":
		c.after = item
	case "UpdateItem":
		var a struct{ Attributes attributes }
		if json.Unmarshal(answer, &a) == nil {
			c.after = a.Attributes.texts()
		}
	}
}

// names tells whether an expression names an attribute, as it is or by a placeholder.
func names(expression string, placeholders map[string]string, attribute string) bool {
	words := strings.FieldsFunc(expression, func(r rune) bool { return strings.ContainsRune(" \t\n,=+-()", r) })
	return slices.ContainsFunc(words, func(word string) bool { return word == attribute || placeholders[word] == attribute })
}

// all are the calls so far, in the order in which they were answered.
func (l *ledger) all() []call {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mu.calls)
}

// scans counts the scans that a worker has begun since a moment.
func scans(calls []call, worker string, since time.Time) (n int) {
	for _, c := range calls {
		if c.worker == worker && c.operation == "Scan" && !c.sent.Before(since) {
			n++
		}
	}
	return n
}

// tenure is the time for which one worker owns a lease under one acquisition id.
type tenure struct {
	shard, worker, acquisition string
	// began is when the write that began it was sent, ended when the one that ended it was answered; zero: it goes on.
	began, ended time.Time
	from         string // the checkpoint that it begins at
	// handed is when the write that began it was answered, kept when its owner first renewed it. A lease that was given
	// may be used from the latter on.
	handed, kept time.Time
	how          beginning
	// before is whose tenure ended with the beginning of this one; "" if the lease was free. silent is how long that one had
	// written nothing.
	before string
	silent time.Duration
	// lapsed is how long the lease had not been renewed when whoever had it before released it.
	lapsed time.Duration
	over   ending
	// renewed is when the last write of its owner was sent, lapse the longest time between two of them.
	renewed time.Time
	lapse   time.Duration
	parted  time.Duration // the last of these, which a release ended
}

type beginning int

const (
	found  beginning = iota // the lease was free
	given                   // by its owner
	forced                  // taken from an owner that had not given it up
)

func (b beginning) String() string { return [...]string{"release", "gift", "force"}[b] }

type ending int

const (
	lasting ending = iota
	released
	passed // given to another worker
	robbed // another tenure was begun without the owner
)

// history is what the ledger says of the leases: their tenures by shard in the order of time, and what no worker may do.
type history struct {
	tenures map[string][]tenure
	wrong   []string
}

// historyOf reads the ledger. workerOf tells which process a worker id belongs to.
//
// Writes of one lease are told apart in time by its counter, which every owner's write moves: answers of different
// workers may be written down in another order than the writes took effect. What leaves the counter alone comes behind
// the write that moved it there, or an ask would pass for the renewal that it followed, by a worker that owns nothing.
// Among themselves such writes may stand in any order: they change nothing that the account looks at.
func historyOf(calls []call, workerOf func(id string) string) history {
	h := history{tenures: map[string][]tenure{}}
	writes := map[string][]call{}
	for _, c := range calls {
		if c.after != nil {
			writes[c.key] = append(writes[c.key], c)
		}
	}
	for key, list := range writes {
		slices.SortStableFunc(list, func(a, b call) int {
			if order := cmp.Compare(a.after.counter(), b.after.counter()); order != 0 || a.moves == b.moves {
				return order
			}
			if a.moves {
				return -1
			}
			return 1
		})
		was := lease{}
		for _, c := range list {
			h.note(key, was, c, workerOf)
			was = c.after
		}
	}
	return h
}

func (h *history) note(key string, was lease, c call, workerOf func(string) string) {
	is := c.after
	owner := workerOf(was.owner())
	list := h.tenures[key]
	end := func(how ending) {
		if n := len(list); n > 0 && list[n-1].over == lasting {
			list[n-1].over, list[n-1].ended = how, c.answered
		}
	}
	if !notBack(was["checkpoint"], is["checkpoint"]) {
		h.wrong = append(h.wrong, c.worker+" moved the checkpoint of "+key+" back, from "+was["checkpoint"]+" to "+is["checkpoint"])
	}
	if acquisition := is["kp_acq"]; acquisition != was["kp_acq"] {
		t := tenure{shard: key, worker: workerOf(is.owner()), acquisition: acquisition, began: c.sent, handed: c.answered, from: is["checkpoint"], before: owner}
		if n := len(list); n > 0 {
			t.silent = c.sent.Sub(list[n-1].renewed)
			if list[n-1].over == released {
				t.lapsed = list[n-1].parted
			}
		}
		t.renewed = c.sent
		switch {
		case was.owner() == "":
			t.how = found
		case c.worker == owner && t.worker != owner:
			t.how = given
			end(passed)
		default:
			t.how = forced
			end(robbed)
		}
		if t.how != given && t.worker != c.worker {
			h.wrong = append(h.wrong, c.worker+" made "+t.worker+" the owner of "+key+", which was not its own")
		}
		h.tenures[key] = append(list, t)
		return
	}
	moved := is.counter() != was.counter() || is.owner() != was.owner() || is["checkpoint"] != was["checkpoint"]
	if was.owner() != "" && moved && c.worker != owner {
		h.wrong = append(h.wrong, c.worker+" wrote as the owner of "+key+", which belonged to "+owner)
	}
	if n := len(list); n > 0 && moved && c.worker == list[n-1].worker {
		gap := c.sent.Sub(list[n-1].renewed)
		list[n-1].lapse = max(list[n-1].lapse, gap)
		list[n-1].renewed = c.sent
		if is.owner() == "" {
			list[n-1].parted = gap
		}
		if list[n-1].kept.IsZero() {
			list[n-1].kept = c.answered
		}
	}
	if was.owner() != "" && is.owner() == "" {
		end(released)
	}
}

// notBack tells whether a checkpoint follows another, or is the same.
func notBack(was, is string) bool {
	number := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	switch {
	case was == "" || is == "SHARD_END" || !number(was) && was != "SHARD_END":
		return true
	case !number(is) || was == "SHARD_END":
		return was == is
	}
	return len(was) < len(is) || len(was) == len(is) && was <= is
}
