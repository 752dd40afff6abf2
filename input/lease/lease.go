package lease

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// Names of the attributes. KCL's come first.
const (
	attrKey             = "leaseKey"
	attrOwner           = "leaseOwner"
	attrCounter         = "leaseCounter"
	attrSwitches        = "ownerSwitchesSinceCheckpoint"
	attrCheckpoint      = "checkpoint"
	attrSub             = "checkpointSubSequenceNumber"
	attrParents         = "parentShardId" // singular, but a set
	attrChildren        = "childShardIds"
	attrPending         = "pendingCheckpoint"
	attrPendingSub      = "pendingCheckpointSubSequenceNumber"
	attrPendingState    = "pendingCheckpointState"
	attrStartHash       = "startingHashKey"
	attrEndHash         = "endingHashKey"
	attrThroughput      = "throughputKBps"
	attrCheckpointOwner = "checkpointOwner"
	attrEntityType      = "entityType"

	attrAcquisition = "kp_acq"
	attrStream      = "kp_stream"
	attrStart       = "kp_start"
	attrAsk         = "kp_ask"
	attrAskAt       = "kp_askAt"
	attrFailover    = "kp_fo"
	attrDedupCount  = "kp_n"
	attrDedupAt     = "kp_at"
	attrDedupFirst  = "kp_first"
	attrDedupEpoch  = "kp_epoch"
	attrDedupParts  = "kp_parts"
)

// entityTypeLease is what KCL 3.5 and later writes into the lease items that it creates; absent means the same.
const entityTypeLease = "LEASE"

// ErrForeign is returned for an item of the table that is no lease, as KCL 3.5 and later keeps its other state here.
var ErrForeign = errors.New("not a lease item")

// Lease is one item of the table, as it was read. The zero value of a field means that the attribute is absent, unless
// the field says otherwise.
type Lease struct {
	// Key is the shard's id.
	Key string
	// Owner is the worker that holds the lease; during a hand-over by KCL 3.x it is the next one.
	Owner string
	// Counter is heartbeat and fencing token. It is never absent.
	Counter int64
	// Checkpoint is the stored position. It is never absent.
	Checkpoint checkpoint.Position
	// Pending is KCL's prepared checkpoint: read, never started from, removed when we checkpoint.
	Pending checkpoint.Position
	// PendingState is what a KCL application stored beside Pending.
	PendingState []byte
	// OwnerSwitches counts changes of owner since the last checkpoint; a statistic.
	OwnerSwitches int64
	// Parents and Children are shard ids.
	Parents, Children []string
	// StartingHashKey and EndingHashKey are decimal; KCL before 2.3 wrote none.
	StartingHashKey, EndingHashKey string
	// CheckpointOwner is the worker that still owns the lease in a hand-over by KCL 3.x.
	CheckpointOwner string
	// ThroughputKBps is KCL 3.x's statistic; it may be present and 0.
	ThroughputKBps *float64
	EntityType     string

	// Acquisition names the run of the owner that is ours: "<worker id>#<random>". It stays behind when a KCL worker
	// takes the lease; see IsOurs.
	Acquisition string
	// Stream is "<stream ARN>@<creation epoch seconds>".
	Stream string
	// Start is the moment that LATEST or AT_TIMESTAMP stands for, to the millisecond.
	Start time.Time
	// Ask is the worker that asks for the lease, AskAt the counter at which it did.
	Ask   string
	AskAt int64
	// Failover is the failover time of the owner that is ours.
	Failover time.Duration

	// What de-duplication stores with the checkpoint.
	DedupCount *int64
	DedupAt    []byte
	DedupFirst []byte
	DedupEpoch string
	DedupParts int64
}

// IsOurs tells whether the owner is a worker of this project rather than of KCL. The acquisition alone does not: KCL
// leaves it in place when it takes the lease over.
func (l Lease) IsOurs() bool {
	worker, _, ok := strings.Cut(l.Acquisition, "#")
	return ok && l.Owner != "" && worker == l.Owner
}

// Ended tells whether the shard has been read to its end.
func (l Lease) Ended() bool { return l.Checkpoint.Sequence == checkpoint.ShardEnd }

// Decode reads an item. Items that are no lease give ErrForeign; a lease with an attribute that cannot be understood
// gives an error that names it, and must be left alone.
func Decode(item map[string]types.AttributeValue) (Lease, error) {
	d := decoder{item: item}
	l := Lease{Key: d.text(attrKey), EntityType: d.text(attrEntityType)}
	if d.err == nil && l.EntityType != "" && l.EntityType != entityTypeLease {
		return l, fmt.Errorf("item %q has the entity type %s: %w", l.Key, l.EntityType, ErrForeign)
	}
	if item[attrCounter] == nil {
		return l, fmt.Errorf("item %q has no %s: %w", l.Key, attrCounter, ErrForeign)
	}
	l.Owner = d.text(attrOwner)
	l.Counter = d.integer(attrCounter)
	l.Checkpoint = d.position(attrCheckpoint, attrSub)
	l.Pending = d.position(attrPending, attrPendingSub)
	// Some KCL versions can write a number here, which says nothing; nothing depends on the state.
	if b, ok := item[attrPendingState].(*types.AttributeValueMemberB); ok {
		l.PendingState = b.Value
	}
	l.OwnerSwitches = d.integer(attrSwitches)
	l.Parents, l.Children = d.set(attrParents), d.set(attrChildren)
	l.StartingHashKey, l.EndingHashKey = d.text(attrStartHash), d.text(attrEndHash)
	l.CheckpointOwner = d.text(attrCheckpointOwner)
	l.ThroughputKBps = d.float(attrThroughput)

	l.Acquisition, l.Stream = d.text(attrAcquisition), d.text(attrStream)
	if item[attrStart] != nil {
		l.Start = time.UnixMilli(d.integer(attrStart)).UTC()
	}
	l.Ask, l.AskAt = d.text(attrAsk), d.integer(attrAskAt)
	l.Failover = d.milliseconds(attrFailover)
	if item[attrDedupCount] != nil {
		n := d.integer(attrDedupCount)
		l.DedupCount = &n
	}
	l.DedupAt, l.DedupFirst = d.bytes(attrDedupAt), d.bytes(attrDedupFirst)
	l.DedupEpoch, l.DedupParts = d.text(attrDedupEpoch), d.integer(attrDedupParts)

	switch {
	case d.err != nil:
	case l.Key == "":
		d.fail(attrKey, "is missing")
	case l.Checkpoint.IsZero():
		d.fail(attrCheckpoint, "is missing; write a sequence number or one of AT_TIMESTAMP, TRIM_HORIZON, LATEST, SHARD_END")
	case l.Counter < 0:
		d.fail(attrCounter, "is negative")
	}
	if d.err != nil {
		return l, fmt.Errorf("reading lease %q: %w", l.Key, d.err)
	}
	return l, nil
}

// maxMilliseconds keeps a stored failover time inside a time.Duration.
const maxMilliseconds = int64(1<<63-1) / int64(time.Millisecond)

// decoder reads attributes by type and remembers the first error.
type decoder struct {
	item map[string]types.AttributeValue
	err  error
}

func (d *decoder) fail(name, problem string) {
	if d.err == nil {
		d.err = fmt.Errorf("attribute %s %s", name, problem)
	}
}

func (d *decoder) text(name string) string {
	switch v := d.item[name].(type) {
	case nil:
		return ""
	case *types.AttributeValueMemberS:
		// Absence is the only form of "none" that a condition can be written for.
		if v.Value == "" {
			d.fail(name, "is an empty string; remove the attribute instead")
		}
		return v.Value
	}
	d.fail(name, "must be a string (S)")
	return ""
}

func (d *decoder) integer(name string) int64 {
	switch v := d.item[name].(type) {
	case nil:
		return 0
	case *types.AttributeValueMemberN:
		n, err := strconv.ParseInt(v.Value, 10, 64)
		if err != nil {
			d.fail(name, fmt.Sprintf("is %q; it must be a whole number of 64 bits", v.Value))
		}
		return n
	}
	d.fail(name, "must be a number (N)")
	return 0
}

func (d *decoder) milliseconds(name string) time.Duration {
	ms := d.integer(name)
	if ms < 0 || ms > maxMilliseconds {
		d.fail(name, fmt.Sprintf("is %d; it must be a number of milliseconds", ms))
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

func (d *decoder) float(name string) *float64 {
	switch v := d.item[name].(type) {
	case nil:
		return nil
	case *types.AttributeValueMemberN:
		f, err := strconv.ParseFloat(v.Value, 64)
		if err != nil {
			d.fail(name, fmt.Sprintf("is %q; it must be a number", v.Value))
		}
		return &f
	}
	d.fail(name, "must be a number (N)")
	return nil
}

func (d *decoder) bytes(name string) []byte {
	switch v := d.item[name].(type) {
	case nil:
		return nil
	case *types.AttributeValueMemberB:
		return v.Value
	}
	d.fail(name, "must be binary (B)")
	return nil
}

func (d *decoder) set(name string) []string {
	switch v := d.item[name].(type) {
	case nil:
		return nil
	case *types.AttributeValueMemberSS:
		return v.Value
	}
	d.fail(name, "must be a set of strings (SS)")
	return nil
}

func (d *decoder) position(name, sub string) checkpoint.Position {
	sequence := d.text(name)
	if sequence == "" {
		return checkpoint.Position{}
	}
	p, err := checkpoint.Parse(sequence, d.integer(sub))
	if err != nil {
		d.fail(name, "cannot be used: "+err.Error())
	}
	return p
}

// newItem is the item of a lease that nobody has ever owned, as KCL creates it. The counter starts at 0 whatever l says.
func (l Lease) newItem() map[string]types.AttributeValue {
	item := map[string]types.AttributeValue{
		attrKey:        text(l.Key),
		attrCounter:    number(0),
		attrSwitches:   number(0),
		attrCheckpoint: text(l.Checkpoint.Sequence),
		attrSub:        number(l.Checkpoint.Sub),
	}
	for name, v := range map[string]string{attrStartHash: l.StartingHashKey, attrEndHash: l.EndingHashKey, attrStream: l.Stream} {
		if v != "" {
			item[name] = text(v)
		}
	}
	// DynamoDB has no empty sets.
	if len(l.Parents) > 0 {
		item[attrParents] = &types.AttributeValueMemberSS{Value: l.Parents}
	}
	if len(l.Children) > 0 {
		item[attrChildren] = &types.AttributeValueMemberSS{Value: l.Children}
	}
	if !l.Start.IsZero() {
		item[attrStart] = number(l.Start.UnixMilli())
	}
	return item
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

func binary(b []byte) types.AttributeValue { return &types.AttributeValueMemberB{Value: b} }
