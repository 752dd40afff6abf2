package dynamotest

import (
	"cmp"
	"math/bits"
	"slices"
	"time"
)

// maxPage is how much a Scan or Query reads before it answers, in bytes of items, filtered ones included.
const maxPage = 1 << 20

type pageAnswer struct {
	Items            *[]wireItem `json:",omitempty"` // nil with Select=COUNT
	Count            int
	ScannedCount     int
	LastEvaluatedKey wireItem          `json:",omitempty"`
	ConsumedCapacity *consumedCapacity `json:",omitempty"`
}

func (db *DB) scan(in *itemRequest) (any, error) {
	t, x, _, err := db.begin(in, nil)
	if err != nil {
		return nil, err
	}
	if err := in.checkSegments(); err != nil {
		return nil, err
	}
	source, err := db.source(t, in)
	if err != nil {
		return nil, err
	}
	records := source.records
	if n := in.TotalSegments; n != nil {
		records = slices.DeleteFunc(slices.Clone(records), func(r *record) bool {
			// Segment = hash × n / 2^64: equal slices of the hash range, as the service cuts its partitions.
			segment, _ := bits.Mul64(r.hash, uint64(*n))
			return segment != uint64(*in.Segment)
		})
	}
	if start := item(in.ExclusiveStartKey); start != nil {
		if err := t.checkStartKey(start, source); err != nil {
			return nil, err
		}
		from := t.newRecord(start)
		records = records[slices.IndexFunc(append(slices.Clone(records), nil), func(r *record) bool {
			return r == nil || source.compare(r, from) > 0
		}):]
	}
	return db.page("Scan", in, x, source, records)
}

func (in *itemRequest) checkSegments() error {
	switch {
	case in.Segment == nil && in.TotalSegments == nil:
		return nil
	case in.TotalSegments == nil:
		return validation("The TotalSegments parameter is required but was not present in the request when Segment parameter is present")
	case in.Segment == nil:
		return validation("The Segment parameter is required but was not present in the request when parameter TotalSegments is present")
	case *in.TotalSegments < 1 || *in.TotalSegments > 1000000:
		return validation("1 validation error detected: Value '%d' at 'totalSegments' failed to satisfy constraint: Member must have value between 1 and 1000000", *in.TotalSegments)
	case *in.Segment < 0 || *in.Segment >= *in.TotalSegments:
		return validation("The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: %d is not less than TotalSegments: %d", *in.Segment, *in.TotalSegments)
	}
	return nil
}

// readSource is what a Scan or Query reads: the table or one of its indexes.
type readSource struct {
	table   *table
	index   *index // nil: the table itself
	keys    keySchema
	records []*record // in the source's order; not to be changed
	compare func(a, b *record) int
}

func (db *DB) source(t *table, in *itemRequest) (readSource, error) {
	if in.IndexName == "" {
		return readSource{t, nil, t.keys, t.view(in.ConsistentRead, db.mu.readLag), t.compareRecords}, nil
	}
	x := t.index(in.IndexName)
	switch {
	case x == nil:
		return readSource{}, validation("The table does not have the specified index: %s", in.IndexName)
	case in.ConsistentRead:
		return readSource{}, validation("Consistent reads are not supported on global secondary indexes")
	case time.Now().Before(x.activeAt):
		return readSource{}, validation("Cannot read from backfilling global secondary index: %s", in.IndexName)
	}
	s := readSource{table: t, index: x, keys: x.keys}
	for _, r := range t.view(false, db.mu.readLag) {
		if x.holds(r.item) {
			s.records = append(s.records, r)
		}
	}
	s.compare = func(a, b *record) int {
		order := cmp.Compare(hashOf(a.item[x.keys.hash]), hashOf(b.item[x.keys.hash]))
		for _, name := range x.keys.names() {
			if order == 0 {
				order, _ = compare(a.item[name], b.item[name])
			}
		}
		return cmp.Or(order, t.compareRecords(a, b))
	}
	slices.SortFunc(s.records, s.compare)
	return s, nil
}

// holds tells whether the index has the item: it must have all the index's keys.
func (x *index) holds(m item) bool {
	for _, name := range x.keys.names() {
		if m[name] == nil {
			return false
		}
	}
	return true
}

// projected is the part of an item that the index holds.
func (x *index) projected(t *table, m item) item {
	if x.projection.ProjectionType == "ALL" {
		return m
	}
	out := item{}
	for _, name := range slices.Concat(t.keys.names(), x.keys.names(), x.projection.NonKeyAttributes) {
		if v := m[name]; v != nil {
			out[name] = v
		}
	}
	return out
}

// keyOf is what LastEvaluatedKey says for the item.
func (s readSource) keyOf(m item) wireItem {
	key := s.table.keyOf(m)
	if s.index != nil {
		for _, name := range s.index.keys.names() {
			key[name] = m[name]
		}
	}
	return wireItem(key)
}

func (t *table) checkStartKey(start item, s readSource) error {
	want := map[string]bool{}
	for _, name := range slices.Concat(t.keys.names(), s.keys.names()) {
		want[name] = true
		if v := start[name]; v == nil || kindOf(v) != t.attributes[name] {
			return validation("The provided starting key is invalid: The provided key element does not match the schema")
		}
	}
	if len(want) != len(start) {
		return validation("The provided starting key is invalid: The provided key element does not match the schema")
	}
	return nil
}

// page reads records until the limit or 1 MB, filters, projects and counts. The page ends before the filter: a page may be empty
// and not the last.
func (db *DB) page(operation string, in *itemRequest, x expressions, s readSource, records []*record) (any, error) {
	if in.Limit != nil && *in.Limit < 1 {
		return nil, validation("1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1", *in.Limit)
	}
	if in.Select == "SPECIFIC_ATTRIBUTES" && x.projection == nil {
		return nil, validation("Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES")
	}
	items := []wireItem{}
	answer := pageAnswer{}
	size := 0
	for _, r := range records {
		m := r.item
		if s.index != nil {
			m = s.index.projected(s.table, m)
		}
		size += itemSize(m)
		answer.ScannedCount++
		if x.filter == nil || x.filter.holds(m) {
			answer.Count++
			if x.projection != nil {
				m = project(m, x.projection)
			}
			items = append(items, wireItem(m))
		}
		// As on AWS, a page that is full with the last item still names a key, and the next page is empty.
		if in.Limit != nil && answer.ScannedCount == *in.Limit || size >= maxPage {
			answer.LastEvaluatedKey = s.keyOf(r.item)
			break
		}
	}
	if in.Select != "COUNT" {
		answer.Items = &items
	}
	answer.ConsumedCapacity = in.consumed(db.chargeRead(operation, size, in.ConsistentRead))
	return answer, nil
}

// SetReadLag makes eventually consistent reads of all tables see the state of lag ago (0: the present). It looks back no further
// than the call that set it.
func (db *DB) SetReadLag(lag time.Duration) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.mu.readLag = lag
	if lag == 0 {
		for _, t := range db.mu.tables {
			t.log = nil
		}
	}
}

// FreezeReads makes eventually consistent reads of the table answer with its present state until thaw is called; consistent reads
// and writes are not concerned. It panics without such a table.
func (db *DB) FreezeReads(tableName string) (thaw func()) {
	db.mu.Lock()
	defer db.mu.Unlock()
	t := db.mu.tables[tableName]
	if t == nil {
		panic("dynamotest: FreezeReads: no table " + tableName)
	}
	t.frozen = slices.Concat([]*record{}, t.inOrder())
	return func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		t.frozen = nil
	}
}
