package dynamotest

import (
	"encoding/json"
	"math/big"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"pgregory.net/rapid"
)

var fuzzItem = item{"k": &avS{Value: "k"}, "n": &avN{Value: "5"}, "l": &avL{Value: []types.AttributeValue{&avN{Value: "1"}, &avM{Value: item{"x": &avS{Value: "y"}}}}},
	"m": &avM{Value: item{"a": &avN{Value: "1"}}}, "ss": &avSS{Value: []string{"a"}}}

func encoded(t *testing.T, m item) string {
	text, err := json.Marshal(wireItem(m))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Whatever is sent as an expression is refused or works; it never panics and never changes the item it reads.
func FuzzExpressions(f *testing.F) {
	for _, seed := range []string{
		"n = :v AND NOT (l[0] < :v OR attribute_exists(m.a))", "SET n = if_not_exists(n, :v) + :v, l[9] = list_append(l, l) REMOVE m.a, l[1].x ADD ss :s DELETE ss :s",
		"k, #n, l[1].x", "((((n))))", "size(k) BETWEEN :v AND :v", "n IN (:v,:v)", "NOT NOT NOT", "l[99999999999999999999]", "a.b.c.d", "SET a=:v,b=:s", "\x00", "é = :v",
	} {
		f.Add(seed)
	}
	before, err := json.Marshal(wireItem(fuzzItem))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		newScope := func() *scope {
			return newScope(map[string]string{"#n": "n"}, item{":v": &avN{Value: "1"}, ":s": &avSS{Value: []string{"a", "b"}}})
		}
		if c, err := parseCondition("ConditionExpression", text, newScope()); err == nil {
			c.holds(fuzzItem)
			c.holds(nil)
		}
		if u, err := parseUpdate(text, newScope()); err == nil {
			if after, err := u.apply(fuzzItem); err == nil {
				encoded(t, after)
				encoded(t, project(after, u.paths()))
			}
		}
		if paths, err := parseProjection(text, newScope()); err == nil {
			encoded(t, project(fuzzItem, paths))
		}
		if after := encoded(t, fuzzItem); after != string(before) {
			t.Fatalf("%q changed the item it read to %s", text, after)
		}
	})
}

// Whatever is sent as a body gets an answer.
func FuzzRequests(f *testing.F) {
	operations := []string{"PutItem", "GetItem", "UpdateItem", "DeleteItem", "Scan", "Query", "CreateTable", "UpdateTable", "DescribeTable", "ListTables", "TagResource", "Nonsense"}
	for i, seed := range []string{
		`{"TableName":"leases","Item":{"leaseKey":{"S":"a"},"n":{"N":"1e3"},"l":{"L":[{"NULL":true},{"B":"AA=="}]}}}`,
		`{"TableName":"leases","Key":{"leaseKey":{"S":"a"}},"ConsistentRead":true,"AttributesToGet":["n"]}`,
		`{"TableName":"leases","Key":{"leaseKey":{"S":"a"}},"UpdateExpression":"ADD n :n","ExpressionAttributeValues":{":n":{"N":"1"}},"ReturnValues":"ALL_NEW"}`,
		`{"TableName":"leases","Key":{"leaseKey":{"S":"a"}},"Expected":{"n":{"ComparisonOperator":"GT","AttributeValueList":[{"N":"0"}]}}}`,
		`{"TableName":"leases","Limit":1,"Segment":0,"TotalSegments":2,"ExclusiveStartKey":{"leaseKey":{"S":"a"}}}`,
		`{"TableName":"leases","KeyConditionExpression":"leaseKey = :k","ExpressionAttributeValues":{":k":{"S":"a"}}}`,
		`{"TableName":"other","KeySchema":[{"AttributeName":"k","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"k","AttributeType":"S"}],"BillingMode":"PAY_PER_REQUEST"}`,
		`{"TableName":"leases","GlobalSecondaryIndexUpdates":[{"Create":{"IndexName":"byX","KeySchema":[{"AttributeName":"leaseKey","KeyType":"HASH"}],"Projection":{"ProjectionType":"ALL"}}}]}`,
		`null`, `[]`, `{"TableName":7}`, `{`,
	} {
		f.Add(i, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, operation int, body []byte) {
		db := New()
		defer db.Close()
		db.serve(t.Context(), targetPrefix+"CreateTable", []byte(`{"TableName":"leases","KeySchema":[{"AttributeName":"leaseKey","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"leaseKey","AttributeType":"S"}],"BillingMode":"PAY_PER_REQUEST"}`))
		db.Put("leases", item{"leaseKey": &avS{Value: "a"}, "n": &avN{Value: "1"}})
		name := operations[(operation%len(operations)+len(operations))%len(operations)]
		r := db.serve(t.Context(), targetPrefix+name, body)
		if r.status == 500 || !json.Valid(r.body) {
			t.Fatalf("%s %s: %d %s", name, body, r.status, r.body)
		}
	})
}

// Decimals add, compare and print as rational numbers do.
func TestDecimalsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.StringMatching(`-?[0-9]{1,12}(\.[0-9]{1,8})?(e-?[0-9])?`)
		a, b := number.Draw(t, "a"), number.Draw(t, "b")
		x, errX := parseDecimal(a)
		y, errY := parseDecimal(b)
		if errX != nil || errY != nil {
			t.Fatal(errX, errY)
		}
		rational := func(s string) *big.Rat {
			r, ok := new(big.Rat).SetString(s)
			if !ok {
				t.Fatalf("%q is no number", s)
			}
			return r
		}
		rx, ry := rational(a), rational(b)
		if rational(x.String()).Cmp(rx) != 0 {
			t.Fatalf("%s prints as %s", a, x)
		}
		if x.cmp(y) != rx.Cmp(ry) {
			t.Fatalf("comparing %s and %s: %d", a, b, x.cmp(y))
		}
		sum, err := x.add(y, false)
		if err != nil || rational(sum.String()).Cmp(new(big.Rat).Add(rx, ry)) != 0 {
			t.Fatalf("%s + %s = %s (%v)", a, b, sum, err)
		}
		difference, err := sum.add(y, true)
		if err != nil || difference.String() != x.String() {
			t.Fatalf("%s + %s - %s = %s (%v)", a, b, b, difference, err)
		}
	})
}
