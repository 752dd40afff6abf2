package lease

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

func TestEnsureExistsWaitsForATableBeingCreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := dynamotest.New(dynamotest.WithCreateDelay(20 * sec))
		defer db.Close()
		table := NewTable(db.API(), tableName)
		if err := table.Test(t.Context(), Creation{}); err != nil {
			t.Errorf("Test: %v", err)
		}
		results := make(chan string, 3)
		for range 3 { // several workers start at once
			go func() {
				created, err := table.EnsureExists(t.Context(), Creation{})
				results <- fmt.Sprint(created.Table, err)
			}()
		}
		got := []string{<-results, <-results, <-results}
		if slices.Sort(got); !slices.Equal(got, []string{"false <nil>", "false <nil>", "true <nil>"}) {
			t.Errorf("got %v", got)
		}
		if d := time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)); d < 20*sec {
			t.Errorf("usable after %s", d)
		}
		if s, err := table.Scan(t.Context(), true); err != nil || len(s.Leases) != 0 {
			t.Errorf("Scan: %+v, %v", s, err)
		}
		if created, err := table.EnsureExists(t.Context(), Creation{}); created.Table || err != nil {
			t.Errorf("once more: %v, %v", created, err)
		}
	})
}

func TestATableWithAnotherKeyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := dynamotest.New()
		defer db.Close()
		api := db.API()
		if _, err := api.CreateTable(t.Context(), &dynamodb.CreateTableInput{
			TableName: aws.String(tableName), BillingMode: types.BillingModePayPerRequest,
			AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: types.ScalarAttributeTypeS}},
			KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: types.KeyTypeHash}},
		}); err != nil {
			t.Fatal(err)
		}
		table := NewTable(api, tableName)
		if _, err := table.EnsureExists(t.Context(), Creation{}); !errors.Is(err, ErrNotALeaseTable) || !strings.Contains(err.Error(), "use another applicationName") {
			t.Errorf("EnsureExists: %v", err)
		}
		if err := table.Test(t.Context(), Creation{}); !errors.Is(err, ErrNotALeaseTable) {
			t.Errorf("Test: %v", err)
		}
	})
}

// everything is a table with all that can be asked for.
var everything = Creation{
	ReadCapacity: 5, WriteCapacity: 7, Tags: map[string]string{"team": "orders", "cost": "42"}, DeletionProtection: true, PointInTimeRecovery: true,
}

func TestATableIsMadeAsItIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := dynamotest.New(dynamotest.WithBackupsAndTags(), dynamotest.WithCreateDelay(3*sec))
		defer db.Close()
		// DynamoDB prepares its backups for a while after the table became active.
		preparing := db.Inject(dynamotest.Fault{Operation: "UpdateContinuousBackups", Count: 3, Kind: dynamotest.BackupsUnavailable})
		api := db.API()
		if created, err := NewTable(api, tableName).EnsureExists(t.Context(), everything); err != nil || !created.Table || len(created.Without) > 0 {
			t.Fatalf("%+v, %v", created, err)
		}
		if preparing.Hits() != 3 {
			t.Errorf("asked %d times while the backups were being prepared", preparing.Hits())
		}
		d, err := api.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String(tableName)})
		if err != nil {
			t.Fatal(err)
		}
		if p := d.Table.ProvisionedThroughput; d.Table.BillingModeSummary != nil || aws.ToInt64(p.ReadCapacityUnits) != 5 || aws.ToInt64(p.WriteCapacityUnits) != 7 {
			t.Errorf("billing %+v, %+v", d.Table.BillingModeSummary, p)
		}
		if !aws.ToBool(d.Table.DeletionProtectionEnabled) {
			t.Error("not protected")
		}
		tags, err := api.ListTagsOfResource(t.Context(), &dynamodb.ListTagsOfResourceInput{ResourceArn: d.Table.TableArn})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, tag := range tags.Tags {
			got[*tag.Key] = *tag.Value
		}
		if !maps.Equal(got, everything.Tags) {
			t.Errorf("tags %v", got)
		}
		b, err := api.DescribeContinuousBackups(t.Context(), &dynamodb.DescribeContinuousBackupsInput{TableName: aws.String(tableName)})
		if err != nil || b.ContinuousBackupsDescription.PointInTimeRecoveryDescription.PointInTimeRecoveryStatus != types.PointInTimeRecoveryStatusEnabled {
			t.Errorf("point-in-time recovery: %+v, %v", b, err)
		}
	})
}

func TestByDefaultATableIsOnDemandAndNothingElseIsCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := dynamotest.New(dynamotest.WithBackupsAndTags())
		defer db.Close()
		api := db.API()
		if created, err := NewTable(api, tableName).EnsureExists(t.Context(), Creation{}); err != nil || !created.Table {
			t.Fatalf("%+v, %v", created, err)
		}
		d, err := api.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String(tableName)})
		if err != nil || d.Table.BillingModeSummary == nil || d.Table.BillingModeSummary.BillingMode != types.BillingModePayPerRequest || aws.ToBool(d.Table.DeletionProtectionEnabled) {
			t.Errorf("%+v, %v", d.Table, err)
		}
		called := slices.Sorted(maps.Keys(db.Counts()))
		if !slices.Equal(called, []string{"CreateTable", "DescribeTable"}) {
			t.Errorf("called %v", called)
		}
	})
}

func TestATableThatIsThereIsNotAltered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := dynamotest.New(dynamotest.WithBackupsAndTags())
		defer db.Close()
		table := NewTable(db.API(), tableName)
		if _, err := table.EnsureExists(t.Context(), Creation{}); err != nil {
			t.Fatal(err)
		}
		db.ResetCounts()
		if created, err := table.EnsureExists(t.Context(), everything); err != nil || created.Table || len(created.Without) > 0 {
			t.Fatalf("%+v, %v", created, err)
		}
		if called := slices.Sorted(maps.Keys(db.Counts())); !slices.Equal(called, []string{"DescribeTable"}) {
			t.Errorf("called %v", called)
		}
	})
}

func TestWhatIsNotPermittedOrNotKnownIsDoneWithout(t *testing.T) {
	tagged := func(r dynamotest.Request) bool { return bytes.Contains(r.Body, []byte(`"Tags"`)) }
	for _, c := range []struct {
		name   string
		faults []dynamotest.Fault
		want   []string // beginnings
		tags   bool
	}{
		{"neither", []dynamotest.Fault{
			{Operation: "CreateTable", When: tagged, Count: -1, Kind: dynamotest.AccessDenied},
			{Operation: "UpdateContinuousBackups", Count: -1, Kind: dynamotest.AccessDenied},
		}, []string{"tags: ", "point-in-time recovery: "}, false},
		{"an emulator without backups", []dynamotest.Fault{
			{Operation: "UpdateContinuousBackups", Count: -1, Kind: dynamotest.UnknownOperation},
		}, []string{"point-in-time recovery: "}, true},
		{"backups that never come", []dynamotest.Fault{
			{Operation: "UpdateContinuousBackups", Count: -1, Kind: dynamotest.BackupsUnavailable},
		}, []string{"point-in-time recovery: "}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := dynamotest.New(dynamotest.WithBackupsAndTags())
				defer db.Close()
				for _, f := range c.faults {
					db.Inject(f)
				}
				api := db.API()
				created, err := NewTable(api, tableName).EnsureExists(t.Context(), everything)
				if err != nil || !created.Table || len(created.Without) != len(c.want) {
					t.Fatalf("%+v, %v", created, err)
				}
				for i, want := range c.want {
					if !strings.HasPrefix(created.Without[i], want) {
						t.Errorf("%q, want %s", created.Without[i], want)
					}
				}
				d, err := api.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String(tableName)})
				if err != nil || !aws.ToBool(d.Table.DeletionProtectionEnabled) {
					t.Errorf("%+v, %v", d, err)
				}
			})
		})
	}
}

func TestAMissingTableThatMayNotBeMadeIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := dynamotest.New()
		defer db.Close()
		table := NewTable(db.API(), tableName)
		_, err := table.EnsureExists(t.Context(), Creation{Never: true})
		if !errors.Is(err, ErrNoTable) || !strings.Contains(err.Error(), tableName) || !strings.Contains(err.Error(), "leaseKey of type S") {
			t.Errorf("never: %v", err)
		}
		if err := table.Test(t.Context(), Creation{Never: true}); !errors.Is(err, ErrNoTable) {
			t.Errorf("Test: %v", err)
		}
		denied := db.Inject(dynamotest.Fault{Operation: "CreateTable", Count: -1, Kind: dynamotest.AccessDenied})
		_, err = table.EnsureExists(t.Context(), everything)
		if !IsAccessDenied(err) || !strings.Contains(err.Error(), "permit dynamodb:CreateTable") || !strings.Contains(err.Error(), "leaseKey of type S") {
			t.Errorf("denied: %v", err)
		}
		denied.Remove()
		if _, err := table.EnsureExists(t.Context(), Creation{}); err != nil {
			t.Fatal(err)
		}
		// There, and not to be described: the first read is what tells.
		db.Inject(dynamotest.Fault{Operation: "DescribeTable", Count: -1, Kind: dynamotest.AccessDenied})
		if created, err := table.EnsureExists(t.Context(), Creation{Never: true}); err != nil || created.Table {
			t.Errorf("not to be described: %+v, %v", created, err)
		}
	})
}
