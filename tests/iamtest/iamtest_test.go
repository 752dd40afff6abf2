package iamtest

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

var names = Names{Stream: "orders", Table: "leases", Application: "app"}

func documented(t *testing.T, headings ...string) Policy {
	t.Helper()
	p, err := Documented(headings...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestThePageIsReadAsIAMReadsIt(t *testing.T) {
	polling, fanOut, optional, connector := documented(t, Polling), documented(t, FanOut), documented(t, Optional), documented(t, Connector)
	for _, c := range []struct {
		policy           Policy
		action, resource string
		want             bool
	}{
		{polling, "kinesis:GetRecords", "stream/orders", true},
		{polling, "kinesis:GetRecords", "stream/returns", false},
		{polling, "kinesis:PutRecord", "stream/orders", false},
		{polling, "kinesis:SubscribeToShard", "stream/orders/consumer/a:1", false},
		{polling, "dynamodb:Scan", "table/leases", true},
		{polling, "dynamodb:Scan", "table/leases2", false},
		{polling, "dynamodb:Query", "table/leases", false},
		{polling, "dynamodb:GetItem", "table/app-CoordinatorState", false},
		{optional, "dynamodb:GetItem", "table/app-CoordinatorState", true},
		{optional, "dynamodb:PutItem", "table/app-CoordinatorState", false},
		{fanOut, "kinesis:SubscribeToShard", "stream/orders/consumer/a:1", true},
		{fanOut, "kinesis:SubscribeToShard", "stream/orders", false},
		{fanOut, "kinesis:RegisterStreamConsumer", "stream/orders", true},
		{connector, "kinesis:SubscribeToShard", "stream/orders/consumer/a:1", true},
		{connector, "cloudwatch:PutMetricData", "", true},
		{connector, "dynamodb:UpdateContinuousBackups", "table/leases", false},
		{documented(t, Polling, FanOut), "kinesis:SubscribeToShard", "stream/orders/consumer/a:1", true},
	} {
		if got := c.policy.Allows(c.action, c.resource, names); got != c.want {
			t.Errorf("%s on %s: %t", c.action, c.resource, got)
		}
	}
	if !polling.Allows("dynamodb:Scan", "table/anything", Names{}) || polling.Allows("dynamodb:Scan", "table/any-CoordinatorState", Names{}) {
		t.Error("any name is any name, but not that of another table of an application")
	}
	if _, err := Documented("No such section"); err == nil {
		t.Error("a section that is not there")
	}
}

// What the tests of the whole pipeline rely on: a call off the list is noticed, by its action and by its resource.
func TestCallsOffTheListAreNoticedAndDenied(t *testing.T) {
	k, d := kinesistest.NewServer(), dynamotest.NewServer()
	defer k.Close()
	defer d.Close()
	if err := k.CreateStream("orders", 1); err != nil {
		t.Fatal(err)
	}
	polling := documented(t, Polling)
	calls := func() {
		_, _ = k.Client().DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String("orders")})
		_, _ = d.Client().CreateTable(t.Context(), &dynamodb.CreateTableInput{
			TableName: aws.String("leases"), BillingMode: types.BillingModePayPerRequest,
			AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("leaseKey"), AttributeType: types.ScalarAttributeTypeS}},
			KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("leaseKey"), KeyType: types.KeyTypeHash}},
		})
	}
	calls()
	if beyond := polling.Beyond(k, d.DB, names); len(beyond) > 0 {
		t.Fatalf("nothing is off the list: %q", beyond)
	}
	polling.Enforce(k, d.DB, names)
	calls()
	if _, err := k.Client().ListStreamConsumers(t.Context(), &kinesis.ListStreamConsumersInput{StreamARN: aws.String("arn:aws:kinesis:us-east-1:123456789012:stream/orders")}); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("ListStreamConsumers: %v", err)
	}
	if _, err := d.Client().Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String("other")}); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("Scan of another table: %v", err)
	}
	if _, err := d.Client().Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String("leases")}); err != nil {
		t.Errorf("Scan of the lease table: %v", err)
	}
	if beyond := polling.Beyond(k, d.DB, names); len(beyond) != 2 {
		t.Errorf("off the list: %q", beyond)
	}
}
