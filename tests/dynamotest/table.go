package dynamotest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"hash/fnv"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// table holds its items by key. All of it is guarded by DB.mu.
type table struct {
	name       string
	arn, id    string
	created    time.Time // by the DB's clock, as told to clients
	activeAt   time.Time // CREATING before
	deletedAt  time.Time // DELETING from here, gone at goneAt; zero while it stands
	goneAt     time.Time
	keys       keySchema
	attributes map[string]string // defined attributes → "S", "N", "B"
	billing    string
	throughput throughput
	protected  bool
	indexes    []*index
	tags       map[string]string
	backups    bool // point-in-time recovery switched on

	records map[string]*record // by keyString
	// sorted is the records in scan order, rebuilt when nil: puts and deletes of keys are rare beside scans.
	sorted []*record
	// log is what eventually consistent reads need to look back; kept only while a read lag is set.
	log []logged
	// frozen, when not nil, is what eventually consistent reads see.
	frozen []*record
}

type index struct {
	name       string
	keys       keySchema
	projection projectionShape
	throughput throughput
	activeAt   time.Time
}

// keySchema names the partition key and, possibly, the sort key.
type keySchema struct{ hash, sort string }

func (k keySchema) names() []string {
	if k.sort == "" {
		return []string{k.hash}
	}
	return []string{k.hash, k.sort}
}

// record is an item with its place in scan order.
type record struct {
	key  string // keyString
	hash uint64 // of the partition key
	item item
}

// logged is the state of a key before a change.
type logged struct {
	at     time.Time
	key    string
	before *record // nil: there was none
}

// scalarString is an injective encoding of a key attribute.
func scalarString(v types.AttributeValue) string {
	switch v := v.(type) {
	case *avS:
		return "S" + v.Value
	case *avN:
		return "N" + v.Value
	case *avB:
		return "B" + base64.StdEncoding.EncodeToString(v.Value)
	}
	return ""
}

func (t *table) keyString(m item) string {
	parts := make([]string, 0, 2)
	for _, name := range t.keys.names() {
		parts = append(parts, scalarString(m[name]))
	}
	encoded, _ := json.Marshal(parts) // strings always encode
	return string(encoded)
}

// keyOf is the key attributes of an item.
func (t *table) keyOf(m item) item {
	key := item{}
	for _, name := range t.keys.names() {
		key[name] = m[name]
	}
	return key
}

func (t *table) newRecord(m item) *record {
	return &record{key: t.keyString(m), hash: hashOf(m[t.keys.hash]), item: m}
}

// hashOf places a partition key. Scans go by it, as in the service: a test that expects items in key order must fail.
func hashOf(v types.AttributeValue) uint64 {
	h := fnv.New64a()
	h.Write([]byte(scalarString(v)))
	// FNV's high bits differ little between short keys, and segments are cut by the high bits.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

// compareRecords is scan order: hash of the partition key, the key itself, the sort key.
func (t *table) compareRecords(a, b *record) int {
	return cmp.Or(cmp.Compare(a.hash, b.hash), t.compareKeys(a.item, b.item))
}

func (t *table) compareKeys(a, b item) int {
	for _, name := range t.keys.names() {
		if order, _ := compare(a[name], b[name]); order != 0 {
			return order
		}
	}
	return 0
}

func (t *table) inOrder() []*record {
	if t.sorted == nil {
		t.sorted = make([]*record, 0, len(t.records))
		for _, r := range t.records {
			t.sorted = append(t.sorted, r)
		}
		slices.SortFunc(t.sorted, t.compareRecords)
	}
	return t.sorted
}

// view is the records a read sees, in scan order. The slice must not be changed.
func (t *table) view(consistent bool, lag time.Duration) []*record {
	switch {
	case consistent:
		return t.inOrder()
	case t.frozen != nil:
		return t.frozen
	case lag == 0 || len(t.log) == 0:
		return t.inOrder()
	}
	asOf := time.Now().Add(-lag)
	state := make(map[string]*record, len(t.records))
	for key, r := range t.records {
		state[key] = r
	}
	for _, change := range slices.Backward(t.log) {
		if !change.at.After(asOf) {
			break
		}
		if change.before == nil {
			delete(state, change.key)
		} else {
			state[change.key] = change.before
		}
	}
	out := make([]*record, 0, len(state))
	for _, r := range state {
		out = append(out, r)
	}
	slices.SortFunc(out, t.compareRecords)
	return out
}

// find is the record with the key as a read sees it.
func (t *table) find(key string, consistent bool, lag time.Duration) *record {
	if consistent || t.frozen == nil && lag == 0 {
		return t.records[key]
	}
	for _, r := range t.view(consistent, lag) {
		if r.key == key {
			return r
		}
	}
	return nil
}

// store puts the item in place of what was there. The caller holds the lock.
func (db *DB) store(t *table, operation string, m item) {
	r := t.newRecord(m)
	old := t.records[r.key]
	t.records[r.key] = r
	if old == nil {
		t.sorted = nil
	} else if t.sorted != nil {
		// A new slice is not needed: readers only use it under the lock.
		i, _ := slices.BinarySearchFunc(t.sorted, r, t.compareRecords)
		t.sorted[i] = r
	}
	db.changed(t, operation, r.key, old, r)
}

// erase removes the record. The caller holds the lock.
func (db *DB) erase(t *table, operation string, r *record) {
	delete(t.records, r.key)
	t.sorted = nil
	db.changed(t, operation, r.key, r, nil)
}

func (db *DB) changed(t *table, operation, key string, before, after *record) {
	if lag := db.mu.readLag; lag > 0 {
		now := time.Now()
		old := slices.IndexFunc(t.log, func(l logged) bool { return now.Sub(l.at) <= lag })
		if old < 0 {
			old = len(t.log)
		}
		t.log = append(slices.Delete(t.log, 0, old), logged{now, key, before})
	}
	change := Change{Operation: operation, Table: t.name, By: db.mu.by}
	if before != nil {
		change.Old = before.item
	}
	if after != nil {
		change.New = after.item
	}
	for _, f := range db.mu.onChange {
		f(change)
	}
}

// table finds a table whose items can be used. The caller holds the lock.
func (db *DB) table(name string) (*table, error) {
	t := db.standing(name)
	if t == nil || t.status() != "ACTIVE" {
		return nil, tableNotFound()
	}
	return t, nil
}

// standing finds a table in any status, forgetting one whose deletion is over. The caller holds the lock.
func (db *DB) standing(name string) *table {
	t := db.mu.tables[name]
	if t != nil && !t.deletedAt.IsZero() && !time.Now().Before(t.goneAt) {
		delete(db.mu.tables, name)
		return nil
	}
	return t
}

func (t *table) status() string {
	switch {
	case !t.deletedAt.IsZero():
		return "DELETING"
	case time.Now().Before(t.activeAt):
		return "CREATING"
	}
	return "ACTIVE"
}

// checkKey checks the Key of a request.
func (t *table) checkKey(key item) error {
	names := t.keys.names()
	if len(key) != len(names) {
		return validation("The provided key element does not match the schema")
	}
	for _, name := range names {
		v, ok := key[name]
		if !ok || kindOf(v) != t.attributes[name] {
			return validation("The provided key element does not match the schema")
		}
		if err := checkKeyValue(name, v, name == t.keys.hash); err != nil {
			return err
		}
	}
	return nil
}

// Limits of key values, in bytes.
const (
	maxHashKey = 2048
	maxSortKey = 1024
)

func checkKeyValue(name string, v types.AttributeValue, hash bool) error {
	empty := func(kind string) error {
		return validation("One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty %s value. Key: %s", kind, name)
	}
	size := 0
	switch v := v.(type) {
	case *avS:
		if size = len(v.Value); size == 0 {
			return empty("string")
		}
	case *avB:
		if size = len(v.Value); size == 0 {
			return empty("binary")
		}
	}
	switch {
	case hash && size > maxHashKey:
		return validation("One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of2048 bytes")
	case !hash && size > maxSortKey:
		return validation("One or more parameter values were invalid: Aggregated size of all range keys has exceeded the size limit of 1024 bytes")
	}
	return nil
}

// checkItem checks an item that is to be stored.
func (t *table) checkItem(m item) error {
	for _, name := range t.keys.names() {
		v, ok := m[name]
		if !ok {
			return validation("One or more parameter values were invalid: Missing the key %s in the item", name)
		}
		if kindOf(v) != t.attributes[name] {
			return validation("One or more parameter values were invalid: Type mismatch for key %s expected: %s actual: %s", name, t.attributes[name], kindOf(v))
		}
		if err := checkKeyValue(name, v, name == t.keys.hash); err != nil {
			return err
		}
	}
	for _, x := range t.indexes {
		for _, name := range x.keys.names() {
			v, ok := m[name]
			if !ok {
				continue // the item is just not in the index
			}
			if kindOf(v) != t.attributes[name] {
				return validation("One or more parameter values were invalid: Type mismatch for Index Key %s Expected: %s Actual: %s IndexName: %s", name, t.attributes[name], kindOf(v), x.name)
			}
			if size := itemSize(item{"": v}); size == 0 {
				return validation("One or more parameter values are not valid. A value specified for a secondary index key is not supported. The AttributeValue for a key attribute cannot contain an empty string value. IndexName: %s, IndexKey: %s", x.name, name)
			}
		}
	}
	if itemSize(m) > maxItemSize {
		return validation("Item size has exceeded the maximum allowed size")
	}
	return nil
}

// normalised is a copy of the value with numbers in plain form, checked as one from the wire.
func normalised(v types.AttributeValue) (types.AttributeValue, error) {
	encoded, err := json.Marshal(encodeValue(v))
	if err != nil {
		return nil, err
	}
	return decodeValue(encoded, 0)
}
