package dynamotest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

func TestInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := dynamotest.New(dynamotest.WithCreateDelay(5 * time.Second))
		defer db.Close()
		c := db.API()
		_, err := c.CreateTable(t.Context(), leaseTable("leases"))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := dynamodb.NewTableExistsWaiter(c).Wait(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("leases")}, time.Minute); err != nil {
			t.Fatal(err)
		}
		t.Log(time.Since(start))
		db.Inject(dynamotest.Fault{Operation: "PutItem", Kind: dynamotest.LoseAnswer})
		_, err = c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("leases"), Item: map[string]types.AttributeValue{"leaseKey": s("a"), "leaseCounter": n(1)}, ConditionExpression: aws.String("attribute_not_exists(leaseKey)"), ReturnValuesOnConditionCheckFailure: "ALL_OLD"})
		var failed *types.ConditionalCheckFailedException
		if !errors.As(err, &failed) || len(failed.Item) != 2 {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		db.Inject(dynamotest.Fault{Operation: "UpdateItem", Kind: dynamotest.Hang})
		_, err = c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: aws.String("leases"), Key: map[string]types.AttributeValue{"leaseKey": s("a")}, UpdateExpression: aws.String("SET leaseCounter = leaseCounter + :one"), ExpressionAttributeValues: map[string]types.AttributeValue{":one": n(1)}})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		out, err := c.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: aws.String("leases"), Key: map[string]types.AttributeValue{"leaseKey": s("a")}, UpdateExpression: aws.String("SET leaseCounter = leaseCounter + :one"), ExpressionAttributeValues: map[string]types.AttributeValue{":one": n(1)}, ReturnValues: "ALL_NEW"})
		if err != nil || out.Attributes["leaseCounter"].(*types.AttributeValueMemberN).Value != "2" {
			t.Fatal(err, out)
		}
		db.Stop()
		_, err = c.Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String("leases")})
		t.Log(err)
		if err == nil {
			t.Fatal("no error")
		}
		db.Restart()
		if o, err := c.Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String("leases")}); err != nil || len(o.Items) != 1 {
			t.Fatal(err)
		}
		t.Log(db.Counts())
	})
}

func TestServerRestart(t *testing.T) {
	srv := dynamotest.NewServer()
	defer srv.Close()
	c := srv.Client()
	if _, err := c.CreateTable(t.Context(), leaseTable("leases")); err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	if _, err := c.ListTables(t.Context(), &dynamodb.ListTablesInput{}); err == nil {
		t.Fatal("answered")
	}
	srv.Restart()
	if o, err := c.ListTables(t.Context(), &dynamodb.ListTablesInput{}); err != nil || len(o.TableNames) != 1 {
		t.Fatal(err)
	}
}
