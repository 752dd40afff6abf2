package fleet

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

// small is a shard of four records, of which worker a has delivered two before it was killed, unnoticed by the
// checkpoint, and worker b all.
func small() evidence {
	e := evidence{records: map[string][]kinesistest.Record{}, ends: map[string]time.Time{"a": at(3)}}
	for i, key := range []string{"x", "y", "x", "y"} {
		r := kinesistest.Record{ShardID: "s", SequenceNumber: fmt.Sprintf("%056d", i+1), PartitionKey: key, Data: fmt.Append(nil, key, " ", i), Arrival: at(float64(i + 1))}
		e.records["s"] = append(e.records["s"], r)
	}
	e.history.tenures = map[string][]tenure{"s": {
		{shard: "s", worker: "a", acquisition: "a#1", began: at(0), ended: at(10), from: "TRIM_HORIZON", over: robbed},
		{shard: "s", worker: "b", acquisition: "b#1", began: at(9.9), from: e.records["s"][0].SequenceNumber, how: forced, before: "a"},
	}}
	e.messages = []message{
		e.message(0, "a", 1.1), e.message(1, "a", 2.1),
		e.message(1, "b", 10.1), e.message(2, "b", 10.1), e.message(3, "b", 10.1),
	}
	return e
}

func (e evidence) message(record int, worker string, published float64) message {
	r := e.records["s"][record]
	return message{name: nameOf(r), worker: worker, published: at(published), payload: string(r.Data)}
}

func TestTheAccountFindsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*evidence)
		want   []string
	}{
		"nothing":                         {func(*evidence) {}, nil},
		"a record that never came":        {func(e *evidence) { e.messages = e.messages[:4] }, []string{foundLost}},
		"a message of no record":          {func(e *evidence) { e.messages[0].sequence = "9" }, []string{foundForeign, foundLost}},
		"other bytes":                     {func(e *evidence) { e.messages[0].payload = "z" }, []string{foundDifferent}},
		"a key in two partitions":         {func(e *evidence) { e.messages[4].partition = 1 }, []string{foundScattered}},
		"a copy of what was checkpointed": {func(e *evidence) { e.messages = slices.Insert(e.messages, 2, e.message(0, "b", 10.1)) }, []string{foundRepeated}},
		"a copy too many":                 {func(e *evidence) { e.messages = slices.Insert(e.messages, 2, e.message(1, "b", 10.1)) }, []string{foundRepeated}},
		"a copy of what came after the kill": {func(e *evidence) {
			e.messages = append(e.messages, e.message(3, "b", 10.2))
		}, []string{foundRepeated}},
		"a copy although nobody died": {func(e *evidence) {
			e.history.tenures["s"][0].over, e.history.tenures["s"][1].how, e.ends = passed, given, nil
		}, []string{foundRepeated}},
		"a lease taken from the living": {func(e *evidence) { e.ends = nil }, []string{foundRobbed, foundRepeated}},
		"a lease lost by a stall": {func(e *evidence) {
			e.ends, e.failover, e.history.tenures["s"][1].silent = nil, 3*time.Second, 3*time.Second
		}, nil},
		"a lease lost by a shorter one": {func(e *evidence) {
			e.ends, e.failover, e.history.tenures["s"][1].silent = nil, 3*time.Second, 2*time.Second
		}, []string{foundRobbed, foundRepeated}},
		"a lease released after a stall": {func(e *evidence) {
			e.ends, e.failover = nil, 3*time.Second
			e.history.tenures["s"][0].over, e.history.tenures["s"][1].how, e.history.tenures["s"][1].before = released, found, ""
			e.history.tenures["s"][1].lapsed = 2 * time.Second
		}, nil},
		"a lease released in good time": {func(e *evidence) {
			e.ends, e.failover = nil, 3*time.Second
			e.history.tenures["s"][0].over, e.history.tenures["s"][1].how, e.history.tenures["s"][1].before = released, found, ""
			e.history.tenures["s"][1].lapsed = time.Second
		}, []string{foundRepeated}},
		"what a starved client still had": {func(e *evidence) {
			e.ends, e.failover, e.history.tenures["s"][1].silent = nil, 3*time.Second, 3*time.Second
			e.messages = append(e.messages, e.message(1, "a", 10.5))
		}, nil},
		"what a client had that was not starved": {func(e *evidence) {
			e.ends, e.failover, e.history.tenures["s"][1].silent = nil, 3*time.Second, 2*time.Second
			e.messages = append(e.messages, e.message(1, "a", 10.5))
		}, []string{foundOutside, foundRobbed, foundRepeated, foundLast}},
		"an early record": {func(e *evidence) {
			e.messages = []message{e.message(2, "a", 1), e.message(0, "a", 1.1), e.message(1, "b", 10.1), e.message(3, "b", 10.1)}
		}, []string{foundFirst, foundLast}},
		"an old copy behind": {func(e *evidence) {
			e.history.tenures["s"] = append(e.history.tenures["s"], tenure{shard: "s", worker: "c", began: at(11), how: forced, before: "b", from: "TRIM_HORIZON"})
			e.ends["b"] = at(11)
			e.messages = append(e.messages, e.message(0, "c", 12))
		}, []string{foundLast}},
		"a message without a lease":                {func(e *evidence) { e.messages[2].worker = "c" }, []string{foundOutside}},
		"a message after the lease":                {func(e *evidence) { e.messages[1].published = at(10.5); e.ends["a"] = at(11) }, []string{foundOutside}},
		"a message before the lease":               {func(e *evidence) { e.messages[2].published = at(9.8) }, []string{foundOutside}},
		"what a paused client still had":           {func(e *evidence) { e.messages = append(e.messages, e.message(1, "a", 30)) }, nil},
		"a kill that left no copy":                 {func(e *evidence) { e.messages = slices.Delete(e.messages, 1, 2) }, nil},
		"what its client sent twice":               {func(e *evidence) { e.messages = append(e.messages, e.messages[0]) }, nil},
		"what a living worker's client sent twice": {func(e *evidence) { e.messages = append(e.messages, e.messages[4]) }, []string{foundRepeated}},
		"a paused worker with what came later on":  {func(e *evidence) { e.messages = append(e.messages, e.message(3, "a", 30)) }, []string{foundOutside, foundRepeated}},
		"a write out of turn":                      {func(e *evidence) { e.history.wrong = []string{"a wrote"} }, []string{foundWrites}},
	} {
		e := small()
		c.change(&e)
		a := settle(e)
		if got := slices.Sorted(maps.Keys(a.findings)); !slices.Equal(got, slices.Sorted(slices.Values(c.want))) {
			t.Errorf("%s: found %v", name, a)
		}
	}
	if a := settle(small()); a.repeated != 1 || a.exposed != 2 || a.forced != 1 || a.records != 4 || a.messages != 5 {
		t.Errorf("a kill: %v", a)
	}
}

// write is an applied write of a lease that moves its counter, as the ledger has it.
func write(worker, owner, acquisition string, counter int, checkpoint string) call {
	l := lease{"leaseKey": "s", "leaseCounter": fmt.Sprint(counter), "checkpoint": checkpoint}
	if owner != "" {
		l["leaseOwner"] = owner
	}
	if acquisition != "" {
		l["kp_acq"] = acquisition
	}
	return call{worker: worker, operation: "UpdateItem", key: "s", status: http.StatusOK, sent: at(float64(counter)), answered: at(float64(counter) + 0.1), moves: true, after: l}
}

func TestTheLedgerTellsTenures(t *testing.T) {
	same := func(id string) string { return id }
	calls := []call{
		write("a", "", "", 0, "TRIM_HORIZON"), // created
		write("a", "a", "a#1", 1, "TRIM_HORIZON"),
		write("a", "a", "a#1", 2, "5"),
		write("a", "b", "b#1", 3, "7"), // given
		write("b", "b", "b#1", 5, "8"), // answered before the one below
		write("b", "b", "b#1", 4, "7"),
		write("c", "c", "c#1", 6, "8"), // taken by force
		write("c", "", "c#1", 7, "10"), // released, a second after it was taken
		write("d", "d", "d#1", 8, "10"),
	}
	calls[0].operation = "PutItem"
	h := historyOf(calls, same)
	var got []string
	for _, t := range h.tenures["s"] {
		got = append(got, fmt.Sprint(t.worker, " ", t.how, " ", t.over, " ", t.from, " after ", t.silent, " of ", t.before))
	}
	want := []string{
		fmt.Sprint("a ", found, " ", passed, " TRIM_HORIZON after 0s of "), fmt.Sprint("b ", given, " ", robbed, " 7 after 1s of a"),
		fmt.Sprint("c ", forced, " ", released, " 8 after 1s of b"), fmt.Sprint("d ", found, " ", lasting, " 10 after 1s of "),
	}
	if !slices.Equal(got, want) || len(h.wrong) > 0 {
		t.Errorf("tenures %q, wrong %q", got, h.wrong)
	}
	if list := h.tenures["s"]; list[3].lapsed != time.Second || list[2].lapsed != 0 {
		t.Errorf("lapsed before a release: %v", list)
	}
	for name, c := range map[string]struct {
		then call
		want string
	}{
		"a renewal by somebody else":       {write("b", "d", "d#1", 9, "10"), "b wrote as the owner"},
		"a checkpoint that goes back":      {write("d", "d", "d#1", 9, "9"), "moved the checkpoint of s back"},
		"a sentinel after a number":        {write("d", "d", "d#1", 9, "TRIM_HORIZON"), "moved the checkpoint of s back"},
		"a gift by who does not own":       {write("b", "a", "a#2", 9, "10"), "b made a the owner"},
		"an owner taken away by a release": {write("b", "", "d#1", 9, "10"), "b wrote as the owner"},
	} {
		if h := historyOf(append(slices.Clone(calls), c.then), same); len(h.wrong) != 1 || !strings.Contains(h.wrong[0], c.want) {
			t.Errorf("%s: %q", name, h.wrong)
		}
	}
	// An ask is no owner's write: it moves nothing.
	ask := write("b", "d", "d#1", 8, "10")
	ask.moves, ask.after["kp_ask"] = false, "b"
	if h := historyOf(append(slices.Clone(calls), ask), same); len(h.wrong) > 0 {
		t.Errorf("an ask: %q", h.wrong)
	}
}

// An ask takes effect after the renewal whose counter it carries, but its answer may be written down first. It must not
// pass for that renewal, which would be one by a worker that does not own the lease.
func TestAnAskIsNotTakenForTheWriteItFollowed(t *testing.T) {
	same := func(id string) string { return id }
	created, taken := write("a", "", "", 0, "TRIM_HORIZON"), write("a", "a", "a#1", 1, "TRIM_HORIZON")
	kept, given := write("a", "a", "a#1", 2, "5"), write("a", "b", "b#1", 3, "7")
	// beside is what c, which owns nothing, writes behind another write, at the same counter; "" takes an attribute away.
	beside := func(behind call, attribute, value string) call {
		c := behind
		c.worker, c.moves, c.after = "c", false, maps.Clone(behind.after)
		c.sent, c.answered = behind.sent.Add(50*time.Millisecond), behind.answered.Add(20*time.Millisecond)
		if c.after[attribute] = value; value == "" {
			delete(c.after, attribute)
		}
		return c
	}
	want := historyOf([]call{created, taken, kept, given}, same)
	if len(want.wrong) > 0 || len(want.tenures["s"]) != 2 {
		t.Fatalf("in turn: %v", want)
	}
	for name, calls := range map[string][]call{
		"an ask before a renewal":             {created, taken, beside(kept, "kp_ask", "c"), kept, given},
		"an ask before the write that took":   {created, beside(taken, "kp_ask", "c"), taken, kept, given},
		"a withdrawal before its ask":         {created, taken, beside(kept, "kp_ask", ""), beside(kept, "kp_ask", "c"), kept, given},
		"an anchor before a gift":             {created, taken, kept, beside(given, "kp_start", "1"), given},
		"an ask before it, and all backwards": {beside(given, "kp_ask", "c"), given, kept, taken, created},
	} {
		if got := historyOf(calls, same); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	// An owner that is changed without moving the counter is found all the same.
	robbed := []call{created, taken, beside(kept, "leaseOwner", "c"), kept}
	if h := historyOf(robbed, same); len(h.wrong) != 1 || !strings.Contains(h.wrong[0], "c wrote as the owner of s, which belonged to a") {
		t.Errorf("an owner changed beside the counter: %q", h.wrong)
	}
}

func TestTheLedgerTellsWhatMovesTheCounter(t *testing.T) {
	const key, put = `"Key": {"leaseKey": {"S": "s"}}, `, `"Item": {"leaseKey": {"S": "s"}, "leaseCounter": {"N": "0"}}`
	const aliases = `, "ExpressionAttributeNames": {"#leaseCounter": "leaseCounter", "#c": "leaseCounter", "#kp_ask": "kp_ask"}`
	for _, c := range []struct {
		operation, request string
		want               bool
	}{
		{"PutItem", put, true},
		{"UpdateItem", key + `"UpdateExpression": "SET #leaseCounter = :new_leaseCounter, #checkpoint = :new_checkpoint"` + aliases, true},
		{"UpdateItem", key + `"UpdateExpression": "SET #kp_acq=:a,#c=:n REMOVE #kp_ask"` + aliases, true},
		{"UpdateItem", key + `"UpdateExpression": "ADD leaseCounter :one"`, true},
		// An ask is conditional on the counter.
		{"UpdateItem", key + `"UpdateExpression": "SET #kp_ask = :new_kp_ask", "ConditionExpression": "#leaseCounter = :is_leaseCounter"` + aliases, false},
		{"UpdateItem", key + `"UpdateExpression": "REMOVE #kp_ask, #kp_askat"` + aliases, false},
		{"UpdateItem", key + `"UpdateExpression": "SET kp_start = if_not_exists(kp_start, :leaseCounter)"`, false},
	} {
		got := call{operation: c.operation, status: http.StatusOK}
		got.read([]byte("{"+c.request+"}"), []byte(`{"Attributes": {"leaseKey": {"S": "s"}, "leaseCounter": {"N": "0"}}}`))
		if got.moves != c.want || got.key != "s" || got.after == nil {
			t.Errorf("%s %s: %+v", c.operation, c.request, got)
		}
	}
}

func TestFairSharesAreWithinOne(t *testing.T) {
	workers := []*worker{{name: "a"}, {name: "b"}, {name: "c"}}
	for shares, want := range map[*map[string]int]bool{
		{"a": 6, "b": 5, "c": 5}: true, {"a": 6, "b": 6, "c": 4}: false, {"a": 8, "b": 8}: false,
		{"a": 5, "b": 5, "c": 5, "": 1}: false, {"a": 5, "b": 5, "d": 5}: false, {}: false,
	} {
		if got := fair(*shares, workers); got != want {
			t.Errorf("%v: %t", *shares, got)
		}
	}
}
