package dynamotest

import (
	"slices"
	"strings"
)

// itemRequest is the union of what the operations on items take.
type itemRequest struct {
	TableName string
	Key       wireItem
	Item      wireItem

	ConditionExpression       *string
	UpdateExpression          *string
	FilterExpression          *string
	ProjectionExpression      *string
	KeyConditionExpression    *string
	ExpressionAttributeNames  map[string]string
	ExpressionAttributeValues wireItem

	ReturnValues                        string
	ReturnValuesOnConditionCheckFailure string
	ReturnConsumedCapacity              string

	ConsistentRead    bool
	IndexName         string
	Limit             *int
	ExclusiveStartKey wireItem
	Select            string
	Segment           *int
	TotalSegments     *int
	ScanIndexForward  *bool

	legacyRequest
}

// expressions is what a request's expressions came to.
type expressions struct {
	condition    condition // or nil
	filter       condition // or nil
	keyCondition condition // or nil
	update       *update   // or nil
	projection   []path
}

// parse reads every expression of the request, or its legacy parameters, and checks that all names and values are used.
func (in *itemRequest) parse() (x expressions, err error) {
	if err := in.checkMixed(); err != nil {
		return x, err
	}
	if in.ExpressionAttributeValues != nil && len(in.ExpressionAttributeValues) == 0 {
		return x, validation("ExpressionAttributeValues must not be empty")
	}
	if in.ExpressionAttributeNames != nil && len(in.ExpressionAttributeNames) == 0 {
		return x, validation("ExpressionAttributeNames must not be empty")
	}
	for name := range in.ExpressionAttributeNames {
		if !strings.HasPrefix(name, "#") {
			return x, validation("ExpressionAttributeNames contains invalid key: Syntax error; key: %q", name)
		}
	}
	for name := range in.ExpressionAttributeValues {
		if !strings.HasPrefix(name, ":") {
			return x, validation("ExpressionAttributeValues contains invalid key: Syntax error; key: %q", name)
		}
	}
	anyExpression := false
	s := newScope(in.ExpressionAttributeNames, item(in.ExpressionAttributeValues))
	parseInto := func(kind string, source *string, into *condition) {
		if source != nil && err == nil {
			anyExpression = true
			*into, err = parseCondition(kind, *source, s)
		}
	}
	if in.UpdateExpression != nil {
		anyExpression = true
		if x.update, err = parseUpdate(*in.UpdateExpression, s); err != nil {
			return x, err
		}
	}
	if in.ProjectionExpression != nil {
		anyExpression = true
		if x.projection, err = parseProjection(*in.ProjectionExpression, s); err != nil {
			return x, err
		}
	}
	parseInto("ConditionExpression", in.ConditionExpression, &x.condition)
	parseInto("FilterExpression", in.FilterExpression, &x.filter)
	parseInto("KeyConditionExpression", in.KeyConditionExpression, &x.keyCondition)
	if err != nil {
		return x, err
	}
	if !anyExpression {
		switch {
		case in.ExpressionAttributeNames != nil:
			return x, validation("ExpressionAttributeNames can only be specified when using expressions")
		case in.ExpressionAttributeValues != nil:
			return x, validation("ExpressionAttributeValues can only be specified when using expressions")
		}
		return in.parseLegacy()
	}
	return x, s.checkUsed()
}

// begin is the part all operations on items share: the expressions, the table, the key.
func (db *DB) begin(in *itemRequest, key item) (t *table, x expressions, old *record, err error) {
	if err = checkTableName(in.TableName); err != nil {
		return
	}
	if x, err = in.parse(); err != nil {
		return
	}
	if t, err = db.table(in.TableName); err != nil {
		return
	}
	if key != nil {
		if err = t.checkKey(key); err != nil {
			return
		}
		old = t.records[t.keyString(key)]
	}
	return
}

// check evaluates the condition on what is there.
func (db *DB) check(in *itemRequest, c condition, old *record) error {
	if c == nil || c.holds(itemOf(old)) {
		return nil
	}
	if in.ReturnValuesOnConditionCheckFailure == "ALL_OLD" && !db.options.noOldItem {
		return conditionFailed(itemOf(old))
	}
	return conditionFailed(nil)
}

func itemOf(r *record) item {
	if r == nil {
		return nil
	}
	return r.item
}

func checkReturnValues(given string, allowed ...string) error {
	if given == "" || slices.Contains(allowed, given) {
		return nil
	}
	if !slices.Contains([]string{"NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"}, given) {
		return validation("1 validation error detected: Value '%s' at 'returnValues' failed to satisfy constraint: Member must satisfy enum value set: [ALL_NEW, UPDATED_OLD, ALL_OLD, NONE, UPDATED_NEW]", given)
	}
	return validation("ReturnValues can only be ALL_OLD or NONE")
}

func (db *DB) putItem(in *itemRequest) (any, error) {
	if err := checkReturnValues(in.ReturnValues, "NONE", "ALL_OLD"); err != nil {
		return nil, err
	}
	t, x, _, err := db.begin(in, nil)
	if err != nil {
		return nil, err
	}
	m := item(in.Item)
	if err := t.checkItem(m); err != nil {
		return nil, err
	}
	old := t.records[t.keyString(m)]
	if err := db.check(in, x.condition, old); err != nil {
		db.chargeWrite("PutItem", itemOf(old), nil)
		return nil, err
	}
	answer := itemAnswer{}
	if in.ReturnValues == "ALL_OLD" {
		answer.Attributes = wireItem(itemOf(old))
	}
	db.store(t, "PutItem", m)
	answer.charge(in, db.chargeWrite("PutItem", itemOf(old), m))
	return answer, nil
}

func (db *DB) deleteItem(in *itemRequest) (any, error) {
	if err := checkReturnValues(in.ReturnValues, "NONE", "ALL_OLD"); err != nil {
		return nil, err
	}
	t, x, old, err := db.begin(in, orEmpty(in.Key))
	if err != nil {
		return nil, err
	}
	if err := db.check(in, x.condition, old); err != nil {
		db.chargeWrite("DeleteItem", itemOf(old), nil)
		return nil, err
	}
	answer := itemAnswer{}
	if old != nil {
		if in.ReturnValues == "ALL_OLD" {
			answer.Attributes = wireItem(old.item)
		}
		db.erase(t, "DeleteItem", old)
	}
	answer.charge(in, db.chargeWrite("DeleteItem", itemOf(old), nil))
	return answer, nil
}

func (db *DB) updateItem(in *itemRequest) (any, error) {
	if err := checkReturnValues(in.ReturnValues, "NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"); err != nil {
		return nil, err
	}
	t, x, old, err := db.begin(in, orEmpty(in.Key))
	if err != nil {
		return nil, err
	}
	u := x.update
	if u == nil {
		u = &update{} // creates the item with its key only
	}
	for _, p := range u.paths() {
		if slices.Contains(t.keys.names(), p[0].name) {
			return nil, validation("One or more parameter values were invalid: Cannot update attribute %s. This attribute is part of the key", p[0].name)
		}
	}
	if err := db.check(in, x.condition, old); err != nil {
		db.chargeWrite("UpdateItem", itemOf(old), nil)
		return nil, err
	}
	before := itemOf(old)
	if before == nil {
		before = item(in.Key)
	}
	after, err := u.apply(before)
	if err != nil {
		return nil, err
	}
	if err := t.checkItem(after); err != nil {
		if itemSize(after) > maxItemSize {
			return nil, validation("Item size to update has exceeded the maximum allowed size")
		}
		return nil, err
	}
	answer := itemAnswer{}
	switch in.ReturnValues {
	case "ALL_OLD":
		answer.Attributes = wireItem(itemOf(old))
	case "ALL_NEW":
		answer.Attributes = wireItem(after)
	case "UPDATED_OLD":
		if old != nil {
			answer.Attributes = wireItem(project(old.item, u.paths()))
		}
	case "UPDATED_NEW":
		answer.Attributes = wireItem(project(after, u.paths()))
	}
	db.store(t, "UpdateItem", after)
	answer.charge(in, db.chargeWrite("UpdateItem", itemOf(old), after))
	return answer, nil
}

func (db *DB) getItem(in *itemRequest) (any, error) {
	t, x, _, err := db.begin(in, orEmpty(in.Key))
	if err != nil {
		return nil, err
	}
	found := itemOf(t.find(t.keyString(item(in.Key)), in.ConsistentRead, db.mu.readLag))
	answer := itemAnswer{}
	answer.charge(in, db.chargeRead("GetItem", itemSize(found), in.ConsistentRead))
	if found != nil {
		if x.projection != nil {
			found = project(found, x.projection)
		}
		answer.Item = (*wireItem)(&found)
	}
	return answer, nil
}

func orEmpty(key wireItem) item {
	if key == nil {
		return item{}
	}
	return item(key)
}

// itemAnswer is the answer of the operations on one item.
type itemAnswer struct {
	Attributes       wireItem          `json:",omitempty"`
	Item             *wireItem         `json:",omitempty"` // {} when there is an item but nothing of it was asked for
	ConsumedCapacity *consumedCapacity `json:",omitempty"`
}

func (a *itemAnswer) charge(in *itemRequest, units float64) { a.ConsumedCapacity = in.consumed(units) }

type consumedCapacity struct {
	TableName     string
	CapacityUnits float64
	Table         *capacityUnits `json:",omitempty"`
}

type capacityUnits struct{ CapacityUnits float64 }

// consumed is the answer to ReturnConsumedCapacity.
func (in *itemRequest) consumed(units float64) *consumedCapacity {
	switch in.ReturnConsumedCapacity {
	case "TOTAL":
		return &consumedCapacity{TableName: in.TableName, CapacityUnits: units}
	case "INDEXES":
		return &consumedCapacity{TableName: in.TableName, CapacityUnits: units, Table: &capacityUnits{units}}
	}
	return nil
}

// chargeWrite counts the larger of the item before and after in steps of 1 KB, at least one, as AWS bills it; a failed condition
// pays for the item that was there.
func (db *DB) chargeWrite(operation string, before, after item) float64 {
	size := max(itemSize(before), itemSize(after), 1)
	units := float64((size + 1<<10 - 1) >> 10)
	db.count(operation, Count{CapacityUnits: units})
	return units
}

// chargeRead counts steps of 4 KB, at least one; eventually consistent reads pay half.
func (db *DB) chargeRead(operation string, size int, consistent bool) float64 {
	units := float64((max(size, 1) + 4<<10 - 1) / (4 << 10))
	if !consistent {
		units /= 2
	}
	db.count(operation, Count{CapacityUnits: units})
	return units
}
