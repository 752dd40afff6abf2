package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// MarkKind is a trace that KCL 3.x leaves.
type MarkKind string

// The kinds of marks (r8.2).
const (
	// MarkEntityType: an item of the lease table with an entity type other than LEASE. Value is the entity type.
	MarkEntityType MarkKind = "entityType"
	// MarkCheckpointOwner: a hand-over is under way or was left behind. Value is the worker.
	MarkCheckpointOwner MarkKind = "checkpointOwner"
	// MarkThroughput: a 3.x worker has renewed the lease at some time. Value is KB per second.
	MarkThroughput MarkKind = "throughputKBps"
	// MarkIndex: the lease table has KCL 3.x's index. Key is the index' name.
	MarkIndex MarkKind = "index"
	// MarkCoordinatorState: there is a coordinator table. Key is its name, Value the client version stored in it
	// ("" = none).
	MarkCoordinatorState MarkKind = "coordinator state"
)

const (
	ownerIndex        = "LeaseOwnerToLeaseKeyIndex"
	coordinatorSuffix = "-CoordinatorState"
	// migrationKey is the item with the client version: in the coordinator table, or since KCL 3.5 in the lease table.
	migrationKey = "Migration3.0"
)

// Mark is one trace of KCL 3.x. It tells that such a worker was here, not that it still is.
type Mark struct {
	Kind MarkKind
	// Key names the item, index or table that shows it.
	Key   string
	Value string
}

func (m Mark) String() string {
	if m.Value == "" {
		return fmt.Sprintf("%s %s", m.Kind, m.Key)
	}
	return fmt.Sprintf("%s %s=%s", m.Kind, m.Key, m.Value)
}

// Marks are the traces of KCL 3.x.
type Marks struct {
	Marks []Mark
	// ClientVersion is what KCL stored of its migration from 2.x, e.g. CLIENT_VERSION_2X; "" if nothing is stored.
	ClientVersion string
	// Unreadable names what could not be looked at for want of permission. It is worth a warning, no more: the role of
	// a connector that never knew KCL 3.x has no access to what 3.x makes.
	Unreadable []string
}

// Marks looks for traces of KCL 3.x in a snapshot, in the table's description and in the coordinator table.
func (t *Table) Marks(ctx context.Context, s Snapshot) (Marks, error) {
	m := Marks{Marks: snapshotMarks(s)}
	for _, f := range s.Foreign {
		if f.Key == migrationKey {
			m.ClientVersion = clientVersion(f.Item)
		}
	}
	switch d, found, err := t.describe(ctx); {
	case isAccessDenied(err):
		m.Unreadable = append(m.Unreadable, "DescribeTable "+t.name)
	case err != nil:
		return m, err
	case found:
		if slices.ContainsFunc(d.GlobalSecondaryIndexes, func(g types.GlobalSecondaryIndexDescription) bool {
			return aws.ToString(g.IndexName) == ownerIndex
		}) {
			m.Marks = append(m.Marks, Mark{Kind: MarkIndex, Key: ownerIndex})
		}
	}

	// One read tells both whether the table exists and what it says.
	coordinator := t.application + coordinatorSuffix
	out, err := t.api.GetItem(ctx, &dynamodb.GetItemInput{
		TableName:      aws.String(coordinator),
		Key:            map[string]types.AttributeValue{"key": text(migrationKey)},
		ConsistentRead: aws.Bool(true),
	})
	var missing *types.ResourceNotFoundException
	switch {
	case errors.As(err, &missing):
	case isAccessDenied(err):
		m.Unreadable = append(m.Unreadable, "GetItem "+coordinator)
	case err != nil:
		return m, fmt.Errorf("looking for KCL 3.x in table %s: %w", coordinator, err)
	default:
		version := clientVersion(out.Item)
		if version != "" {
			m.ClientVersion = version
		}
		m.Marks = append(m.Marks, Mark{Kind: MarkCoordinatorState, Key: coordinator, Value: version})
	}
	return m, nil
}

// snapshotMarks are the marks that the items show by themselves.
func snapshotMarks(s Snapshot) (marks []Mark) {
	for _, f := range s.Foreign {
		if f.EntityType != "" {
			marks = append(marks, Mark{Kind: MarkEntityType, Key: f.Key, Value: f.EntityType})
		}
	}
	for _, l := range s.Leases {
		if l.CheckpointOwner != "" {
			marks = append(marks, Mark{Kind: MarkCheckpointOwner, Key: l.Key, Value: l.CheckpointOwner})
		}
		if l.ThroughputKBps != nil {
			marks = append(marks, Mark{Kind: MarkThroughput, Key: l.Key, Value: fmt.Sprint(*l.ThroughputKBps)})
		}
	}
	return marks
}

func clientVersion(item map[string]types.AttributeValue) string {
	if v, ok := item["cv"].(*types.AttributeValueMemberS); ok {
		return v.Value
	}
	return ""
}
