package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
)

// ErrNoTable is returned when there is no lease table, and none may be made.
var ErrNoTable = errors.New("there is no such table")

// Creation says how a lease table is made where there is none. A table that is there is used as it is: whoever made it may
// have had his reasons, and a worker that alters tables at each start would fight the tool that keeps them.
type Creation struct {
	// Never leaves the making to others: a missing table is ErrNoTable.
	Never bool
	// ReadCapacity and WriteCapacity are capacity units per second of a provisioned table; both 0: on demand.
	ReadCapacity, WriteCapacity int64
	Tags                        map[string]string
	// DeletionProtection makes DynamoDB refuse to delete the table.
	DeletionProtection bool
	// PointInTimeRecovery has DynamoDB keep what is needed to restore the table to any second of the last 35 days.
	PointInTimeRecovery bool
}

// Created tells what EnsureExists has done.
type Created struct {
	// Table tells that the table was made.
	Table bool
	// Without are the parts of Creation that the table was made without, for want of permission or because the service does
	// not know them, each with its reason. They are worth a warning, no more: leases work without.
	Without []string
}

const (
	// tableWait is the pause between two looks at a table that is being created.
	tableWait = time.Second
	// backupTries is how often point-in-time recovery is asked for, tableWait apart: right after a table became active
	// DynamoDB is still preparing its backups.
	backupTries = 15
)

// EnsureExists creates the table if there is none, and waits until it can be used. Several workers may do so at once. A
// role that may not describe the table is no hindrance as long as the table is there, which the first read shows.
func (t *Table) EnsureExists(ctx context.Context, how Creation) (Created, error) {
	var done Created
	_, found, err := t.describe(ctx)
	switch {
	case isAccessDenied(err):
		return done, nil
	case err != nil:
		return done, err
	case !found && how.Never:
		return done, t.missing()
	case !found:
		if done, err = t.create(ctx, how); err != nil {
			return done, err
		}
	}
	if err := t.waitActive(ctx); err != nil {
		return done, err
	}
	if done.Table && how.PointInTimeRecovery {
		if err := t.switchOnBackups(ctx); err != nil {
			if ctx.Err() != nil {
				return done, err
			}
			done.Without = append(done.Without, "point-in-time recovery: "+err.Error())
		}
	}
	return done, nil
}

// Test tells whether EnsureExists has a chance, and whether a table that exists may be used; it makes nothing.
func (t *Table) Test(ctx context.Context, how Creation) error {
	d, found, err := t.describe(ctx)
	switch {
	case isAccessDenied(err):
		return nil
	case err != nil:
		return err
	case found:
		if err := t.checkSchema(d); err != nil {
			return err
		}
		return t.Probe(ctx)
	case how.Never:
		return t.missing()
	}
	return nil
}

func (t *Table) missing() error {
	return fmt.Errorf("lease table %s: %w, and it is not to be created (createTable: false); make it with the hash key %s of type S", t.name, ErrNoTable, attrKey)
}

// create makes the table, without its tags if those are what is not permitted.
func (t *Table) create(ctx context.Context, how Creation) (done Created, err error) {
	in := t.creation(how)
	_, err = t.api.CreateTable(ctx, in)
	if isAccessDenied(err) && in.Tags != nil {
		// Tags in the request take dynamodb:TagResource too, and the answer does not tell the two apart in any way that
		// one could rely on.
		denied := err
		in.Tags = nil
		if _, err = t.api.CreateTable(ctx, in); err == nil {
			done.Without = append(done.Without, "tags: "+denied.Error())
		}
	}
	var inUse *types.ResourceInUseException // another worker was quicker
	switch {
	case errors.As(err, &inUse):
		return Created{}, nil
	case isAccessDenied(err):
		return Created{}, fmt.Errorf("creating lease table %s: %w; permit dynamodb:CreateTable, or make the table with the hash key %s of type S", t.name, err, attrKey)
	case err != nil:
		return Created{}, fmt.Errorf("creating lease table %s (hash key %s of type S): %w", t.name, attrKey, err)
	}
	done.Table = true
	return done, nil
}

// creation is the request.
func (t *Table) creation(how Creation) *dynamodb.CreateTableInput {
	in := &dynamodb.CreateTableInput{
		TableName:            aws.String(t.name),
		BillingMode:          types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String(attrKey), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String(attrKey), KeyType: types.KeyTypeHash}},
	}
	if how.ReadCapacity > 0 || how.WriteCapacity > 0 {
		in.BillingMode = types.BillingModeProvisioned
		in.ProvisionedThroughput = &types.ProvisionedThroughput{ReadCapacityUnits: &how.ReadCapacity, WriteCapacityUnits: &how.WriteCapacity}
	}
	if how.DeletionProtection {
		in.DeletionProtectionEnabled = aws.Bool(true)
	}
	for _, key := range slices.Sorted(maps.Keys(how.Tags)) {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(key), Value: aws.String(how.Tags[key])})
	}
	return in
}

// waitActive waits until the table can be used.
func (t *Table) waitActive(ctx context.Context) error {
	for {
		// Just after its creation a table may not be shown yet, so an absent one is waited for too.
		d, found, err := t.describe(ctx)
		if err != nil {
			return err
		}
		if found {
			switch d.TableStatus {
			case types.TableStatusActive, types.TableStatusUpdating:
				return t.checkSchema(d)
			case types.TableStatusCreating:
			default:
				return fmt.Errorf("waiting for lease table %s: its status is %s", t.name, d.TableStatus)
			}
		}
		if err := sleep(ctx, tableWait); err != nil {
			return fmt.Errorf("waiting for lease table %s to become active: %w", t.name, err)
		}
	}
}

// switchOnBackups asks for point-in-time recovery, which no CreateTable can.
func (t *Table) switchOnBackups(ctx context.Context) error {
	for tries := 1; ; tries++ {
		_, err := t.api.UpdateContinuousBackups(ctx, &dynamodb.UpdateContinuousBackupsInput{
			TableName:                        aws.String(t.name),
			PointInTimeRecoverySpecification: &types.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: aws.Bool(true)},
		})
		var unavailable *types.ContinuousBackupsUnavailableException
		if !errors.As(err, &unavailable) || tries == backupTries {
			return err
		}
		if err := sleep(ctx, tableWait); err != nil {
			return fmt.Errorf("switching on point-in-time recovery of lease table %s: %w", t.name, err)
		}
	}
}

// IsAccessDenied tells whether DynamoDB has refused a request for want of permission.
func IsAccessDenied(err error) bool { return isAccessDenied(err) }

func isAccessDenied(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && api.ErrorCode() == "AccessDeniedException"
}
