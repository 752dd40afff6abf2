package dynamotest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// readAll follows LastEvaluatedKey and returns the keys in order and how many came on each page.
func (e *engine) readAll(t *testing.T, in *dynamodb.ScanInput) (keys []string, pages []int) {
	t.Helper()
	in.ConsistentRead = aws.Bool(true)
	for {
		out, err := e.Scan(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, int(out.ScannedCount))
		for _, it := range out.Items {
			keys = append(keys, it["leaseKey"].(*types.AttributeValueMemberS).Value)
		}
		if out.LastEvaluatedKey == nil {
			return keys, pages
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

func TestScan(t *testing.T) {
	onEngines(t, func(t *testing.T, e *engine) {
		table := e.table(t)
		var all []string
		for i := range 24 {
			key := fmt.Sprintf("shard-%02d", i)
			all = append(all, key)
			e.put(t, table, item{"leaseKey": s(key), "i": n(i), "p": s(strings.Repeat("x", 100<<10))})
		}
		once := func(what string, keys []string) {
			t.Helper()
			wantText(t, what+": every key once", fmt.Sprint(slices.Sorted(slices.Values(keys))), fmt.Sprint(all))
		}
		keys, pages := e.readAll(t, &dynamodb.ScanInput{TableName: &table})
		once("pages of 1 MB", keys)
		wantText(t, "pages of 1 MB", fmt.Sprint(pages), "[11 11 2]")
		if slices.IsSorted(keys) {
			t.Error("a scan in the order of keys: nobody may rely on it")
		}
		keys, pages = e.readAll(t, &dynamodb.ScanInput{TableName: &table, Limit: aws.Int32(8)})
		once("Limit 8", keys)
		wantText(t, "a full last page is followed by an empty one", fmt.Sprint(pages), "[8 8 8 0]")

		keys = nil
		for segment := range int32(4) {
			part, _ := e.readAll(t, &dynamodb.ScanInput{TableName: &table, Segment: &segment, TotalSegments: aws.Int32(4)})
			keys = append(keys, part...)
		}
		once("four segments", keys)

		// The start key need not exist any more.
		first, err := e.Scan(t.Context(), &dynamodb.ScanInput{TableName: &table, Limit: aws.Int32(5), ConsistentRead: aws.Bool(true)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &table, Key: first.LastEvaluatedKey}); err != nil {
			t.Fatal(err)
		}
		keys, _ = e.readAll(t, &dynamodb.ScanInput{TableName: &table, ExclusiveStartKey: first.LastEvaluatedKey})
		for _, it := range first.Items {
			keys = append(keys, it["leaseKey"].(*types.AttributeValueMemberS).Value)
		}
		once("from a key deleted meanwhile", keys)

		out, err := e.Scan(t.Context(), &dynamodb.ScanInput{TableName: &table, Limit: aws.Int32(10), FilterExpression: aws.String("i < :h"), ProjectionExpression: aws.String("i"), ExpressionAttributeValues: item{":h": n(0)}})
		if err != nil {
			t.Fatal(err)
		}
		wantText(t, "a page ends before the filter", fmt.Sprint(out.Count, out.ScannedCount, len(out.Items), out.LastEvaluatedKey != nil), "0 10 0 true")
		out, err = e.Scan(t.Context(), &dynamodb.ScanInput{TableName: &table, Limit: aws.Int32(3), Select: types.SelectCount})
		if err != nil {
			t.Fatal(err)
		}
		wantText(t, "COUNT", fmt.Sprint(out.Count, out.ScannedCount, len(out.Items)), "3 3 0")
		for what, in := range map[string]*dynamodb.ScanInput{
			"segment too high":    {Segment: aws.Int32(4), TotalSegments: aws.Int32(4)},
			"segment alone":       {Segment: aws.Int32(0)},
			"total alone":         {TotalSegments: aws.Int32(2)},
			"foreign start key":   {ExclusiveStartKey: item{"other": s("a")}},
			"mistyped start key":  {ExclusiveStartKey: item{"leaseKey": n(1)}},
			"unknown index":       {IndexName: aws.String("nosuch")},
			"limit of zero":       {Limit: aws.Int32(0)},
			"nothing of anything": {Select: types.SelectSpecificAttributes},
		} {
			in.TableName = &table
			_, err := e.Scan(t.Context(), in)
			wantCode(t, what, err, invalid)
		}
		empty := e.table(t)
		out, err = e.Scan(t.Context(), &dynamodb.ScanInput{TableName: &empty})
		if err != nil || out.Items == nil || len(out.Items) != 0 || out.LastEvaluatedKey != nil {
			t.Errorf("an empty table: %v, %v", out, err)
		}
	})
}

func TestQuery(t *testing.T) {
	onEngines(t, func(t *testing.T, e *engine) {
		byOwner := func(in *dynamodb.CreateTableInput) {
			in.AttributeDefinitions = append(in.AttributeDefinitions,
				types.AttributeDefinition{AttributeName: aws.String("leaseOwner"), AttributeType: "S"})
			in.GlobalSecondaryIndexes = []types.GlobalSecondaryIndex{{IndexName: aws.String("LeaseOwnerToLeaseKeyIndex"),
				KeySchema:  []types.KeySchemaElement{{AttributeName: aws.String("leaseOwner"), KeyType: "HASH"}, {AttributeName: aws.String("leaseKey"), KeyType: "RANGE"}},
				Projection: &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly}}}
		}
		table := e.table(t, byOwner)
		for i := range 10 {
			e.put(t, table, item{"leaseKey": s(fmt.Sprint("k", i)), "leaseOwner": s(fmt.Sprint("w", i%2)), "checkpoint": s("x")})
		}
		e.put(t, table, lease("unowned"))
		ask := func(owner string, mod func(*dynamodb.QueryInput)) (string, error) {
			in := &dynamodb.QueryInput{TableName: &table, IndexName: aws.String("LeaseOwnerToLeaseKeyIndex"),
				KeyConditionExpression: aws.String("leaseOwner = :o"), ExpressionAttributeValues: item{":o": s(owner)}}
			if mod != nil {
				mod(in)
			}
			var rows []string
			pages := dynamodb.NewQueryPaginator(e.client, in)
			for pages.HasMorePages() {
				out, err := pages.NextPage(t.Context())
				if err != nil {
					return "", err
				}
				for _, it := range out.Items {
					rows = append(rows, show(it))
				}
			}
			return strings.Join(rows, " "), nil
		}
		rows := func(owner string, mod func(*dynamodb.QueryInput)) string {
			t.Helper()
			text, err := ask(owner, mod)
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		const evens = `{leaseKey:"k0" leaseOwner:"w0"} {leaseKey:"k2" leaseOwner:"w0"} {leaseKey:"k4" leaseOwner:"w0"} {leaseKey:"k6" leaseOwner:"w0"} {leaseKey:"k8" leaseOwner:"w0"}`
		wantText(t, "keys only, in the order of the sort key", rows("w0", nil), evens)
		wantText(t, "in pages", rows("w0", func(in *dynamodb.QueryInput) { in.Limit = aws.Int32(2) }), evens)
		wantText(t, "backwards, above k4", rows("w0", func(in *dynamodb.QueryInput) {
			in.ScanIndexForward = aws.Bool(false)
			in.Limit = aws.Int32(1)
			in.KeyConditionExpression = aws.String("leaseOwner = :o AND leaseKey > :k")
			in.ExpressionAttributeValues[":k"] = s("k4")
		}), `{leaseKey:"k8" leaseOwner:"w0"} {leaseKey:"k6" leaseOwner:"w0"}`)
		if _, err := e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("k0"), UpdateExpression: aws.String("REMOVE leaseOwner")}); err != nil {
			t.Fatal(err)
		}
		wantText(t, "an item leaves the index with its key", rows("w0", nil), strings.TrimPrefix(evens, `{leaseKey:"k0" leaseOwner:"w0"} `))
		_, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item{"leaseKey": s("x"), "leaseOwner": n(1)}})
		wantCode(t, "a mistyped index key", err, invalid)
		_, err = e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item{"leaseKey": s("x"), "leaseOwner": s("")}})
		wantCode(t, "an empty index key", err, invalid)
		for what, mod := range map[string]func(*dynamodb.QueryInput){
			"unknown index":        func(in *dynamodb.QueryInput) { in.IndexName = aws.String("nosuch") },
			"consistent":           func(in *dynamodb.QueryInput) { in.ConsistentRead = aws.Bool(true) },
			"no hash key":          func(in *dynamodb.QueryInput) { in.KeyConditionExpression = aws.String("leaseKey = :o") },
			"a range of hash keys": func(in *dynamodb.QueryInput) { in.KeyConditionExpression = aws.String("leaseOwner > :o") },
			"another attribute": func(in *dynamodb.QueryInput) {
				in.KeyConditionExpression = aws.String("leaseOwner = :o AND checkpoint = :o")
			},
			"OR": func(in *dynamodb.QueryInput) {
				in.KeyConditionExpression = aws.String("leaseOwner = :o OR leaseKey = :o")
			},
			"nothing": func(in *dynamodb.QueryInput) { in.KeyConditionExpression, in.ExpressionAttributeValues = nil, nil },
		} {
			_, err := ask("w0", mod)
			wantCode(t, what, err, invalid)
		}
	})
}

func TestIndexByUpdateTable(t *testing.T) {
	onEngines(t, func(t *testing.T, e *engine) {
		table := e.table(t)
		for i := range 5 {
			e.put(t, table, item{"leaseKey": s(fmt.Sprint("k", i)), "leaseOwner": s("w")})
		}
		_, err := e.UpdateTable(t.Context(), &dynamodb.UpdateTableInput{TableName: &table,
			AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("leaseKey"), AttributeType: "S"}, {AttributeName: aws.String("leaseOwner"), AttributeType: "S"}},
			GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Create: &types.CreateGlobalSecondaryIndexAction{IndexName: aws.String("byOwner"),
				KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("leaseOwner"), KeyType: "HASH"}}, Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll}}}}})
		if err != nil {
			t.Fatal(err)
		}
		status := func() string {
			out, err := e.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &table})
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range out.Table.GlobalSecondaryIndexes {
				return string(x.IndexStatus)
			}
			return "none"
		}
		for deadline := time.Now().Add(time.Minute); status() != "ACTIVE"; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the index is %s", status())
			}
		}
		out, err := e.Query(t.Context(), &dynamodb.QueryInput{TableName: &table, IndexName: aws.String("byOwner"), KeyConditionExpression: aws.String("leaseOwner = :o"), ExpressionAttributeValues: item{":o": s("w")}})
		if err != nil || out.Count != 5 {
			t.Errorf("a new index has the items that were there: %v, %v", out, err)
		}
		_, err = e.UpdateTable(t.Context(), &dynamodb.UpdateTableInput{TableName: &table, GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Delete: &types.DeleteGlobalSecondaryIndexAction{IndexName: aws.String("byOwner")}}}})
		wantCode(t, "deleting the index", err, yes)
	})
}
