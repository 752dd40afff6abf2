package lease_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kcltest"
)

// ledger sees every write in the order in which it takes effect, every request of our workers as it is sent, and every record as it
// is handed to Pulsar and confirmed. It knows nothing of how the lease package works: it holds what it sees to the invariants.
type ledger struct {
	t      *testing.T
	stream *kcltest.Stream
	now    func() time.Duration

	mu       sync.Mutex
	table    map[string]lease.Lease // as it is
	runs     map[string]*runState   // by acquisition
	shards   map[string]*shardState
	ours     map[string]time.Duration // failover times by worker id
	arrivals map[arrival]time.Duration
	kclTakes map[arrival]*runState    // takes by KCL, by key and counter, with the run that was the owner
	movedAt  map[string]time.Duration // when a lease's counter moved last
	moves    int                      // changes of owner
	thefts   int                      // of ours, from living KCL workers
	gives    int
	steals   int
	numbers  int             // records sent with a number
	stopping map[string]bool // workers, and runs that their user releases: they are given away undrained
	three    bool            // a KCL 3.x works here
	trace    []string
	told     int
}

// arrival is an owner's write that would leave this counter; acquisition is the lease's key in kclTakes.
type arrival struct {
	acquisition string
	counter     int64
}

// runState is a run as the table and Pulsar see it.
type runState struct {
	acquisition, key, worker string
	order                    int // of its beginning, among the runs of the shard
	// stamp is when the last of its own writes that took effect was sent at the latest.
	stamp   time.Duration
	stamped bool
	over    string // why nothing may be sent any more, whatever the clock says
	unaware bool   // the run may believe in the lease a little longer
	sent    checkpoint.Position
}

type shardState struct {
	runs      int
	newest    int // the newest run that has sent something
	storedTo  checkpoint.Position
	confirmed map[string]int    // copies in Pulsar, by sequence number
	numbers   map[string]string // the record of each epoch and number
	records   map[string]int64  // the number of each epoch and record
}

func newLedger(t *testing.T, stream *kcltest.Stream, now func() time.Duration) *ledger {
	return &ledger{
		t: t, stream: stream, now: now, table: map[string]lease.Lease{}, runs: map[string]*runState{}, shards: map[string]*shardState{},
		ours: map[string]time.Duration{}, movedAt: map[string]time.Duration{}, stopping: map[string]bool{}, arrivals: map[arrival]time.Duration{}, kclTakes: map[arrival]*runState{},
	}
}

// note adds a line to the story. It must be called with mu held.
func (l *ledger) note(format string, args ...any) {
	l.trace = append(l.trace, fmt.Sprintf("%9.3fs ", l.now().Seconds())+fmt.Sprintf(format, args...))
}

func (l *ledger) tell(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(format, args...)
}

// violated must be called with mu held.
func (l *ledger) violated(format string, args ...any) {
	l.t.Helper()
	l.note("VIOLATED: "+format, args...)
	if l.told++; l.told <= 5 {
		l.t.Errorf("%s: "+format, append([]any{l.now()}, args...)...)
	}
}

// story is the last part of the trace.
func (l *ledger) story(most int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.trace[max(0, len(l.trace)-most):], "\n")
}

// ofOurs tells whether the lease is one of our workers': by its acquisition, and as its owner, or as the one who still is that during a
// hand-over of KCL 3.x.
func ofOurs(l lease.Lease) bool {
	actual := l.Owner
	if l.CheckpointOwner != "" {
		actual = l.CheckpointOwner
	}
	return actual != "" && strings.Contains(l.Acquisition, "#") && worker(l.Acquisition) == actual
}

func worker(acquisition string) string {
	id, _, _ := strings.Cut(acquisition, "#")
	return id
}

// shardOf must be called with mu held.
func (l *ledger) shardOf(key string) *shardState {
	s := l.shards[key]
	if s == nil {
		s = &shardState{confirmed: map[string]int{}}
		l.shards[key] = s
	}
	return s
}

// requested sees a request of one of our workers when it is sent (I4).
func (l *ledger) requested(id string, r dynamotest.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !*modelConditions && r.Operation != "UpdateItem" {
		return
	}
	switch r.Operation {
	case "PutItem":
		if !strings.Contains(r.Condition, "attribute_not_exists(#leaseKey)") {
			l.violated("r1.2: a put without condition: %q", r.Condition)
		}
		if r.Item["leaseCounter"] == nil || r.Item["checkpoint"] == nil || r.Item["entityType"] != nil {
			l.violated("I11: an item that is no lease of KCL 2.x is put: %v", r.Item)
		}
	case "UpdateItem":
		for _, name := range []string{"#leaseCounter", "#leaseOwner", "#checkpoint ", "#checkpoint,", "#checkpointOwner"} {
			if strings.Contains(r.Update, name) && *modelConditions && (!strings.Contains(r.Condition, "#leaseCounter = ") || !strings.Contains(r.Condition, "#leaseOwner")) {
				l.violated("I4: %q under %q", r.Update, r.Condition)
			}
		}
		if set, _, _ := strings.Cut(r.Update, "REMOVE"); strings.Contains(set, "#checkpointOwner") {
			l.violated("r1.4: checkpointOwner is set: %q", r.Update)
		}
		if r.Condition == "" {
			l.violated("r1.1: no condition: %q", r.Update)
		}
		// The run that writes: of a take the new one, of all else the one that stands there.
		acquisition := textOf(r.Values[":new_kp_acq"])
		if worker(acquisition) != id {
			acquisition = textOf(r.Values[":is_kp_acq"])
		}
		if now := l.table[textOf(r.Key["leaseKey"])]; acquisition == "" && now.Owner == id {
			acquisition = now.Acquisition
		}
		if n, ok := r.Values[":new_leaseCounter"].(*types.AttributeValueMemberN); ok && worker(acquisition) == id {
			counter, _ := strconv.ParseInt(n.Value, 10, 64)
			l.arrivals[arrival{acquisition, counter}] = l.now()
		}
	case "DeleteItem":
		if !strings.Contains(r.Condition, "#leaseCounter = ") {
			l.violated("r6.6: a lease is deleted under %q", r.Condition)
		}
	}
}

func textOf(v types.AttributeValue) string {
	if s, ok := v.(*types.AttributeValueMemberS); ok {
		return s.Value
	}
	return ""
}

// changed sees every write that took effect.
func (l *ledger) changed(c dynamotest.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c.New == nil:
		l.deleted(c)
		return
	case c.Operation == "":
		now, err := lease.Decode(c.New)
		if err != nil {
			l.t.Fatalf("the story itself puts a broken item: %v", err)
		}
		l.note("by hand: %s", line(now))
		l.table[now.Key] = now
		return
	}
	now, err := lease.Decode(c.New)
	if errors.Is(err, lease.ErrForeign) && now.EntityType != "" && l.three {
		return // the state of KCL 3.x
	}
	if err != nil {
		l.violated("r1.1, I11: %s left an item that is no lease: %v", c.Operation, err)
		return
	}
	last := l.table[now.Key]
	l.table[now.Key] = now
	last.Counter = now.Counter
	if *modelAlways || line(last) != line(now) { // bare renewals are no news
		l.note("%s", line(now))
	}
	if c.Old == nil {
		if c.Operation != "PutItem" {
			l.violated("r1.1: %s made an item: %s", c.Operation, line(now))
		}
		if now.Counter != 0 || now.Owner != "" {
			l.violated("r1.2: a new lease begins as %s", line(now))
		}
		return
	}
	before, err := lease.Decode(c.Old)
	if err != nil {
		l.t.Fatalf("decoding what was there: %v", err)
	}
	l.compare(before, now)
	l.follow(before, now, c.By)
}

func (l *ledger) deleted(c dynamotest.Change) {
	before, _ := lease.Decode(c.Old)
	delete(l.table, before.Key)
	l.shardOf(before.Key).storedTo = before.Checkpoint
	l.note("deleted: %s", line(before))
	if r := l.runs[before.Acquisition]; r != nil && c.Operation == "" {
		r.unaware = true
	}
	if c.Operation != "" && !before.Ended() {
		l.violated("r6.6: the lease of a shard is deleted before its end: %s", line(before))
	}
}

// compare holds a write to what is true of any one (I1, I2, r1.3).
func (l *ledger) compare(before, now lease.Lease) {
	kcl := now.Owner != "" && !ofOurs(now) || now.CheckpointOwner != before.CheckpointOwner
	if now.Counter < before.Counter {
		l.violated("r1.3: the counter of %s fell from %d to %d", now.Key, before.Counter, now.Counter)
	}
	if now.Counter == before.Counter && (now.Owner != before.Owner || now.Checkpoint != before.Checkpoint) && !kcl {
		l.violated("r1.3: an owner's write left the counter alone: %s", line(now))
	}
	if now.Checkpoint == before.Checkpoint {
		return
	}
	if now.Checkpoint.Compare(before.Checkpoint) < 0 && !kcl { // KCL may begin from a stale read
		l.violated("I1: the checkpoint of %s fell from %s to %s", now.Key, before.Checkpoint, now.Checkpoint)
	}
	if now.Checkpoint.IsSentinel() && !now.Ended() {
		l.violated("I1: the sentinel %s was written over %s", now.Checkpoint, before.Checkpoint)
	}
	s := l.shardOf(now.Key)
	for _, p := range l.stream.Between(now.Key, kcltest.Position(before.Checkpoint), kcltest.Position(now.Checkpoint)) {
		if s.confirmed[p.Sequence] == 0 {
			l.violated("I1: the checkpoint of %s passed record %s, which is not confirmed: %s", now.Key, p.Sequence, line(now))
		}
	}
	if now.Ended() {
		for _, c := range l.stream.Shards() {
			if _, has := l.table[c.ID]; slices.Contains(c.Parents, now.Key) && !has {
				l.violated("I2: %s is ended, and its child %s has no lease", now.Key, c.ID)
			}
		}
	}
}

// follow notes whose lease it is now, by a write of whom.
func (l *ledger) follow(before, now lease.Lease, by string) {
	if now.Owner != before.Owner {
		l.moves++
		if ofOurs(now) && before.Owner != "" && !ofOurs(before) && l.now()-l.movedAt[now.Key] < l.ours[now.Owner] {
			l.thefts++
			if before.Checkpoint.Sequence == checkpoint.Latest {
				l.violated("r5.5: %s is stolen", line(before))
			}
		}
	}
	if now.Counter != before.Counter {
		l.movedAt[now.Key] = l.now()
	}
	// Who names another as the owner gives; who takes writes himself.
	byNewOwner := by != "" && by == now.Owner
	var old *runState
	if ofOurs(before) {
		old = l.runOf(before)
	}
	if old != nil && !(ofOurs(now) && now.Acquisition == before.Acquisition) {
		switch {
		case before.CheckpointOwner != "" && now.Acquisition == before.Acquisition && by == old.worker:
			old.over = "it handed the lease over to KCL 3.x"
			l.gives++
			if old.sent.Compare(now.Checkpoint) > 0 && !l.stopping[old.worker] && !l.stopping[old.acquisition] {
				l.violated("r8.4: %s gave %s away at %s and had handed on %s", old.acquisition, now.Key, now.Checkpoint, old.sent)
			}
		case now.Owner != "" && !ofOurs(now):
			// Whether it had expired, or was stolen from an owner who notices at the next renewal, KCL tells.
			l.kclTakes[arrival{now.Key, now.Counter}] = old
		case ofOurs(now) && !byNewOwner:
			if before.Ask != now.Owner {
				l.violated("r4.4: %s was given to %s, for whom nobody asked", line(before), now.Owner)
			}
			old.over = "it gave the lease to " + now.Owner
			old.unaware = true
			l.gives++
			// A worker that stops has no time to drain (r4.7).
			if old.sent.Compare(now.Checkpoint) > 0 && !l.stopping[old.worker] && !l.stopping[old.acquisition] {
				l.violated("r4.3: %s gave %s away at %s and had handed on %s", old.acquisition, now.Key, now.Checkpoint, old.sent)
			}
		case now.Owner == "":
			old.over = "it released the lease"
		default:
			old.over = "the lease was taken by " + now.Acquisition
		}
	}
	if !ofOurs(now) {
		return
	}
	r := l.runOf(now)
	if at, sent := l.arrivals[arrival{now.Acquisition, now.Counter}]; sent && now.Counter > before.Counter && by == r.worker {
		r.stamp, r.stamped = max(r.stamp, at), true
	}
}

// runOf must be called with mu held.
func (l *ledger) runOf(now lease.Lease) *runState {
	r := l.runs[now.Acquisition]
	if r == nil {
		s := l.shardOf(now.Key)
		s.runs++
		r = &runState{acquisition: now.Acquisition, key: now.Key, worker: worker(now.Acquisition), order: s.runs}
		l.runs[now.Acquisition] = r
	}
	return r
}

// kclTook is told by a KCL worker that a lease it has taken had expired, or that its owner was alive.
func (l *ledger) kclTook(key string, counter int64, stolen bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stolen {
		l.steals++
		return
	}
	if r := l.kclTakes[arrival{key, counter}]; r != nil && r.over == "" {
		r.over = "it had expired and was taken by KCL"
	}
}

// sending sees records on their way to Pulsar, at the very moment (I3, I5, I7).
func (l *ledger) sending(acquisition string, records []checkpoint.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.runs[acquisition]
	if r == nil {
		l.violated("I4: %s sends, and the table never named it", acquisition)
		return
	}
	last := records[len(records)-1]
	l.note("%s sends %s…%s of %s", acquisition, records[0], last, r.key)
	if r.over != "" {
		l.violated("I5: %s sends %s of %s: %s", acquisition, records[0], r.key, r.over)
	}
	life := l.ours[r.worker] - max(time.Second, l.ours[r.worker]/10)
	if !r.stamped || l.now() >= r.stamp+life {
		l.violated("I5: %s sends %s of %s, and its last write was sent at %s (%v); life is %s", acquisition, records[0], r.key, r.stamp, r.stamped, life)
	}
	for _, p := range l.table[r.key].Parents {
		if parent, has := l.table[p]; has && !parent.Ended() {
			l.violated("I3: %s is read before its parent has ended: %s", r.key, line(parent))
		}
	}
	s := l.shardOf(r.key)
	if r.order < s.newest && !r.unaware {
		l.violated("%s sends %s of %s behind a newer run", acquisition, records[0], r.key)
	}
	s.newest = max(s.newest, r.order)
	r.sent = last
}

// numbered sees the numbers by which Pulsar de-duplicates, the records being sent from first on. In an epoch a number stands for
// one record, or Pulsar drops the second one, and a record has one number, or Pulsar keeps its second copy.
func (l *ledger) numbered(key, epoch string, first int64, records []checkpoint.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shardOf(key)
	if s.numbers == nil {
		s.numbers, s.records = map[string]string{}, map[string]int64{}
	}
	l.note("%s… of %s has the number %d of epoch %s", records[0], key, first, epoch)
	for i, p := range records {
		n := first + int64(i)
		number, record := fmt.Sprint(epoch, n), epoch+p.Sequence
		if before, has := s.numbers[number]; has && before != p.Sequence {
			l.violated("rule 25: the number %d of epoch %s stands for %s and for %s of %s", n, epoch, before, p, key)
		}
		if before, has := s.records[record]; has && before != n {
			l.violated("rule 25: record %s of %s has the numbers %d and %d of epoch %s", p, key, before, n, epoch)
		}
		s.numbers[number], s.records[record] = p.Sequence, n
	}
	l.numbers += len(records)
}

func (l *ledger) confirmed(key string, records ...checkpoint.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range records {
		l.shardOf(key).confirmed[p.Sequence]++
	}
}

// kclDelivers sees a record that a KCL application has delivered.
func (l *ledger) kclDelivers(id, key string, p kcltest.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note("%s (KCL) delivers %s of %s", id, p.Sequence, key)
	l.shardOf(key).confirmed[p.Sequence]++
}

// undelivered names the records that nobody has delivered.
func (l *ledger) undelivered() (missing []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.stream.Shards() {
		for _, p := range l.stream.Records(s.ID) {
			if l.shardOf(s.ID).confirmed[p.Sequence] == 0 {
				missing = append(missing, s.ID+"/"+p.Sequence)
			}
		}
	}
	return missing
}

// leases are the leases as they are.
func (l *ledger) leases() map[string]lease.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := make(map[string]lease.Lease, len(l.table))
	for k, v := range l.table {
		now[k] = v
	}
	return now
}

func position(p kcltest.Position) checkpoint.Position {
	return checkpoint.Position{Sequence: p.Sequence, Sub: p.Sub}
}

func line(l lease.Lease) string {
	s := fmt.Sprintf("%s owner=%s counter=%d at %s acq=%s", l.Key, l.Owner, l.Counter, l.Checkpoint, l.Acquisition)
	if l.CheckpointOwner != "" {
		s += " checkpointOwner=" + l.CheckpointOwner
	}
	if l.Ask != "" {
		s += fmt.Sprintf(" ask=%s@%d", l.Ask, l.AskAt)
	}
	return s
}
