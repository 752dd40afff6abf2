package kcltest

import (
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Sentinels that KCL stores in place of a sequence number.
const (
	AtTimestamp = "AT_TIMESTAMP"
	TrimHorizon = "TRIM_HORIZON"
	Latest      = "LATEST"
	ShardEnd    = "SHARD_END"
)

// Position is a checkpoint: a sequence number or a sentinel, and the index inside an aggregated record.
type Position struct {
	Sequence string
	Sub      int64
}

// order gives sentinels their places around the sequence numbers.
func (p Position) order() *big.Int {
	switch p.Sequence {
	case AtTimestamp:
		return big.NewInt(-3)
	case TrimHorizon:
		return big.NewInt(-2)
	case Latest:
		return big.NewInt(-1)
	case ShardEnd:
		return new(big.Int).Lsh(big.NewInt(1), 512)
	}
	n, ok := new(big.Int).SetString(p.Sequence, 10)
	if !ok {
		panic("kcltest: no position: " + p.Sequence) // KCL: IllegalArgumentException
	}
	return n
}

// Compare orders positions as KCL's ExtendedSequenceNumber does.
func (p Position) Compare(q Position) int {
	if a, b := p.Sequence, q.Sequence; !p.isSentinel() && !q.isSentinel() {
		// Digits without leading zeros, as Kinesis gives them.
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b), cmp.Compare(p.Sub, q.Sub))
	}
	if c := p.order().Cmp(q.order()); c != 0 {
		return c
	}
	return cmp.Compare(p.Sub, q.Sub)
}

// Shard is a shard as a listing, or the end of its parent, tells of it. Hash keys are decimal and inclusive.
type Shard struct {
	ID                             string
	Parents                        []string
	StartingHashKey, EndingHashKey string
	// StartingSequence is the first sequence number that the shard could hold.
	StartingSequence string
	Closed           bool
}

// Lease is KCL's picture of an item of the table.
type Lease struct {
	Key                            string
	Owner                          string // "" = none
	Counter                        int64
	Switches                       int64
	Checkpoint                     Position
	Parents, Children              []string
	StartingHashKey, EndingHashKey string
	CheckpointOwner                string // KCL 3.x, in a hand-over
	EntityType                     string

	// seenAt is the local lastCounterIncrementNanos.
	seenAt time.Duration
}

// actualOwner is the one who processes: during a hand-over the owner is the next one already.
func (l Lease) actualOwner() string {
	if l.CheckpointOwner != "" {
		return l.CheckpointOwner
	}
	return l.Owner
}

type item = map[string]types.AttributeValue

func str(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
func num(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}
func set(s []string) types.AttributeValue { return &types.AttributeValueMemberSS{Value: s} }

func textOf(m item, name string) string {
	if v, ok := m[name].(*types.AttributeValueMemberS); ok {
		return v.Value
	}
	return ""
}

func setOf(m item, name string) []string {
	if v, ok := m[name].(*types.AttributeValueMemberSS); ok {
		return slices.Sorted(slices.Values(v.Value))
	}
	return nil
}

func numberOf(m item, name string) (int64, error) {
	v, ok := m[name].(*types.AttributeValueMemberN)
	if !ok {
		return 0, fmt.Errorf("NullPointerException: %s is marked non-null but is null (item %s)", name, textOf(m, "leaseKey"))
	}
	return strconv.ParseInt(v.Value, 10, 64)
}

// decode reads an item; an error stands for the exception that KCL throws.
func decode(m item) (Lease, error) {
	l := Lease{
		Key: textOf(m, "leaseKey"), Owner: textOf(m, "leaseOwner"), Parents: setOf(m, "parentShardId"), Children: setOf(m, "childShardIds"),
		StartingHashKey: textOf(m, "startingHashKey"), EndingHashKey: textOf(m, "endingHashKey"),
		CheckpointOwner: textOf(m, "checkpointOwner"), EntityType: textOf(m, "entityType"),
		Checkpoint: Position{Sequence: textOf(m, "checkpoint")},
	}
	var err error
	if l.Counter, err = numberOf(m, "leaseCounter"); err != nil {
		return l, err
	}
	if l.Switches, err = numberOf(m, "ownerSwitchesSinceCheckpoint"); err != nil {
		return l, err
	}
	if l.Checkpoint.Sequence == "" {
		return l, fmt.Errorf("NullPointerException: checkpoint of item %s", l.Key)
	}
	l.Checkpoint.Sub, err = numberOf(m, "checkpointSubSequenceNumber")
	return l, err
}

// encode is the item that KCL creates.
func (l Lease) encode() item {
	m := item{
		"leaseKey": str(l.Key), "leaseCounter": num(l.Counter), "ownerSwitchesSinceCheckpoint": num(l.Switches),
		"checkpoint": str(l.Checkpoint.Sequence), "checkpointSubSequenceNumber": num(l.Checkpoint.Sub),
	}
	if len(l.Parents) > 0 {
		m["parentShardId"] = set(l.Parents)
	}
	if l.StartingHashKey != "" {
		m["startingHashKey"], m["endingHashKey"] = str(l.StartingHashKey), str(l.EndingHashKey)
	}
	if l.EntityType != "" {
		m["entityType"] = str(l.EntityType)
	}
	return m
}
