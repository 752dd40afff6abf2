package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// API is the part of *dynamodb.Client that a table needs.
type API interface {
	DescribeTable(context.Context, *dynamodb.DescribeTableInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error)
	CreateTable(context.Context, *dynamodb.CreateTableInput, ...func(*dynamodb.Options)) (*dynamodb.CreateTableOutput, error)
	Scan(context.Context, *dynamodb.ScanInput, ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error)
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	PutItem(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error)
	DeleteItem(context.Context, *dynamodb.DeleteItemInput, ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error)
	UpdateContinuousBackups(context.Context, *dynamodb.UpdateContinuousBackupsInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateContinuousBackupsOutput, error)
}

var (
	// ErrNoLease is returned when an operation needs a lease that is not in the table.
	ErrNoLease = errors.New("no such lease in the table")
	// ErrNotALeaseTable is returned when the table has another key than a lease table's.
	ErrNotALeaseTable = errors.New("the table's key must be the single hash key leaseKey of type S")
)

// Table reads and writes a lease table. It has no state and is safe for concurrent use.
type Table struct {
	api         API
	name        string
	application string
}

// NewTable names the table; nothing is read or created.
func NewTable(api API, name string) *Table { return &Table{api: api, name: name, application: name} }

// ForApplication is the table as that of an application whose name is another: KCL 3.x names its other tables by it.
func (t *Table) ForApplication(name string) *Table {
	return &Table{api: t.api, name: t.name, application: name}
}

// Name is the name of the table, which is KCL's application name unless it is configured otherwise.
func (t *Table) Name() string { return t.name }

func (t *Table) describe(ctx context.Context) (*types.TableDescription, bool, error) {
	out, err := t.api.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String(t.name)})
	var missing *types.ResourceNotFoundException
	switch {
	case errors.As(err, &missing):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("describing lease table %s: %w", t.name, err)
	}
	return out.Table, true, nil
}

func (t *Table) checkSchema(d *types.TableDescription) error {
	if len(d.KeySchema) == 1 && aws.ToString(d.KeySchema[0].AttributeName) == attrKey {
		for _, a := range d.AttributeDefinitions {
			if aws.ToString(a.AttributeName) == attrKey && a.AttributeType == types.ScalarAttributeTypeS {
				return nil
			}
		}
	}
	return fmt.Errorf("checking lease table %s: %w; use another applicationName", t.name, ErrNotALeaseTable)
}

// Snapshot is what a scan brought.
type Snapshot struct {
	Leases []Lease
	// Foreign are the items that are no leases.
	Foreign []Foreign
	// Broken are leases that cannot be understood.
	Broken []Broken
	// At is DynamoDB's time of the answer, to the second; zero if the answer did not tell.
	At time.Time
}

// Foreign is an item that is no lease, as KCL 3.5 and later keeps them in the table.
type Foreign struct {
	Key, EntityType string
	Item            map[string]types.AttributeValue
}

// Broken is a lease with an attribute that cannot be understood. One of them must not hide the others, as it does in
// KCL 2.x.
type Broken struct {
	Key string
	Err error
}

// Scan reads the whole table.
func (t *Table) Scan(ctx context.Context, consistent bool) (Snapshot, error) {
	var s Snapshot
	in := &dynamodb.ScanInput{TableName: aws.String(t.name), ConsistentRead: aws.Bool(consistent)}
	for {
		out, err := t.api.Scan(ctx, in)
		if err != nil {
			return Snapshot{}, fmt.Errorf("scanning lease table %s: %w", t.name, err)
		}
		for _, item := range out.Items {
			l, err := Decode(item)
			switch {
			case err == nil:
				s.Leases = append(s.Leases, l)
			case errors.Is(err, ErrForeign):
				s.Foreign = append(s.Foreign, Foreign{Key: l.Key, EntityType: l.EntityType, Item: item})
			default:
				s.Broken = append(s.Broken, Broken{Key: l.Key, Err: err})
			}
		}
		s.At, _ = awsmiddleware.GetServerTime(out.ResultMetadata)
		if len(out.LastEvaluatedKey) == 0 {
			return s, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

// Get reads one lease, consistently.
func (t *Table) Get(ctx context.Context, key string) (l Lease, found bool, err error) {
	out, err := t.api.GetItem(ctx, &dynamodb.GetItemInput{
		TableName:      aws.String(t.name),
		Key:            map[string]types.AttributeValue{attrKey: text(key)},
		ConsistentRead: aws.Bool(true),
	})
	if err != nil {
		return Lease{}, false, fmt.Errorf("reading lease %s: %w", key, err)
	}
	if len(out.Item) == 0 {
		return Lease{}, false, nil
	}
	l, err = Decode(out.Item)
	return l, err == nil, err
}

// Create puts a new lease, unowned and with counter 0, unless there is one with that key; that one is returned then and
// left as it is (r1.2).
func (t *Table) Create(ctx context.Context, l Lease) (current Lease, created bool, err error) {
	if l.Key == "" || l.Checkpoint.IsZero() {
		return Lease{}, false, fmt.Errorf("creating lease %q: it needs a key and a checkpoint", l.Key)
	}
	item := l.newItem()
	_, err = t.api.PutItem(ctx, &dynamodb.PutItemInput{
		TableName:                           aws.String(t.name),
		Item:                                item,
		ConditionExpression:                 aws.String("attribute_not_exists(#" + attrKey + ")"),
		ExpressionAttributeNames:            map[string]string{"#" + attrKey: attrKey},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	})
	if err == nil {
		current, err = Decode(item)
		return current, err == nil, err
	}
	current, found, err := t.conflicting(ctx, l.Key, err)
	switch {
	case err != nil:
		return Lease{}, false, fmt.Errorf("creating lease %s: %w", l.Key, err)
	case !found: // deleted between our Put and the look
		return Lease{}, false, fmt.Errorf("creating lease %s: %w any more", l.Key, ErrNoLease)
	}
	return current, false, nil
}

// Anchor fixes what LATEST means for a lease that says nothing of it yet: t, unless somebody else was quicker (r5.5).
// It may be called for anybody's lease, and leaves its counter alone. The lease as it now stands is returned; when its
// checkpoint is not LATEST any more, it needs no anchor and gets none.
func (t *Table) Anchor(ctx context.Context, key string, at time.Time) (Lease, error) {
	u := newUpdate(key)
	u.ifEqual(attrCheckpoint, text("LATEST"))
	u.ifExists(attrCounter)
	u.setIfAbsent(attrStart, number(at.UnixMilli()))
	return t.annotate(ctx, u, "anchoring")
}

// LowerStart moves the anchor of a lease back to t if it is later (r5.3), and returns the lease as it now stands.
func (t *Table) LowerStart(ctx context.Context, key string, at time.Time) (Lease, error) {
	u := newUpdate(key)
	u.ifExists(attrCounter)
	u.set(attrStart, number(at.UnixMilli()))
	u.conditions = append(u.conditions, u.name(attrStart)+" > :new_"+attrStart)
	return t.annotate(ctx, u, "lowering the start of")
}

// SetChildren writes the shards that a lease's shard was split or merged into (r6.1), and leaves its counter alone.
func (t *Table) SetChildren(ctx context.Context, key string, children []string) (Lease, error) {
	if len(children) == 0 {
		return Lease{}, fmt.Errorf("writing the children of lease %s: there are none", key)
	}
	u := newUpdate(key)
	u.ifExists(attrCounter)
	u.set(attrChildren, &types.AttributeValueMemberSS{Value: children})
	return t.annotate(ctx, u, "writing the children of")
}

// annotate sends a write that is not the owner's. A failed condition is no error as long as the lease exists.
func (t *Table) annotate(ctx context.Context, u *update, doing string) (Lease, error) {
	a, err := t.send(ctx, u)
	switch {
	case err != nil:
		return Lease{}, fmt.Errorf("%s lease %s: %w", doing, u.key, err)
	case !a.found:
		return Lease{}, fmt.Errorf("%s lease %s: %w", doing, u.key, ErrNoLease)
	}
	return a.lease, nil
}

// DeleteOfOtherStream deletes a lease that an earlier stream of the same name has left behind, if it still looks as it
// was seen (r7.1). The caller has seen it expired. A lease that has changed stays, without an error.
func (t *Table) DeleteOfOtherStream(ctx context.Context, seen Lease) (deleted bool, err error) {
	if seen.Stream == "" {
		return false, fmt.Errorf("deleting lease %s of an earlier stream: the lease does not say whose it is", seen.Key)
	}
	u := newUpdate(seen.Key)
	u.ifEqual(attrStream, text(seen.Stream))
	u.ifEqual(attrCounter, number(seen.Counter))
	return t.delete(ctx, u, "of an earlier stream")
}

// Replace turns a lease that an earlier stream of the same name has left behind into one of the new stream, if it still
// looks as it was seen (r7.1). The caller has seen it expired. A lease that has changed stays, without an error. It is an
// update of the item, which moves its counter on: a deleted and re-created one would begin at 0 again, and a write that
// is still under way from the old days could hit it.
func (t *Table) Replace(ctx context.Context, seen, fresh Lease) (replaced bool, err error) {
	if seen.Stream == "" || fresh.Stream == "" {
		return false, fmt.Errorf("replacing lease %s: both leases must say whose they are", seen.Key)
	}
	u := newUpdate(seen.Key)
	u.ifEqual(attrStream, text(seen.Stream))
	u.ifEqual(attrCounter, number(seen.Counter))
	u.set(attrCounter, number(seen.Counter+1))
	u.set(attrStream, text(fresh.Stream))
	u.set(attrCheckpoint, text(fresh.Checkpoint.Sequence))
	u.set(attrSub, number(fresh.Checkpoint.Sub))
	u.set(attrSwitches, number(0))
	u.set(attrStartHash, text(fresh.StartingHashKey))
	u.set(attrEndHash, text(fresh.EndingHashKey))
	if len(fresh.Parents) > 0 {
		u.set(attrParents, &types.AttributeValueMemberSS{Value: fresh.Parents})
	} else {
		u.remove(attrParents)
	}
	u.remove(attrOwner, attrCheckpointOwner, attrChildren, attrPending, attrPendingSub, attrPendingState, attrThroughput,
		attrAcquisition, attrStart, attrAsk, attrAskAt, attrFailover, attrDedupCount, attrDedupAt, attrDedupFirst, attrDedupEpoch, attrDedupParts)
	a, err := t.send(ctx, u)
	if err != nil {
		return false, fmt.Errorf("replacing lease %s of an earlier stream: %w", seen.Key, err)
	}
	return !a.failed, nil
}

// DeleteEnded deletes the lease of a shard that was read to its end, if it still looks as it was seen (r6.6). A lease
// that has changed stays, without an error: KCL deletes without any condition, and has deleted leases that had just
// come back to life.
func (t *Table) DeleteEnded(ctx context.Context, seen Lease) (deleted bool, err error) {
	u := newUpdate(seen.Key)
	u.ifEqual(attrCheckpoint, text(checkpoint.ShardEnd))
	u.ifEqual(attrCounter, number(seen.Counter))
	return t.delete(ctx, u, "of an ended shard")
}

// delete deletes the item under the update's conditions; deleted is false when they did not hold.
func (t *Table) delete(ctx context.Context, u *update, which string) (deleted bool, err error) {
	in := u.input(t.name)
	_, err = t.api.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName:                 in.TableName,
		Key:                       in.Key,
		ConditionExpression:       in.ConditionExpression,
		ExpressionAttributeNames:  in.ExpressionAttributeNames,
		ExpressionAttributeValues: in.ExpressionAttributeValues,
	})
	var failed *types.ConditionalCheckFailedException
	switch {
	case errors.As(err, &failed):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("deleting lease %s %s: %w", u.key, which, err)
	}
	return true, nil
}

// answer is what became of a conditional write: the lease after it, or, when the condition failed, the lease that it
// failed on.
type answer struct {
	lease  Lease
	found  bool
	failed bool
}

// send sends an update once. The SDK must not repeat an owner's write behind our back: the time that a write was first
// sent at decides over the fence, and each try may carry a newer position.
func (t *Table) send(ctx context.Context, u *update) (answer, error) {
	out, err := t.api.UpdateItem(ctx, u.input(t.name), func(o *dynamodb.Options) { o.Retryer = aws.NopRetryer{} })
	if err == nil {
		l, err := Decode(out.Attributes)
		return answer{lease: l, found: true}, err
	}
	l, found, err := t.conflicting(ctx, u.key, err)
	return answer{lease: l, found: found, failed: true}, err
}

// conflicting returns the lease that a condition failed on, and any other error as it is. An exception without an item
// means that there is none, or that the service does not know ALL_OLD, as some emulators: then one reads it.
func (t *Table) conflicting(ctx context.Context, key string, err error) (l Lease, found bool, _ error) {
	var failed *types.ConditionalCheckFailedException
	if !errors.As(err, &failed) {
		return Lease{}, false, err
	}
	if len(failed.Item) == 0 {
		return t.Get(ctx, key)
	}
	l, err = Decode(failed.Item)
	return l, err == nil, err
}

// isRefused tells whether the service has answered that it did not do the write. Without an answer, or with one that
// puts the fault on the service, the write may have been done, or may still be.
func isRefused(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && api.ErrorFault() == smithy.FaultClient
}

// isNoTable tells whether the table is not there.
func isNoTable(err error) bool {
	var missing *types.ResourceNotFoundException
	return errors.As(err, &missing)
}

// isThrottle tells whether DynamoDB asks to go slower.
func isThrottle(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded":
		return true
	}
	return false
}

// sleep waits, or returns the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
