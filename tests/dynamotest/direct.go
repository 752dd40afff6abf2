package dynamotest

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"strings"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
)

// Direct is a client that reaches the engine's operations on items past the SDK: nothing is serialised, signed or retried, so a
// request costs a tenth of one through [DB.API], and thousands of random stories fit into a test. All else is the same: conditions
// are checked as strictly, faults happen, the client may give up while its request is at work, errors have the SDK's types.
//
// Request options are ignored. Items in answers are shared with the engine and must not be changed. The other operations go the way
// of [DB.API].
type Direct struct {
	*dynamodb.Client
	db   *DB
	hook func(Request) *Fault
	name string
}

// Named names the client: [Change.By] is the name for all that it writes.
func (d *Direct) Named(name string) *Direct {
	d.name = name
	return d
}

// Direct returns such a client. The hook, if there is one, is asked at each of this client's requests before the DB's own hook and
// faults, so that every client may have a network of its own.
func (db *DB) Direct(hook func(Request) *Fault) *Direct {
	return &Direct{Client: db.API(), db: db, hook: hook}
}

// Scan is dynamodb.Client's.
func (d *Direct) Scan(ctx context.Context, in *dynamodb.ScanInput, _ ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error) {
	r := &itemRequest{
		TableName: aws.ToString(in.TableName), ConsistentRead: aws.ToBool(in.ConsistentRead), IndexName: aws.ToString(in.IndexName),
		FilterExpression: in.FilterExpression, ProjectionExpression: in.ProjectionExpression,
		ExpressionAttributeNames: in.ExpressionAttributeNames, ExpressionAttributeValues: wireItem(in.ExpressionAttributeValues),
		Limit: number32(in.Limit), Segment: number32(in.Segment), TotalSegments: number32(in.TotalSegments),
		ExclusiveStartKey: wireItem(in.ExclusiveStartKey), Select: string(in.Select),
		ReturnConsumedCapacity: string(in.ReturnConsumedCapacity),
	}
	r.AttributesToGet, r.ConditionalOperator = in.AttributesToGet, string(in.ConditionalOperator)
	if in.ScanFilter != nil {
		r.ScanFilter = make(map[string]legacyCondition, len(in.ScanFilter))
		for name, c := range in.ScanFilter {
			r.ScanFilter[name] = legacyCondition{ComparisonOperator: string(c.ComparisonOperator), AttributeValueList: legacyValues(c.AttributeValueList)}
		}
	}
	answer, err := d.call(ctx, "Scan", r, d.db.scan)
	if err != nil {
		return nil, err
	}
	page := answer.(pageAnswer)
	out := &dynamodb.ScanOutput{
		Count: int32(page.Count), ScannedCount: int32(page.ScannedCount), LastEvaluatedKey: item(page.LastEvaluatedKey),
		ConsumedCapacity: page.ConsumedCapacity.sdk(),
	}
	if page.Items != nil {
		out.Items = make([]map[string]types.AttributeValue, 0, len(*page.Items))
		for _, m := range *page.Items {
			out.Items = append(out.Items, item(m))
		}
	}
	return out, nil
}

// GetItem is dynamodb.Client's.
func (d *Direct) GetItem(ctx context.Context, in *dynamodb.GetItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	r := &itemRequest{
		TableName: aws.ToString(in.TableName), Key: wireItem(in.Key), ConsistentRead: aws.ToBool(in.ConsistentRead),
		ProjectionExpression: in.ProjectionExpression, ExpressionAttributeNames: in.ExpressionAttributeNames,
		ReturnConsumedCapacity: string(in.ReturnConsumedCapacity),
	}
	r.AttributesToGet = in.AttributesToGet
	answer, err := d.call(ctx, "GetItem", r, d.db.getItem)
	if err != nil {
		return nil, err
	}
	out := &dynamodb.GetItemOutput{ConsumedCapacity: answer.(itemAnswer).ConsumedCapacity.sdk()}
	if m := answer.(itemAnswer).Item; m != nil {
		out.Item = item(*m)
	}
	return out, nil
}

// PutItem is dynamodb.Client's.
func (d *Direct) PutItem(ctx context.Context, in *dynamodb.PutItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	r := &itemRequest{
		TableName: aws.ToString(in.TableName), Item: wireItem(maps.Clone(in.Item)),
		ConditionExpression: in.ConditionExpression, ExpressionAttributeNames: in.ExpressionAttributeNames,
		ExpressionAttributeValues: wireItem(in.ExpressionAttributeValues), ReturnValues: string(in.ReturnValues),
		ReturnValuesOnConditionCheckFailure: string(in.ReturnValuesOnConditionCheckFailure),
		ReturnConsumedCapacity:              string(in.ReturnConsumedCapacity),
	}
	r.ConditionalOperator = string(in.ConditionalOperator)
	r.Expected = legacyConditions(in.Expected)
	answer, err := d.call(ctx, "PutItem", r, d.db.putItem)
	if err != nil {
		return nil, err
	}
	a := answer.(itemAnswer)
	return &dynamodb.PutItemOutput{Attributes: item(a.Attributes), ConsumedCapacity: a.ConsumedCapacity.sdk()}, nil
}

// UpdateItem is dynamodb.Client's.
func (d *Direct) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	r := &itemRequest{
		TableName: aws.ToString(in.TableName), Key: wireItem(maps.Clone(in.Key)),
		ConditionExpression: in.ConditionExpression, UpdateExpression: in.UpdateExpression,
		ExpressionAttributeNames: in.ExpressionAttributeNames, ExpressionAttributeValues: wireItem(in.ExpressionAttributeValues),
		ReturnValues: string(in.ReturnValues), ReturnValuesOnConditionCheckFailure: string(in.ReturnValuesOnConditionCheckFailure),
		ReturnConsumedCapacity: string(in.ReturnConsumedCapacity),
	}
	r.ConditionalOperator = string(in.ConditionalOperator)
	r.Expected = legacyConditions(in.Expected)
	if in.AttributeUpdates != nil {
		r.AttributeUpdates = make(map[string]legacyUpdate, len(in.AttributeUpdates))
		for name, u := range in.AttributeUpdates {
			r.AttributeUpdates[name] = legacyUpdate{Action: string(u.Action), Value: legacyValue(u.Value)}
		}
	}
	answer, err := d.call(ctx, "UpdateItem", r, d.db.updateItem)
	if err != nil {
		return nil, err
	}
	a := answer.(itemAnswer)
	return &dynamodb.UpdateItemOutput{Attributes: item(a.Attributes), ConsumedCapacity: a.ConsumedCapacity.sdk()}, nil
}

// DeleteItem is dynamodb.Client's.
func (d *Direct) DeleteItem(ctx context.Context, in *dynamodb.DeleteItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error) {
	r := &itemRequest{
		TableName: aws.ToString(in.TableName), Key: wireItem(in.Key),
		ConditionExpression: in.ConditionExpression, ExpressionAttributeNames: in.ExpressionAttributeNames,
		ExpressionAttributeValues: wireItem(in.ExpressionAttributeValues), ReturnValues: string(in.ReturnValues),
		ReturnValuesOnConditionCheckFailure: string(in.ReturnValuesOnConditionCheckFailure),
		ReturnConsumedCapacity:              string(in.ReturnConsumedCapacity),
	}
	r.ConditionalOperator = string(in.ConditionalOperator)
	r.Expected = legacyConditions(in.Expected)
	answer, err := d.call(ctx, "DeleteItem", r, d.db.deleteItem)
	if err != nil {
		return nil, err
	}
	a := answer.(itemAnswer)
	return &dynamodb.DeleteItemOutput{Attributes: item(a.Attributes), ConsumedCapacity: a.ConsumedCapacity.sdk()}, nil
}

// call runs the request through faults and engine. Only a request that a fault has met needs a goroutine: it may outlive its author.
func (d *Direct) call(ctx context.Context, operation string, in *itemRequest, run func(*itemRequest) (any, error)) (any, error) {
	db := d.db
	if err := ctx.Err(); err != nil {
		return nil, sdkError(operation, err)
	}
	if err := in.normalise(); err != nil {
		return nil, sdkError(operation, err)
	}
	db.mu.Lock()
	down, closed := db.mu.down, db.mu.closed
	healthy := d.hook == nil && db.mu.hook == nil && len(db.mu.faults) == 0
	if !down && !closed {
		db.requests.Add(1)
		db.count(operation, Count{Requests: 1})
	}
	db.mu.Unlock()
	if down || closed {
		return nil, sdkError(operation, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED})
	}
	locked := func() (any, error) {
		db.mu.Lock()
		defer db.mu.Unlock()
		db.mu.by = d.name
		answer, err := run(in)
		db.mu.by = ""
		if err != nil {
			db.count(operation, Count{Failures: 1})
		}
		return answer, err
	}
	var f *Fault
	if !healthy {
		f = d.faultFor(operation, in)
	}
	if f == nil {
		defer db.requests.Done()
		answer, err := locked()
		return answer, sdkError(operation, err)
	}
	type outcome struct {
		answer any
		lost   bool
		err    error
	}
	answered := make(chan outcome, 1)
	go func() {
		defer db.requests.Done()
		var o outcome
		o.answer, o.lost, o.err = db.undergo(ctx, f, locked)
		answered <- o
	}()
	var err error
	select {
	case o := <-answered:
		if !o.lost {
			return o.answer, sdkError(operation, o.err)
		}
		if err = ctx.Err(); err == nil {
			err = io.EOF
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	db.mu.Lock()
	db.count(operation, Count{Lost: 1})
	db.mu.Unlock()
	return nil, sdkError(operation, err)
}

func (d *Direct) faultFor(operation string, in *itemRequest) *Fault {
	r := Request{
		Operation: operation, Table: in.TableName, Key: item(in.Key), Item: item(in.Item), Consistent: in.ConsistentRead,
		Condition: aws.ToString(in.ConditionExpression), Update: aws.ToString(in.UpdateExpression),
		Values: item(in.ExpressionAttributeValues), Names: in.ExpressionAttributeNames,
	}
	if r.Item != nil {
		d.db.mu.Lock()
		if t := d.db.mu.tables[in.TableName]; t != nil {
			r.Key = t.keyOf(r.Item)
		}
		d.db.mu.Unlock()
	}
	if d.hook != nil {
		if f := d.hook(r); f != nil {
			return f
		}
	}
	return d.db.faultFor(r)
}

// normalise brings numbers into their plain form, and refuses what the wire's decoder refuses.
func (in *itemRequest) normalise() error {
	for _, m := range []wireItem{in.Key, in.Item, in.ExpressionAttributeValues, in.ExclusiveStartKey} {
		for name, v := range m {
			if plain(v) {
				continue
			}
			n, err := asFromWire(v)
			if err != nil {
				return err
			}
			m[name] = n
		}
	}
	for _, conditions := range []map[string]legacyCondition{in.Expected, in.ScanFilter} {
		for _, c := range conditions {
			if err := c.Value.normalise(); err != nil {
				return err
			}
			for i := range c.AttributeValueList {
				if err := c.AttributeValueList[i].normalise(); err != nil {
					return err
				}
			}
		}
	}
	for _, u := range in.AttributeUpdates {
		if err := u.Value.normalise(); err != nil {
			return err
		}
	}
	return nil
}

func (w *wireValue) normalise() (err error) {
	if w != nil && !plain(w.AttributeValue) {
		w.AttributeValue, err = asFromWire(w.AttributeValue)
	}
	return err
}

// asFromWire is the value as the SDK would send it and the wire's decoder read it.
func asFromWire(v types.AttributeValue) (types.AttributeValue, error) {
	if b, ok := v.(*avB); ok && b.Value == nil { // it sends {"B": null}
		return decodeValue([]byte(`{"B":null}`), 0)
	}
	return normalised(v)
}

// plain tells whether a value is certain to be in the form that the engine stores.
func plain(v types.AttributeValue) bool {
	switch v := v.(type) {
	case *avS:
		return true
	case *avN:
		// Whole numbers, as nearly all are here, without leading zeros.
		return len(v.Value) < 18 && strings.Trim(v.Value, "0123456789") == "" && (v.Value == "0" || v.Value != "" && v.Value[0] != '0')
	}
	return false
}

func number32(n *int32) *int {
	if n == nil {
		return nil
	}
	i := int(*n)
	return &i
}

func legacyConditions(expected map[string]types.ExpectedAttributeValue) map[string]legacyCondition {
	if expected == nil {
		return nil
	}
	out := make(map[string]legacyCondition, len(expected))
	for name, e := range expected {
		out[name] = legacyCondition{
			Value: legacyValue(e.Value), Exists: e.Exists, ComparisonOperator: string(e.ComparisonOperator),
			AttributeValueList: legacyValues(e.AttributeValueList),
		}
	}
	return out
}

func legacyValue(v types.AttributeValue) *wireValue {
	if v == nil {
		return nil
	}
	return &wireValue{v}
}

func legacyValues(values []types.AttributeValue) []wireValue {
	var out []wireValue
	for _, v := range values {
		out = append(out, wireValue{v})
	}
	return out
}

func (c *consumedCapacity) sdk() *types.ConsumedCapacity {
	if c == nil {
		return nil
	}
	out := &types.ConsumedCapacity{TableName: &c.TableName, CapacityUnits: &c.CapacityUnits}
	if c.Table != nil {
		out.Table = &types.Capacity{CapacityUnits: &c.Table.CapacityUnits}
	}
	return out
}

// sdkError gives an error the types that the SDK gives it.
func sdkError(operation string, err error) error {
	if err == nil {
		return nil
	}
	if refused := (*apiError)(nil); errors.As(err, &refused) {
		_, code, _ := strings.Cut(refused.shape, "#")
		message := aws.String(refused.message)
		switch code {
		case "ConditionalCheckFailedException":
			err = &types.ConditionalCheckFailedException{Message: message, Item: refused.item}
		case "ProvisionedThroughputExceededException":
			err = &types.ProvisionedThroughputExceededException{Message: message}
		case "ResourceNotFoundException":
			err = &types.ResourceNotFoundException{Message: message}
		case "InternalServerError":
			err = &types.InternalServerError{Message: message}
		default:
			fault := smithy.FaultClient
			if refused.status >= 500 {
				fault = smithy.FaultServer
			}
			err = &smithy.GenericAPIError{Code: code, Message: refused.message, Fault: fault}
		}
	}
	return &smithy.OperationError{ServiceID: dynamodb.ServiceID, OperationName: operation, Err: err}
}
