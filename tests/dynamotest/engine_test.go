package dynamotest_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/wholebody"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

type item = map[string]types.AttributeValue

// An engine is something the behaviour rows run against.
type engine struct {
	client
	// local is set for DynamoDB Local; rows say where it differs from documented AWS, which the fake follows.
	local bool
}

// client is what tests use of *dynamodb.Client and *dynamotest.Direct.
type client interface {
	dynamodb.DescribeTableAPIClient
	dynamodb.ListTablesAPIClient
	dynamodb.QueryAPIClient
	dynamodb.ScanAPIClient
	CreateTable(context.Context, *dynamodb.CreateTableInput, ...func(*dynamodb.Options)) (*dynamodb.CreateTableOutput, error)
	UpdateTable(context.Context, *dynamodb.UpdateTableInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateTableOutput, error)
	DeleteTable(context.Context, *dynamodb.DeleteTableInput, ...func(*dynamodb.Options)) (*dynamodb.DeleteTableOutput, error)
	DescribeContinuousBackups(context.Context, *dynamodb.DescribeContinuousBackupsInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeContinuousBackupsOutput, error)
	UpdateContinuousBackups(context.Context, *dynamodb.UpdateContinuousBackupsInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateContinuousBackupsOutput, error)
	TagResource(context.Context, *dynamodb.TagResourceInput, ...func(*dynamodb.Options)) (*dynamodb.TagResourceOutput, error)
	UntagResource(context.Context, *dynamodb.UntagResourceInput, ...func(*dynamodb.Options)) (*dynamodb.UntagResourceOutput, error)
	ListTagsOfResource(context.Context, *dynamodb.ListTagsOfResourceInput, ...func(*dynamodb.Options)) (*dynamodb.ListTagsOfResourceOutput, error)
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	PutItem(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error)
	DeleteItem(context.Context, *dynamodb.DeleteItemInput, ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error)
}

// onEngines runs the test against the fake over HTTP, in process with the SDK and without, and DynamoDB Local where it can run.
// This is what keeps the fake from drifting away from the real one.
func onEngines(t *testing.T, test func(t *testing.T, e *engine)) {
	noRetry := func(o *dynamodb.Options) { o.Retryer = aws.NopRetryer{} }
	t.Run("http", func(t *testing.T) {
		server := dynamotest.NewServer()
		defer server.Close()
		test(t, &engine{client: server.Client(noRetry)})
	})
	t.Run("in process", func(t *testing.T) {
		db := dynamotest.New()
		defer db.Close()
		test(t, &engine{client: db.API(noRetry)})
	})
	t.Run("direct", func(t *testing.T) {
		db := dynamotest.New()
		defer db.Close()
		test(t, &engine{client: db.Direct(nil)})
	})
	t.Run("DynamoDB Local", func(t *testing.T) {
		local := stack.SharedDynamoDB(t)
		transport := newTransport()
		defer transport.CloseIdleConnections()
		client := local.Client()
		options := client.Options()
		options.HTTPClient = httpClient(transport)
		test(t, &engine{client: dynamodb.New(options, noRetry), local: true})
	})
}

func newTransport() *http.Transport { return &http.Transport{MaxIdleConnsPerHost: 32} }

func httpClient(t *http.Transport) *http.Client {
	return &http.Client{Transport: wholebody.Transport(t)}
}

var tables atomic.Int64

// table creates a table with the key leaseKey (S) and, of what mod changes, whatever else.
func (e *engine) table(t *testing.T, mod ...func(*dynamodb.CreateTableInput)) string {
	t.Helper()
	in := leaseTable(fmt.Sprintf("table-%d", tables.Add(1)))
	for _, m := range mod {
		m(in)
	}
	if _, err := e.CreateTable(t.Context(), in); err != nil {
		t.Fatalf("creating a table: %v", err)
	}
	t.Cleanup(func() {
		// t.Context() has ended by now.
		_, _ = e.DeleteTable(context.Background(), &dynamodb.DeleteTableInput{TableName: in.TableName})
	})
	return *in.TableName
}

func (e *engine) put(t *testing.T, table string, it item) {
	t.Helper()
	if _, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: it}); err != nil {
		t.Fatalf("putting %s: %v", show(it), err)
	}
}

func (e *engine) get(t *testing.T, table string, key item) item {
	t.Helper()
	out, err := e.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: key, ConsistentRead: aws.Bool(true)})
	if err != nil {
		t.Fatalf("getting %s: %v", show(key), err)
	}
	return out.Item
}

func leaseTable(name string) *dynamodb.CreateTableInput {
	return &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("leaseKey"), AttributeType: "S"}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("leaseKey"), KeyType: "HASH"}},
	}
}

func s(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }

// n takes an int or a number's text.
func n(v any) types.AttributeValue { return &types.AttributeValueMemberN{Value: fmt.Sprint(v)} }
func b(v ...byte) types.AttributeValue {
	return &types.AttributeValueMemberB{Value: v}
}
func ss(v ...string) types.AttributeValue { return &types.AttributeValueMemberSS{Value: v} }
func ns(v ...string) types.AttributeValue { return &types.AttributeValueMemberNS{Value: v} }
func list(v ...types.AttributeValue) types.AttributeValue {
	return &types.AttributeValueMemberL{Value: v}
}
func dict(v item) types.AttributeValue    { return &types.AttributeValueMemberM{Value: v} }
func boolean(v bool) types.AttributeValue { return &types.AttributeValueMemberBOOL{Value: v} }
func null() types.AttributeValue          { return &types.AttributeValueMemberNULL{Value: true} }
func lease(key string) item               { return item{"leaseKey": s(key)} }
func with(it item, more item) (merged item) {
	merged = maps.Clone(it)
	maps.Copy(merged, more)
	return merged
}

// show prints an item in one canonical line, so that outcomes compare as text.
func show(it item) string {
	parts := []string{}
	for _, name := range slices.Sorted(maps.Keys(it)) {
		parts = append(parts, name+":"+showValue(it[name]))
	}
	return "{" + strings.Join(parts, " ") + "}"
}

func showValue(v types.AttributeValue) string {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return fmt.Sprintf("%q", v.Value)
	case *types.AttributeValueMemberN:
		return v.Value
	case *types.AttributeValueMemberB:
		return fmt.Sprintf("%x", v.Value)
	case *types.AttributeValueMemberBOOL:
		return fmt.Sprint(v.Value)
	case *types.AttributeValueMemberNULL:
		return "null"
	case *types.AttributeValueMemberSS:
		return fmt.Sprintf("SS%q", slices.Sorted(slices.Values(v.Value)))
	case *types.AttributeValueMemberNS:
		return fmt.Sprintf("NS%v", slices.Sorted(slices.Values(v.Value)))
	case *types.AttributeValueMemberBS:
		return fmt.Sprintf("BS%x", slices.SortedFunc(slices.Values(v.Value), slices.Compare))
	case *types.AttributeValueMemberL:
		parts := make([]string, len(v.Value))
		for i, e := range v.Value {
			parts[i] = showValue(e)
		}
		return "[" + strings.Join(parts, " ") + "]"
	case *types.AttributeValueMemberM:
		return show(v.Value)
	}
	return "nil" // gone
}

// code is the API error's code; "ok" without an error.
func code(err error) string {
	if err == nil {
		return "ok"
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return err.Error()
}

func wantCode(t *testing.T, what string, err error, want string) {
	t.Helper()
	if got := code(err); got != want {
		t.Errorf("%s: got %s, want %s (%v)", what, got, want, err)
	}
}

// oldItem is the item that came with a failed condition.
func oldItem(err error) item {
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) {
		return failed.Item
	}
	return nil
}

func wantText(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// orLocal is the expectation on DynamoDB Local where it differs.
func (e *engine) orLocal(aws, local string) string {
	if e.local {
		return cmp.Or(local, aws)
	}
	return aws
}
