// Package dynamotest is a small DynamoDB for tests. It speaks the service's wire protocol (JSON 1.0 over HTTP), so what is tested is
// the real AWS SDK against it, errors, retries and time-outs included.
//
// Three ways lead to one engine:
//
//   - [Server] listens on a loopback port, for processes and for tests over a real network;
//   - [DB.API] is a *dynamodb.Client whose requests reach the engine inside the process. It starts no network connection, so it
//     works under testing/synctest: create the DB inside the bubble, and delays and SDK back-offs cost no real time;
//   - [DB.Direct] is the same without the SDK, for random stories by the thousand.
//
// What it keeps to:
//
//   - Every write is atomic and in one order; [DB.OnChange] shows that order. Consistent reads see it at once, eventually consistent
//     ones as late as [DB.SetReadLag] or [DB.FreezeReads] tell.
//   - A condition that AWS would refuse as malformed is refused here: unknown and unused names and values, reserved words, wrong
//     operand types, overlapping paths.
//   - Where DynamoDB Local and documented AWS differ, AWS wins, and the row of the behaviour table says so.
//
// What can't be had from a real one is injected: throttles, lost answers, hangs, late writes, stale reads, slow table creation
// ([DB.Inject], [Fault], options). Not there: transactions, batches, PartiQL, streams, TTL expiry, local secondary indexes; they answer
// UnknownOperationException or a ValidationException that says so.
package dynamotest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// DB is the engine. All methods are safe for concurrent use.
type DB struct {
	options options
	// closing ends hanging requests.
	closing context.Context
	close   context.CancelFunc
	// requests are the goroutines serving requests; Close waits for them.
	requests sync.WaitGroup

	mu struct {
		sync.Mutex
		tables   map[string]*table
		faults   []*Injected
		hook     func(Request) *Fault
		onChange []func(Change)
		counts   map[string]Count
		calls    map[Call]bool
		readLag  time.Duration
		by       string // whose request is being run
		down     bool
		closed   bool
		requests int // for request ids
	}
}

type options struct {
	clock       func() time.Time
	createDelay time.Duration
	deleteDelay time.Duration
	backupsTags bool
	noOldItem   bool
}

// Option configures a [DB] or [Server].
type Option func(*options)

// WithClock sets the clock that answers carry in their Date header and in CreationDateTime (default: [time.Now]).
// Table phases and delays always follow the real clock.
func WithClock(now func() time.Time) Option { return func(o *options) { o.clock = now } }

// WithCreateDelay keeps a new table (or a new index) in status CREATING for d. Until then items can't be read or written
// (ResourceNotFoundException), as on AWS; DynamoDB Local's tables are ACTIVE at once.
func WithCreateDelay(d time.Duration) Option { return func(o *options) { o.createDelay = d } }

// WithDeleteDelay keeps a deleted table in status DELETING for d.
func WithDeleteDelay(d time.Duration) Option { return func(o *options) { o.deleteDelay = d } }

// WithBackupsAndTags makes DescribeContinuousBackups, UpdateContinuousBackups, TagResource, UntagResource and ListTagsOfResource
// work. Without it they answer UnknownOperationException, as DynamoDB Local does.
func WithBackupsAndTags() Option { return func(o *options) { o.backupsTags = true } }

// WithoutOldItemOnFailure makes the server ignore ReturnValuesOnConditionCheckFailure=ALL_OLD, as older emulators do.
func WithoutOldItemOnFailure() Option { return func(o *options) { o.noOldItem = true } }

// New returns an empty DB without a network listener.
func New(opts ...Option) *DB {
	db := &DB{options: options{clock: time.Now}}
	for _, o := range opts {
		o(&db.options)
	}
	db.closing, db.close = context.WithCancel(context.Background())
	db.mu.tables = map[string]*table{}
	db.mu.counts = map[string]Count{}
	db.mu.calls = map[Call]bool{}
	return db
}

// Close ends hanging requests and waits until none is being served. It may be called twice.
func (db *DB) Close() {
	db.mu.Lock()
	db.mu.closed = true
	db.mu.Unlock()
	db.close()
	db.requests.Wait()
}

// enter registers a goroutine that serves a request; false when the DB is closed.
func (db *DB) enter() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.mu.closed {
		return false
	}
	db.requests.Add(1)
	return true
}

// Stop makes the DB unreachable through [DB.API] (connection refused) until [DB.Restart]; the data stays.
func (db *DB) Stop() { db.setDown(true) }

// Restart ends a [DB.Stop].
func (db *DB) Restart() { db.setDown(false) }

func (db *DB) setDown(down bool) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.mu.down = down
}

// Change is one applied write, in the order writes took effect. Old is nil for a created item, New for a deleted one; neither may be
// modified.
type Change struct {
	Operation string // "PutItem", "UpdateItem" or "DeleteItem"; "" for a direct [DB.Put] or [DB.DeleteItem]
	Table     string
	By        string // the name of the [Direct] client that wrote it; "" for all others
	Old, New  map[string]types.AttributeValue
}

// OnChange has f called for every write that changed or re-wrote an item, one at a time and in order: the place to check that a counter
// only grows. f runs inside the engine's lock and must not call the DB.
func (db *DB) OnChange(f func(Change)) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.mu.onChange = append(db.mu.onChange, f)
}

// Count is what one operation has cost.
type Count struct {
	Requests      int     // all that arrived, each try of a retried one
	Failures      int     // those answered with an error
	Lost          int     // those not answered: the connection was closed, or the client gave up
	CapacityUnits float64 // write units of 1 KB, read units of 4 KB (half when eventually consistent); failed conditions cost too
}

// Counts returns the totals by operation name since the start or [DB.ResetCounts].
func (db *DB) Counts() map[string]Count {
	db.mu.Lock()
	defer db.mu.Unlock()
	return maps.Clone(db.mu.counts)
}

// ResetCounts sets all counts to zero.
func (db *DB) ResetCounts() {
	db.mu.Lock()
	defer db.mu.Unlock()
	clear(db.mu.counts)
}

// Call names requests of one operation to one table; the table is "" where there is none.
type Call struct{ Operation, Table string }

// Calls are all that have come since the start, each once, whatever became of them.
func (db *DB) Calls() []Call {
	db.mu.Lock()
	defer db.mu.Unlock()
	return slices.SortedFunc(maps.Keys(db.mu.calls), func(a, b Call) int {
		return cmp.Or(cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Table, b.Table))
	})
}

func (db *DB) called(c Call) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.mu.calls[c] = true
}

// count adds to an operation's totals. The caller holds the lock.
func (db *DB) count(operation string, add Count) {
	c := db.mu.counts[operation]
	c.Requests += add.Requests
	c.Failures += add.Failures
	c.Lost += add.Lost
	c.CapacityUnits += add.CapacityUnits
	db.mu.counts[operation] = c
}

// Items returns copies of all items of the table, sorted by key; nil without such a table.
func (db *DB) Items(tableName string) []map[string]types.AttributeValue {
	db.mu.Lock()
	defer db.mu.Unlock()
	t := db.mu.tables[tableName]
	if t == nil {
		return nil
	}
	var out []map[string]types.AttributeValue
	for _, r := range slices.SortedFunc(maps.Values(t.records), func(a, b *record) int { return t.compareKeys(a.item, b.item) }) {
		out = append(out, cloneItem(r.item))
	}
	return out
}

// Item returns a copy of the item with the key; nil without one.
func (db *DB) Item(tableName string, key map[string]types.AttributeValue) map[string]types.AttributeValue {
	db.mu.Lock()
	defer db.mu.Unlock()
	t := db.mu.tables[tableName]
	if t == nil {
		return nil
	}
	if r := t.records[t.keyString(key)]; r != nil {
		return cloneItem(r.item)
	}
	return nil
}

// Put stores an item directly, past all faults and conditions. It panics on an item that the table could not hold: that is a
// mistake in the test.
func (db *DB) Put(tableName string, it map[string]types.AttributeValue) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.putLocked(tableName, it)
}

// putLocked must be called with mu held.
func (db *DB) putLocked(tableName string, items ...map[string]types.AttributeValue) {
	t := db.mu.tables[tableName]
	if t == nil {
		panic("dynamotest: Put: no table " + tableName)
	}
	for _, it := range items {
		stored := make(item, len(it))
		for name, v := range it {
			normal, err := normalised(v)
			if err != nil {
				panic("dynamotest: Put: attribute " + name + ": " + err.Error())
			}
			stored[name] = normal
		}
		if err := t.checkItem(stored); err != nil {
			panic("dynamotest: Put: " + err.Error())
		}
		db.store(t, "", stored)
	}
}

// AddTable makes a table with a hash key of type S, usable at once, with items in it. It panics where there is one.
func (db *DB) AddTable(tableName, key string, items ...map[string]types.AttributeValue) {
	db.mu.Lock()
	_, err := db.createTable(&tableRequest{
		TableName: tableName, BillingMode: "PAY_PER_REQUEST",
		AttributeDefinitions: []attributeDefinition{{key, "S"}}, KeySchema: []keyElement{{key, "HASH"}},
	})
	if err != nil {
		db.mu.Unlock()
		panic("dynamotest: AddTable: " + err.Error())
	}
	db.mu.tables[tableName].activeAt = time.Time{}
	defer db.mu.Unlock() // also when an item is refused
	db.putLocked(tableName, items...)
}

// DropTable removes a table directly, past all faults, delays and protection. A missing one is no error.
func (db *DB) DropTable(tableName string) {
	db.mu.Lock()
	defer db.mu.Unlock()
	delete(db.mu.tables, tableName)
}

// DeleteItem removes an item directly, past all faults and conditions.
func (db *DB) DeleteItem(tableName string, key map[string]types.AttributeValue) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if t := db.mu.tables[tableName]; t != nil {
		if r := t.records[t.keyString(key)]; r != nil {
			db.erase(t, "", r)
		}
	}
}
