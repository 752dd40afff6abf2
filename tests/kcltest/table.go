package kcltest

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
)

// API is the part of *dynamodb.Client that a worker needs.
type API interface {
	Scan(context.Context, *dynamodb.ScanInput, ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error)
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	PutItem(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error)
	DeleteItem(context.Context, *dynamodb.DeleteItemInput, ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error)
}

// table sends KCL's requests (its DynamoDBLeaseRefresher).
type table struct {
	api     API
	name    string
	timeout time.Duration
	three   bool
}

// sendTries and sendPause are those of the Java SDK, which repeats what got no answer or a fault of the service. The repeat
// of a write that was done fails on its own effect.
const (
	sendTries = 4
	sendPause = 100 * time.Millisecond
)

func (t *table) send(ctx context.Context, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	for try := 1; ; try++ {
		err := request(ctx)
		var api smithy.APIError
		if err == nil || try == sendTries || errors.As(err, &api) && api.ErrorFault() == smithy.FaultClient || !sleep(ctx, sendPause) {
			return err
		}
	}
}

// wants is a condition on attributes: a nil value means that the attribute must be absent.
type wants map[string]types.AttributeValue

func (w wants) expected() map[string]types.ExpectedAttributeValue {
	out := map[string]types.ExpectedAttributeValue{}
	for name, v := range w {
		if v == nil {
			out[name] = types.ExpectedAttributeValue{Exists: aws.Bool(false)}
		} else {
			out[name] = types.ExpectedAttributeValue{Value: v}
		}
	}
	return out
}

// orAbsent is the condition that an attribute is as it was read.
func orAbsent(s string) types.AttributeValue {
	if s == "" {
		return nil
	}
	return str(s)
}

func put(v types.AttributeValue) types.AttributeValueUpdate {
	return types.AttributeValueUpdate{Action: types.AttributeActionPut, Value: v}
}

func add(n int64) types.AttributeValueUpdate {
	return types.AttributeValueUpdate{Action: types.AttributeActionAdd, Value: num(n)}
}

var gone = types.AttributeValueUpdate{Action: types.AttributeActionDelete}

type updates = map[string]types.AttributeValueUpdate

// update writes under a condition. done is false when the condition failed.
func (t *table) update(ctx context.Context, key string, w wants, u updates) (done bool, err error) {
	return failedCondition(t.send(ctx, func(ctx context.Context) error {
		_, err := t.api.UpdateItem(ctx, &dynamodb.UpdateItemInput{
			TableName: aws.String(t.name), Key: item{"leaseKey": str(key)}, Expected: w.expected(), AttributeUpdates: u,
		})
		return err
	}))
}

func failedCondition(err error) (done bool, _ error) {
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) {
		return false, nil
	}
	return err == nil, err
}

// items reads the whole table.
func (t *table) items(ctx context.Context) (items []item, err error) {
	in := &dynamodb.ScanInput{TableName: aws.String(t.name)} // never consistent
	for {
		var out *dynamodb.ScanOutput
		err := t.send(ctx, func(ctx context.Context) (err error) {
			out, err = t.api.Scan(ctx, in)
			return err
		})
		if err != nil {
			return nil, err
		}
		items = append(items, out.Items...)
		if len(out.LastEvaluatedKey) == 0 {
			return items, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

// list reads all leases. One item that is none ends it in KCL 2.x; 3.5 skips it.
func (t *table) list(ctx context.Context) (leases []Lease, err error) {
	items, err := t.items(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range items {
		if kind := textOf(m, "entityType"); t.three && kind != "" && kind != entityLease {
			continue
		}
		l, err := decode(m)
		switch {
		case err == nil:
			leases = append(leases, l)
		case !t.three:
			return nil, err
		}
	}
	return leases, nil
}

// get reads one lease. KCL's default is an eventually consistent read.
func (t *table) get(ctx context.Context, key string, consistent bool) (l Lease, found bool, err error) {
	var out *dynamodb.GetItemOutput
	err = t.send(ctx, func(ctx context.Context) (err error) {
		out, err = t.api.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String(t.name), Key: item{"leaseKey": str(key)}, ConsistentRead: aws.Bool(consistent)})
		return err
	})
	if err != nil || len(out.Item) == 0 {
		return Lease{}, false, err
	}
	l, err = decode(out.Item)
	return l, err == nil, err
}

// create puts a lease unless there is one.
func (t *table) create(ctx context.Context, l Lease) (created bool, err error) {
	if t.three {
		l.EntityType = entityLease
	}
	return t.putNew(ctx, l.encode())
}

func (t *table) putNew(ctx context.Context, m item) (created bool, err error) {
	return failedCondition(t.send(ctx, func(ctx context.Context) error {
		_, err := t.api.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String(t.name), Item: m, Expected: wants{"leaseKey": nil}.expected()})
		return err
	}))
}

// take makes the worker the owner.
func (t *table) take(ctx context.Context, l Lease, worker string) (done bool, err error) {
	u := updates{"leaseOwner": put(str(worker)), "leaseCounter": put(num(l.Counter + 1))}
	if l.Owner != "" && l.Owner != worker {
		u["ownerSwitchesSinceCheckpoint"] = add(1)
	}
	if t.three {
		u["checkpointOwner"] = gone
	}
	return t.update(ctx, l.Key, wants{"leaseCounter": num(l.Counter)}, u)
}

// checkpoint stores a position, conditional on nothing but the counter.
func (t *table) checkpoint(ctx context.Context, l Lease, p Position) (done bool, err error) {
	u := updates{
		"checkpoint": put(str(p.Sequence)), "checkpointSubSequenceNumber": put(num(p.Sub)), "ownerSwitchesSinceCheckpoint": put(num(0)),
		"leaseCounter": put(num(l.Counter + 1)), "pendingCheckpoint": gone, "pendingCheckpointSubSequenceNumber": gone, "pendingCheckpointState": gone,
	}
	if len(l.Children) > 0 {
		u["childShardIds"] = put(set(l.Children))
	}
	if l.StartingHashKey != "" {
		u["startingHashKey"], u["endingHashKey"] = put(str(l.StartingHashKey)), put(str(l.EndingHashKey))
	}
	return t.update(ctx, l.Key, wants{"leaseCounter": num(l.Counter)}, u)
}

// setChildren notes on a parent what comes after it.
func (t *table) setChildren(ctx context.Context, key string, children []string) (done bool, err error) {
	return t.update(ctx, key, wants{"leaseKey": str(key)}, updates{"childShardIds": put(set(children))})
}

// delete has no condition.
func (t *table) delete(ctx context.Context, key string) error {
	return t.send(ctx, func(ctx context.Context) error {
		_, err := t.api.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: aws.String(t.name), Key: item{"leaseKey": str(key)}})
		return err
	})
}

// isThrottle tells what KCL tries again at once.
func isThrottle(err error) bool {
	var throttled *types.ProvisionedThroughputExceededException
	return errors.As(err, &throttled)
}
