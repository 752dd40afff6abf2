package dynamotest

import "slices"

// query reads the items of one partition key, of the table or an index, in sort key order.
func (db *DB) query(in *itemRequest) (any, error) {
	t, x, _, err := db.begin(in, nil)
	if err != nil {
		return nil, err
	}
	if x.keyCondition == nil {
		return nil, validation("Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.")
	}
	source, err := db.source(t, in)
	if err != nil {
		return nil, err
	}
	if err := checkKeyCondition(x.keyCondition, source.keys); err != nil {
		return nil, err
	}
	var records []*record
	for _, r := range source.records {
		if x.keyCondition.holds(r.item) {
			records = append(records, r)
		}
	}
	order := source.compare
	if in.ScanIndexForward != nil && !*in.ScanIndexForward {
		slices.Reverse(records)
		order = func(a, b *record) int { return source.compare(b, a) }
	}
	if start := item(in.ExclusiveStartKey); start != nil {
		if err := t.checkStartKey(start, source); err != nil {
			return nil, err
		}
		from := t.newRecord(start)
		records = slices.DeleteFunc(records, func(r *record) bool { return order(r, from) <= 0 })
	}
	return db.page("Query", in, x, source, records)
}

// checkKeyCondition allows "hash = :v" and, joined by AND, one comparison of the sort key.
func checkKeyCondition(c condition, keys keySchema) error {
	var parts []condition
	var flatten func(condition)
	flatten = func(c condition) {
		if and, ok := c.(andCondition); ok {
			flatten(and.a)
			flatten(and.b)
			return
		}
		parts = append(parts, c)
	}
	flatten(c)
	conditions := map[string]int{}
	for _, part := range parts {
		var target operand
		equality := false
		switch part := part.(type) {
		case compareCondition:
			if part.operator == "<>" {
				return validation("Invalid operator used in KeyConditionExpression: <>")
			}
			target, equality = part.left, part.operator == "="
		case betweenCondition:
			target = part.operand
		case functionCondition:
			if part.name != "begins_with" {
				return validation("Invalid operator used in KeyConditionExpression: %s", part.name)
			}
			target = part.operands[0]
		case orCondition:
			return validation("Invalid operator used in KeyConditionExpression: OR")
		case notCondition:
			return validation("Invalid operator used in KeyConditionExpression: NOT")
		default:
			return validation("Invalid operator used in KeyConditionExpression: IN")
		}
		p, ok := target.(path)
		if !ok || len(p) != 1 {
			return validation("Invalid KeyConditionExpression: a key attribute must be on the left side")
		}
		if p[0].name == keys.hash && !equality {
			return validation("Query key condition not supported")
		}
		conditions[p[0].name]++
	}
	if conditions[keys.hash] != 1 {
		return validation("Query condition missed key schema element: %s", keys.hash)
	}
	delete(conditions, keys.hash)
	if keys.sort != "" && conditions[keys.sort] == 1 {
		delete(conditions, keys.sort)
	}
	if len(conditions) > 0 {
		return validation("Query key condition not supported")
	}
	return nil
}
