package dynamotest_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// behaviours is the table that the fake and DynamoDB Local are both held to.
var behaviours = []struct {
	name string
	run  func(t *testing.T, e *engine)
}{
	{"a created table is described with key, billing, ARN and time", func(t *testing.T, e *engine) {
		table := e.table(t)
		out, err := e.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &table})
		if err != nil {
			t.Fatal(err)
		}
		d := out.Table
		wantText(t, "key", fmt.Sprint(*d.KeySchema[0].AttributeName, " ", d.KeySchema[0].KeyType, " ", d.AttributeDefinitions[0].AttributeType), "leaseKey HASH S")
		wantText(t, "billing", string(d.BillingModeSummary.BillingMode), "PAY_PER_REQUEST")
		wantText(t, "status", string(d.TableStatus), "ACTIVE")
		if age := time.Since(*d.CreationDateTime); age < -time.Minute || age > time.Minute {
			t.Errorf("created at %v", *d.CreationDateTime)
		}
		if !strings.HasSuffix(*d.TableArn, ":table/"+table) {
			t.Errorf("ARN %s", *d.TableArn)
		}
	}},
	{"provisioned throughput is kept and required in that mode only", func(t *testing.T, e *engine) {
		provisioned := func(in *dynamodb.CreateTableInput) {
			in.BillingMode = types.BillingModeProvisioned
			in.ProvisionedThroughput = &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(10), WriteCapacityUnits: aws.Int64(9)}
		}
		table := e.table(t, provisioned)
		out, err := e.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &table})
		if err != nil {
			t.Fatal(err)
		}
		wantText(t, "throughput", fmt.Sprint(*out.Table.ProvisionedThroughput.ReadCapacityUnits, *out.Table.ProvisionedThroughput.WriteCapacityUnits), "10 9")
		in := leaseTable("table-never")
		in.BillingMode = types.BillingModeProvisioned
		_, err = e.CreateTable(t.Context(), in)
		wantCode(t, "without units", err, invalid)
		in.BillingMode = types.BillingModePayPerRequest
		in.ProvisionedThroughput = &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(10), WriteCapacityUnits: aws.Int64(9)}
		_, err = e.CreateTable(t.Context(), in)
		wantCode(t, "units on demand", err, e.orLocal(invalid, yes))
	}},
	{"a table can't be created twice", func(t *testing.T, e *engine) {
		_, err := e.CreateTable(t.Context(), leaseTable(e.table(t)))
		wantCode(t, "second create", err, "ResourceInUseException")
	}},
	{"a table's name and key must make sense", func(t *testing.T, e *engine) {
		for _, name := range []string{"ab", "My test application", strings.Repeat("x", 256)} {
			_, err := e.CreateTable(t.Context(), leaseTable(name))
			wantCode(t, name, err, invalid)
		}
		in := leaseTable("table-never")
		in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{AttributeName: aws.String("unused"), AttributeType: "S"})
		_, err := e.CreateTable(t.Context(), in)
		wantCode(t, "an attribute no key uses", err, invalid)
		in = leaseTable("table-never")
		in.KeySchema[0].AttributeName = aws.String("undefined")
		_, err = e.CreateTable(t.Context(), in)
		wantCode(t, "a key without definition", err, invalid)
	}},
	{"every call on an unknown table is ResourceNotFound", func(t *testing.T, e *engine) {
		unknown := aws.String("table-unknown")
		const want = "ResourceNotFoundException"
		_, err := e.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: unknown, Key: lease("a")})
		wantCode(t, "get", err, want)
		_, err = e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: unknown, Item: lease("a")})
		wantCode(t, "put", err, want)
		_, err = e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: unknown, Key: lease("a")})
		wantCode(t, "update", err, want)
		_, err = e.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: unknown, Key: lease("a")})
		wantCode(t, "delete", err, want)
		_, err = e.Scan(t.Context(), &dynamodb.ScanInput{TableName: unknown})
		wantCode(t, "scan", err, want)
		_, err = e.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: unknown})
		wantCode(t, "describe", err, want)
		_, err = e.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: unknown})
		wantCode(t, "delete table", err, want)
		_, err = e.UpdateTable(t.Context(), &dynamodb.UpdateTableInput{TableName: unknown, DeletionProtectionEnabled: aws.Bool(true)})
		wantCode(t, "update table", err, want)
	}},
	{"a deleted table is gone with its items", func(t *testing.T, e *engine) {
		table := e.table(t)
		e.put(t, table, lease("a"))
		if _, err := e.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: &table}); err != nil {
			t.Fatal(err)
		}
		if err := dynamodb.NewTableNotExistsWaiter(e.client).Wait(t.Context(), &dynamodb.DescribeTableInput{TableName: &table}, time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := e.CreateTable(t.Context(), leaseTable(table)); err != nil {
			t.Fatal(err)
		}
		wantText(t, "item", show(e.get(t, table, lease("a"))), "{}")
	}},
	{"deletion protection", func(t *testing.T, e *engine) {
		table := e.table(t, func(in *dynamodb.CreateTableInput) { in.DeletionProtectionEnabled = aws.Bool(true) })
		_, err := e.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: &table})
		wantCode(t, "protected", err, invalid)
		_, err = e.UpdateTable(t.Context(), &dynamodb.UpdateTableInput{TableName: &table, DeletionProtectionEnabled: aws.Bool(false)})
		wantCode(t, "unprotecting", err, yes)
		_, err = e.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: &table})
		wantCode(t, "unprotected", err, yes)
	}},
	{"ListTables pages", func(t *testing.T, e *engine) {
		mine := []string{e.table(t), e.table(t), e.table(t)}
		slices.Sort(mine)
		var seen []string
		pages := dynamodb.NewListTablesPaginator(e.client, &dynamodb.ListTablesInput{Limit: aws.Int32(1)})
		for pages.HasMorePages() {
			out, err := pages.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(out.TableNames) > 1 {
				t.Errorf("a page of %d", len(out.TableNames))
			}
			seen = append(seen, out.TableNames...)
		}
		seen = slices.DeleteFunc(seen, func(name string) bool { return !slices.Contains(mine, name) })
		wantText(t, "tables in order", fmt.Sprint(seen), fmt.Sprint(mine))
	}},
	{"backups and tags are unknown operations", func(t *testing.T, e *engine) {
		// DynamoDB Local's way, not AWS': the product must live with both; the fake has an option for AWS'.
		table := e.table(t)
		_, err := e.DescribeContinuousBackups(t.Context(), &dynamodb.DescribeContinuousBackupsInput{TableName: &table})
		wantCode(t, "describe", err, "UnknownOperationException")
		_, err = e.TagResource(t.Context(), &dynamodb.TagResourceInput{ResourceArn: aws.String("arn:aws:dynamodb:us-east-1:000000000000:table/" + table), Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}}})
		wantCode(t, "tag", err, "UnknownOperationException")
	}},

	{"an upsert is what an unconditional UpdateItem does", func(t *testing.T, e *engine) {
		table := e.table(t)
		_, err := e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("a"), UpdateExpression: aws.String("SET n = :n"), ExpressionAttributeValues: item{":n": n(1)}})
		wantCode(t, "update", err, yes)
		wantText(t, "item", show(e.get(t, table, lease("a"))), `{leaseKey:"a" n:1}`)
		_, err = e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("b")})
		wantCode(t, "update without an expression", err, yes)
		wantText(t, "item", show(e.get(t, table, lease("b"))), `{leaseKey:"b"}`)
		_, err = e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("c"), UpdateExpression: aws.String("REMOVE n")})
		wantCode(t, "removing from nothing", err, yes)
		wantText(t, "item", show(e.get(t, table, lease("c"))), `{leaseKey:"c"}`)
	}},
	{"ReturnValues of UpdateItem", func(t *testing.T, e *engine) {
		table := e.table(t)
		for _, row := range []struct {
			want types.ReturnValue
			text string
		}{
			{"", "{}"}, {"NONE", "{}"},
			{"ALL_OLD", `{a:1 leaseKey:"k" m:{x:1 y:2} r:"r" z:0}`}, {"ALL_NEW", `{a:2 b:3 leaseKey:"k" m:{x:9 y:2} z:0}`},
			// DynamoDB Local gives the whole top-level attribute around an updated path.
			{"UPDATED_OLD", e.orLocal(`{a:1 m:{x:1} r:"r"}`, `{a:1 m:{x:1 y:2} r:"r"}`)},
			{"UPDATED_NEW", e.orLocal(`{a:2 b:3 m:{x:9}}`, `{a:2 b:3 m:{x:9 y:2}}`)},
		} {
			e.put(t, table, item{"leaseKey": s("k"), "a": n(1), "r": s("r"), "z": n(0), "m": dict(item{"x": n(1), "y": n(2)})})
			out, err := e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("k"), ReturnValues: row.want,
				UpdateExpression: aws.String("SET b = :b, m.x = :x REMOVE r ADD a :one"), ExpressionAttributeValues: item{":b": n(3), ":one": n(1), ":x": n(9)}})
			if err != nil {
				t.Fatal(err)
			}
			wantText(t, string(row.want), show(out.Attributes), row.text)
		}
		out, err := e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("fresh"), ReturnValues: "ALL_OLD"})
		if err != nil || out.Attributes != nil {
			t.Errorf("ALL_OLD of nothing: %v, %v", out, err)
		}
	}},
	{"ReturnValues of PutItem and DeleteItem", func(t *testing.T, e *engine) {
		table := e.table(t)
		out, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: lease("k"), ReturnValues: "ALL_OLD"})
		if err != nil || out.Attributes != nil {
			t.Errorf("first put: %v, %v", out, err)
		}
		out, err = e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item{"leaseKey": s("k"), "n": n(1)}, ReturnValues: "ALL_OLD"})
		if err != nil {
			t.Fatal(err)
		}
		wantText(t, "second put", show(out.Attributes), `{leaseKey:"k"}`)
		_, err = e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: lease("k"), ReturnValues: "ALL_NEW"})
		wantCode(t, "ALL_NEW of a put", err, invalid)
		deleted, err := e.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &table, Key: lease("k"), ReturnValues: "ALL_OLD"})
		if err != nil {
			t.Fatal(err)
		}
		wantText(t, "delete", show(deleted.Attributes), `{leaseKey:"k" n:1}`)
		deleted, err = e.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &table, Key: lease("k"), ReturnValues: "ALL_OLD"})
		if err != nil || deleted.Attributes != nil {
			t.Errorf("deleting nothing: %v, %v", deleted, err)
		}
	}},
	{"a failed condition returns the item when asked", func(t *testing.T, e *engine) {
		table := e.table(t)
		e.put(t, table, item{"leaseKey": s("k"), "n": n(1)})
		const never = "attribute_not_exists(leaseKey)"
		all := types.ReturnValuesOnConditionCheckFailureAllOld
		_, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: lease("k"), ConditionExpression: aws.String(never), ReturnValuesOnConditionCheckFailure: all})
		wantCode(t, "put", err, no)
		wantText(t, "put", show(oldItem(err)), `{leaseKey:"k" n:1}`)
		_, err = e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("k"), UpdateExpression: aws.String("REMOVE n"), ConditionExpression: aws.String(never), ReturnValuesOnConditionCheckFailure: all})
		wantText(t, "update", show(oldItem(err)), `{leaseKey:"k" n:1}`)
		_, err = e.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &table, Key: lease("k"), ConditionExpression: aws.String(never), ReturnValuesOnConditionCheckFailure: all})
		wantText(t, "delete", show(oldItem(err)), `{leaseKey:"k" n:1}`)
		_, err = e.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &table, Key: lease("k"), ConditionExpression: aws.String(never)})
		if wantCode(t, "not asked", err, no); oldItem(err) != nil {
			t.Errorf("an item nobody asked for: %s", show(oldItem(err)))
		}
		_, err = e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("missing"), UpdateExpression: aws.String("REMOVE n"), ConditionExpression: aws.String("attribute_exists(leaseKey)"), ReturnValuesOnConditionCheckFailure: all})
		if wantCode(t, "nothing there", err, no); oldItem(err) != nil {
			t.Errorf("an item where none is: %s", show(oldItem(err)))
		}
		wantText(t, "no trace of the failed update", show(e.get(t, table, lease("missing"))), "{}")
	}},
	{"keys are checked", func(t *testing.T, e *engine) {
		table := e.table(t)
		for what, it := range map[string]item{
			"empty": lease(""), "no key": {"n": n(1)}, "number as key": {"leaseKey": n(1)}, "long": lease(strings.Repeat("x", 2049)),
		} {
			_, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: it})
			wantCode(t, "put: "+what, err, invalid)
		}
		for what, key := range map[string]item{
			"empty": lease(""), "none": {}, "number": {"leaseKey": n(1)}, "other": {"other": s("a")}, "too much": {"leaseKey": s("a"), "n": n(1)},
		} {
			_, err := e.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: key})
			wantCode(t, "get: "+what, err, invalid)
			_, err = e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: key})
			wantCode(t, "update: "+what, err, invalid)
			_, err = e.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &table, Key: key})
			wantCode(t, "delete: "+what, err, invalid)
		}
		_, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: lease(strings.Repeat("x", 2048))})
		wantCode(t, "longest key", err, yes)
	}},
	{"values come back as they were, numbers in plain form", func(t *testing.T, e *engine) {
		table := e.table(t)
		e.put(t, table, item{"leaseKey": s("k"),
			"numbers": list(n("1.0"), n("-0"), n("1e3"), n("12.50e-3"), n("+7"), n("007"), n("99999999999999999999999999999999999999"), n("1E-130"), n(".5")),
			"set":     ns("1.0", "2e1"), "bytes": b(0, 255), "byteset": &types.AttributeValueMemberBS{Value: [][]byte{{1}, {2}}},
			"nobytes": b([]byte{}...), "top": n("12.50e-3"), "blank": s(""), "unicode": s("schön 🙂"), "nested": dict(item{"l": list(null(), boolean(false), list(), dict(item{}))}),
		})
		// DynamoDB Local leaves numbers inside lists as they were sent.
		numbers := e.orLocal("[1 0 1000 0.0125 7 7 99999999999999999999999999999999999999 0."+strings.Repeat("0", 129)+"1 0.5]",
			"[1.0 -0 1e3 12.50e-3 +7 007 99999999999999999999999999999999999999 1E-130 .5]")
		wantText(t, "item", show(e.get(t, table, lease("k"))), `{blank:"" bytes:00ff byteset:BS[01 02] leaseKey:"k" `+
			`nested:{l:[null false [] {}]} nobytes: numbers:`+numbers+` set:NS[1 20] top:0.0125 unicode:"schön 🙂"}`)
	}},
	{"values that are none are refused", func(t *testing.T, e *engine) {
		table := e.table(t)
		for what, v := range map[string]types.AttributeValue{
			"word as number": n("abc"), "empty number": n(""), "39 digits": n(strings.Repeat("9", 39)), "too large": n("1e126"), "too small": n("1e-131"),
			"infinity": n("Infinity"), "hex": n("0x10"), "spaced number": n(" 1"),
			"empty string set": ss(), "duplicate strings": ss("a", "a"), "duplicate numbers": ns("1", "1.0"), "empty number set": ns(),
			"duplicate bytes": &types.AttributeValueMemberBS{Value: [][]byte{{1}, {1}}},
			"nil bytes":       b(), "false null": &types.AttributeValueMemberNULL{Value: false},
		} {
			_, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item{"leaseKey": s("k"), "v": v}})
			wantCode(t, what, err, invalid)
		}
		deep := s("x")
		for range 32 {
			deep = list(deep)
		}
		_, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item{"leaseKey": s("k"), "v": deep}})
		wantCode(t, "32 lists around a string", err, invalid)
		_, err = e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item{"leaseKey": s("k"), "v": deep.(*types.AttributeValueMemberL).Value[0]}})
		wantCode(t, "31 lists around a string", err, yes)
	}},
	{"an item has at most 400 KB, names included", func(t *testing.T, e *engine) {
		table := e.table(t)
		room := 400<<10 - len("leaseKey") - len("k") - len("p")
		_, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item{"leaseKey": s("k"), "p": s(strings.Repeat("x", room))}})
		wantCode(t, "largest", err, yes)
		_, err = e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item{"leaseKey": s("k"), "p": s(strings.Repeat("x", room+1))}})
		wantCode(t, "a byte more", err, invalid)
		_, err = e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("k"), UpdateExpression: aws.String("SET q = :q"), ExpressionAttributeValues: item{":q": s("")}})
		wantCode(t, "an update beyond it", err, invalid)
	}},
	{"arithmetic beyond 38 digits is refused", func(t *testing.T, e *engine) {
		table := e.table(t)
		e.put(t, table, item{"leaseKey": s("k"), "n": n(strings.Repeat("9", 38))})
		add := func(v string) error {
			_, err := e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("k"), UpdateExpression: aws.String("ADD n :v"), ExpressionAttributeValues: item{":v": n(v)}})
			return err
		}
		wantCode(t, "0.5 more", add("0.5"), invalid)
		wantCode(t, "1 more", add("1"), yes)
		wantText(t, "sum", showValue(e.get(t, table, lease("k"))["n"]), "1"+strings.Repeat("0", 38))
	}},
	{"GetItem projects", func(t *testing.T, e *engine) {
		table := e.table(t)
		e.put(t, table, sampleItem)
		for expression, want := range map[string]string{
			"leaseKey, n": `{leaseKey:"k" n:5}`, "m.#a.b": "{m:{a:{b:7}}}", "l[2].deep, l[0]": `{l:["x" {deep:"d"}]}`,
			"absent": "{}", "#dot, nul": `{nul:null with.dot:"x"}`,
		} {
			names, _ := references(expression)
			out, err := e.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: lease("k"), ProjectionExpression: &expression, ExpressionAttributeNames: names, ConsistentRead: aws.Bool(true)})
			if err != nil {
				t.Fatal(err)
			}
			wantText(t, expression, show(out.Item), want)
			if out.Item == nil {
				t.Errorf("%s: the item is there, if empty", expression)
			}
		}
		for _, expression := range []string{"n, n", "m, m.a", "status", "n,", "", ":x"} {
			_, err := e.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: lease("k"), ProjectionExpression: &expression})
			wantCode(t, expression, err, invalid)
		}
		out, err := e.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: lease("nothing"), ProjectionExpression: aws.String("n")})
		if err != nil || out.Item != nil {
			t.Errorf("no item: %v, %v", out, err)
		}
	}},
	{"consumed capacity: writes by 1 KB, reads by 4 KB, half when eventually consistent", func(t *testing.T, e *engine) {
		table := e.table(t)
		total := types.ReturnConsumedCapacityTotal
		out, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item{"leaseKey": s("k"), "p": s(strings.Repeat("x", 5000))}, ReturnConsumedCapacity: total})
		if err != nil {
			t.Fatal(err)
		}
		wantText(t, "5 KB put", fmt.Sprint(*out.ConsumedCapacity.CapacityUnits), "5")
		shrunk, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item{"leaseKey": s("k"), "p": s(strings.Repeat("x", 4200))}, ReturnConsumedCapacity: total})
		if err != nil {
			t.Fatal(err)
		}
		wantText(t, "smaller put pays for the larger", fmt.Sprint(*shrunk.ConsumedCapacity.CapacityUnits), "5")
		for consistent, want := range map[bool]string{true: "2", false: "1"} {
			got, err := e.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: lease("k"), ConsistentRead: &consistent, ReturnConsumedCapacity: total})
			if err != nil {
				t.Fatal(err)
			}
			wantText(t, fmt.Sprint("get, consistent: ", consistent), fmt.Sprint(*got.ConsumedCapacity.CapacityUnits), want)
		}
		none, err := e.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: lease("nothing"), ReturnConsumedCapacity: total})
		if err != nil {
			t.Fatal(err)
		}
		wantText(t, "get of nothing", fmt.Sprint(*none.ConsumedCapacity.CapacityUnits), "0.5")
	}},
	{"32 writers on one counter: one winner each round", func(t *testing.T, e *engine) {
		table := e.table(t)
		e.put(t, table, item{"leaseKey": s("k"), "n": n(0)})
		for round := range 10 {
			var winners atomic.Int32
			var wg sync.WaitGroup
			for worker := range 32 {
				wg.Go(func() {
					_, err := e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("k"),
						UpdateExpression: aws.String("SET n = :next, w = :w"), ConditionExpression: aws.String("n = :n"),
						ExpressionAttributeValues: item{":n": n(round), ":next": n(round + 1), ":w": n(worker)}})
					switch code(err) {
					case yes:
						winners.Add(1)
					case no:
					default:
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if winners.Load() != 1 {
				t.Errorf("round %d: %d winners", round, winners.Load())
			}
		}
	}},
}

func TestBehaviour(t *testing.T) {
	onEngines(t, func(t *testing.T, e *engine) {
		for _, row := range behaviours {
			t.Run(row.name, func(t *testing.T) { row.run(t, e) })
		}
	})
}
