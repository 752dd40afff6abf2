package dynamotest_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// held is a lease as worker A of ours holds it.
var held = item{
	"leaseKey": s("k"), "leaseOwner": s("A"), "leaseCounter": n(7), "checkpoint": s("100"), "checkpointSubSequenceNumber": n(0),
	"ownerSwitchesSinceCheckpoint": n(1), "kp_acq": s("A#1"), "kp_stream": s("stream@1"),
}

// leaseWrites are the writes of the coordination rules, each on the item it is meant for and on one it must fail on.
var leaseWrites = []struct {
	name              string
	update, condition string
	values            item
	given             item   // what held is changed by; a gone value removes the attribute
	want              string // "ok {difference}" or the error
}{
	{"KEEP (r2): a bare renewal", "SET leaseCounter=:next", "leaseCounter=:n AND leaseOwner=:me AND kp_acq=:acq",
		item{":n": n(7), ":next": n(8), ":me": s("A"), ":acq": s("A#1")}, nil, "ok {leaseCounter:8}"},
	{"KEEP (r2): with a checkpoint",
		"SET leaseCounter=:next, checkpoint=:c, checkpointSubSequenceNumber=:s, kp_n=:kn, kp_at=:at, ownerSwitchesSinceCheckpoint=:zero REMOVE pendingCheckpoint, pendingCheckpointSubSequenceNumber, pendingCheckpointState",
		"leaseCounter=:n AND leaseOwner=:me AND kp_acq=:acq",
		item{":n": n(7), ":next": n(8), ":me": s("A"), ":acq": s("A#1"), ":c": s("200"), ":s": n(3), ":kn": n(55), ":at": b(1, 2, 3, 4, 5, 6, 7, 8), ":zero": n(0)},
		item{"pendingCheckpoint": s("150")},
		`ok {checkpoint:"200" checkpointSubSequenceNumber:3 kp_at:0102030405060708 kp_n:55 leaseCounter:8 ownerSwitchesSinceCheckpoint:0 pendingCheckpoint:nil}`},
	{"KEEP (r2): stolen by a KCL worker", "SET leaseCounter=:next", "leaseCounter=:n AND leaseOwner=:me AND kp_acq=:acq",
		item{":n": n(7), ":next": n(8), ":me": s("A"), ":acq": s("A#1")}, item{"leaseOwner": s("B")}, no},
	{"KEEP (r2): the counter moved on", "SET leaseCounter=:next", "leaseCounter=:n AND leaseOwner=:me AND kp_acq=:acq",
		item{":n": n(7), ":next": n(8), ":me": s("A"), ":acq": s("A#1")}, item{"leaseCounter": n(8)}, no},
	{"KEEP (r2): never acquired by us", "SET leaseCounter=:next", "leaseCounter=:n AND leaseOwner=:me AND kp_acq=:acq",
		item{":n": n(7), ":next": n(8), ":me": s("A"), ":acq": s("A#1")}, item{"kp_acq": gone{}}, no},
	{"TAKE (r3.5): from another owner",
		"SET leaseOwner=:me, leaseCounter=:next, kp_acq=:acq, kp_fo=:fo, kp_stream=:mine, kp_start=if_not_exists(kp_start,:t) REMOVE checkpointOwner, kp_ask, kp_askAt ADD ownerSwitchesSinceCheckpoint :one",
		"leaseCounter=:n AND leaseOwner=:seen AND attribute_not_exists(checkpointOwner) AND (attribute_not_exists(kp_stream) OR kp_stream=:mine)",
		item{":me": s("B"), ":next": n(8), ":acq": s("B#2"), ":fo": n(10000), ":mine": s("stream@1"), ":t": n("1700000000000"), ":one": n(1), ":n": n(7), ":seen": s("A")},
		item{"kp_ask": s("C"), "kp_askAt": n(6)},
		`ok {kp_acq:"B#2" kp_ask:nil kp_askAt:nil kp_fo:10000 kp_start:1700000000000 leaseCounter:8 leaseOwner:"B" ownerSwitchesSinceCheckpoint:2}`},
	{"TAKE (r3.5): an anchor that is there stays", "SET leaseOwner=:me, leaseCounter=:next, kp_start=if_not_exists(kp_start,:t)", "leaseCounter=:n AND attribute_not_exists(leaseOwner)",
		item{":me": s("B"), ":next": n(8), ":t": n(2), ":n": n(7)}, item{"leaseOwner": gone{}, "kp_start": n(1)}, `ok {leaseCounter:8 leaseOwner:"B"}`},
	{"TAKE (r3.5): a leftover checkpointOwner (r3.7)", "SET leaseOwner=:me, leaseCounter=:next REMOVE checkpointOwner", "leaseCounter=:n AND attribute_not_exists(leaseOwner) AND checkpointOwner=:seen",
		item{":me": s("B"), ":next": n(8), ":n": n(7), ":seen": s("Z")}, item{"leaseOwner": gone{}, "checkpointOwner": s("Z")}, `ok {checkpointOwner:nil leaseCounter:8 leaseOwner:"B"}`},
	{"TAKE (r7): a row of another stream", "SET leaseOwner=:me", "leaseCounter=:n AND (attribute_not_exists(kp_stream) OR kp_stream=:mine)",
		item{":me": s("B"), ":n": n(7), ":mine": s("stream@2")}, nil, no},
	{"TAKE (r3.5): a row without brand", "SET leaseOwner=:me, kp_stream=:mine", "leaseCounter=:n AND (attribute_not_exists(kp_stream) OR kp_stream=:mine)",
		item{":me": s("B"), ":n": n(7), ":mine": s("stream@2")}, item{"kp_stream": gone{}}, `ok {kp_stream:"stream@2" leaseOwner:"B"}`},
	{"ASK (r4.1)", "SET kp_ask=:B, kp_askAt=:n", "leaseCounter=:n AND leaseOwner=:A AND kp_acq=:seen AND (attribute_not_exists(kp_ask) OR kp_askAt < :old)",
		item{":B": s("B"), ":n": n(7), ":A": s("A"), ":seen": s("A#1"), ":old": n(1)}, nil, `ok {kp_ask:"B" kp_askAt:7}`},
	{"ASK (r4.1): over an old ask", "SET kp_ask=:B, kp_askAt=:n", "leaseCounter=:n AND (attribute_not_exists(kp_ask) OR kp_askAt < :old)",
		item{":B": s("B"), ":n": n(7), ":old": n(1)}, item{"kp_ask": s("C"), "kp_askAt": n(0)}, `ok {kp_ask:"B" kp_askAt:7}`},
	{"ASK (r4.1): a young ask stands", "SET kp_ask=:B, kp_askAt=:n", "leaseCounter=:n AND (attribute_not_exists(kp_ask) OR kp_askAt < :old)",
		item{":B": s("B"), ":n": n(7), ":old": n(1)}, item{"kp_ask": s("C"), "kp_askAt": n(5)}, no},
	{"GIVE (r4.4)", "SET leaseOwner=:B, leaseCounter=:next, kp_acq=:new, ownerSwitchesSinceCheckpoint=:one, checkpoint=:c REMOVE kp_ask, kp_askAt",
		"leaseCounter=:n AND leaseOwner=:me AND kp_acq=:acq AND kp_ask=:B",
		item{":B": s("B"), ":next": n(8), ":new": s("B#new"), ":one": n(1), ":c": s("300"), ":n": n(7), ":me": s("A"), ":acq": s("A#1")},
		item{"kp_ask": s("B"), "kp_askAt": n(6)}, `ok {checkpoint:"300" kp_acq:"B#new" kp_ask:nil kp_askAt:nil leaseCounter:8 leaseOwner:"B"}`},
	{"withdrawing an ask (r4.5)", "REMOVE kp_ask, kp_askAt", "kp_ask=:B AND leaseOwner=:A",
		item{":B": s("B"), ":A": s("A")}, item{"kp_ask": s("B"), "kp_askAt": n(6)}, "ok {kp_ask:nil kp_askAt:nil}"},
	{"RELEASE (r4.7)", "SET leaseCounter=:next REMOVE leaseOwner, kp_acq", "leaseCounter=:n AND leaseOwner=:me AND kp_acq=:acq",
		item{":n": n(7), ":next": n(8), ":me": s("A"), ":acq": s("A#1")}, nil, "ok {kp_acq:nil leaseCounter:8 leaseOwner:nil}"},
	{"lowering an anchor (r5.3)", "SET kp_start=:min", "kp_start > :min", item{":min": n("1699999999999")}, item{"kp_start": n("1700000000000")}, "ok {kp_start:1699999999999}"},
	{"lowering an anchor (r5.3): already lower", "SET kp_start=:min", "kp_start > :min", item{":min": n("1699999999999")}, item{"kp_start": n(5)}, no},
	{"anchoring a KCL lease at LATEST (r5.5)", "SET kp_start=if_not_exists(kp_start,:now)", "checkpoint=:latest AND attribute_exists(leaseCounter)",
		item{":now": n(9), ":latest": s("LATEST")}, item{"checkpoint": s("LATEST")}, "ok {kp_start:9}"},
	{"children on the parent (r6.1)", "SET childShardIds=:c", "attribute_exists(leaseCounter)", item{":c": ss("c2", "c1")}, nil, `ok {childShardIds:SS["c1" "c2"]}`},
	{"KCL 3.x initiating a hand-over", "SET leaseOwner=:B, checkpointOwner=:A", "attribute_exists(leaseKey) AND leaseOwner=:A AND attribute_not_exists(checkpointOwner)",
		item{":A": s("A"), ":B": s("B")}, nil, `ok {checkpointOwner:"A" leaseOwner:"B"}`},
	{"KCL 3.x assigning", "SET leaseOwner=:B REMOVE checkpointOwner ADD leaseCounter :one, ownerSwitchesSinceCheckpoint :one", "attribute_exists(leaseKey) AND leaseOwner=:A AND attribute_not_exists(checkpointOwner)",
		item{":A": s("A"), ":B": s("B"), ":one": n(1)}, nil, `ok {leaseCounter:8 leaseOwner:"B" ownerSwitchesSinceCheckpoint:2}`},
}

func TestLeaseWrites(t *testing.T) {
	onEngines(t, func(t *testing.T, e *engine) {
		table := e.table(t)
		for _, row := range leaseWrites {
			given := with(held, row.given)
			for name, v := range given {
				if _, ok := v.(gone); ok {
					delete(given, name)
				}
			}
			e.put(t, table, given)
			write := func(key string) (*dynamodb.UpdateItemOutput, error) {
				return e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease(key),
					UpdateExpression: &row.update, ConditionExpression: &row.condition, ExpressionAttributeValues: row.values,
					ReturnValues: "ALL_NEW", ReturnValuesOnConditionCheckFailure: "ALL_OLD"})
			}
			out, err := write("k")
			got := code(err)
			if err == nil {
				got += " " + difference(given, out.Attributes)
			} else {
				wantText(t, row.name+": the item that stood against it", show(oldItem(err)), show(given))
			}
			if got != row.want {
				t.Errorf("%s:\n got %s\nwant %s (%v)", row.name, got, row.want, err)
			}
			// r1.1: no such write may create an item.
			_, err = write("missing")
			wantCode(t, row.name+": on a missing item", err, no)
			wantText(t, row.name+": on a missing item", show(e.get(t, table, lease("missing"))), "{}")
		}
	})
}

func TestLeaseCreationAndRemoval(t *testing.T) {
	onEngines(t, func(t *testing.T, e *engine) {
		table := e.table(t)
		create := func() error {
			_, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: held, ConditionExpression: aws.String("attribute_not_exists(leaseKey)")})
			return err
		}
		wantCode(t, "first create (r1.2)", create(), yes)
		wantCode(t, "second create", create(), no)
		remove := func(checkpoint string, counter int) error {
			_, err := e.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &table, Key: lease("k"),
				ConditionExpression: aws.String("checkpoint=:c AND leaseCounter=:n"), ExpressionAttributeValues: item{":c": s(checkpoint), ":n": n(counter)}})
			return err
		}
		wantCode(t, "cleanup of an open shard (r6.6)", remove("SHARD_END", 7), no)
		wantCode(t, "cleanup on another counter", remove("100", 8), no)
		wantCode(t, "cleanup", remove("100", 7), yes)
		wantCode(t, "cleanup of nothing", remove("100", 7), no)
	})
}

// The Kinesis Client Library writes leases with the parameters from before expressions.
func TestLegacyParameters(t *testing.T) {
	onEngines(t, func(t *testing.T, e *engine) {
		table := e.table(t)
		exists := func(v types.AttributeValue) types.ExpectedAttributeValue {
			return types.ExpectedAttributeValue{Value: v}
		}
		absent := types.ExpectedAttributeValue{Exists: aws.Bool(false)}
		put := func(v types.AttributeValue) types.AttributeValueUpdate {
			return types.AttributeValueUpdate{Value: v, Action: "PUT"}
		}
		_, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: held, Expected: map[string]types.ExpectedAttributeValue{"leaseKey": absent}})
		wantCode(t, "create", err, yes)
		_, err = e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: held, Expected: map[string]types.ExpectedAttributeValue{"leaseKey": absent}})
		wantCode(t, "create again", err, no)

		for _, row := range []struct {
			name     string
			expected map[string]types.ExpectedAttributeValue
			updates  map[string]types.AttributeValueUpdate
			want     string
		}{
			{"renew", map[string]types.ExpectedAttributeValue{"leaseCounter": exists(n(7))}, map[string]types.AttributeValueUpdate{"leaseCounter": put(n(8))}, "ok {leaseCounter:8}"},
			{"renew of a moved lease", map[string]types.ExpectedAttributeValue{"leaseCounter": exists(n(6))}, map[string]types.AttributeValueUpdate{"leaseCounter": put(n(7))}, no},
			{"take", map[string]types.ExpectedAttributeValue{"leaseCounter": exists(n(7)), "checkpointOwner": absent},
				map[string]types.AttributeValueUpdate{"leaseCounter": put(n(8)), "leaseOwner": put(s("B")), "ownerSwitchesSinceCheckpoint": {Value: n(1), Action: "ADD"}, "checkpointOwner": {Action: "DELETE"}},
				`ok {leaseCounter:8 leaseOwner:"B" ownerSwitchesSinceCheckpoint:2}`},
			{"evict", map[string]types.ExpectedAttributeValue{"leaseOwner": exists(s("A"))},
				map[string]types.AttributeValueUpdate{"leaseOwner": {Action: "DELETE"}, "leaseCounter": {Value: n(1), Action: "ADD"}}, "ok {leaseCounter:8 leaseOwner:nil}"},
			{"comparison", map[string]types.ExpectedAttributeValue{"leaseCounter": {ComparisonOperator: "BETWEEN", AttributeValueList: []types.AttributeValue{n(1), n(7)}}, "kp_none": {ComparisonOperator: "NULL"}, "checkpoint": {ComparisonOperator: "BEGINS_WITH", AttributeValueList: []types.AttributeValue{s("1")}}},
				map[string]types.AttributeValueUpdate{"x": put(n(1))}, "ok {x:1}"},
			{"comparison that fails", map[string]types.ExpectedAttributeValue{"leaseCounter": {ComparisonOperator: "GT", AttributeValueList: []types.AttributeValue{n(7)}}},
				map[string]types.AttributeValueUpdate{"x": put(n(1))}, no},
			{"value without existence", map[string]types.ExpectedAttributeValue{"leaseCounter": {Exists: aws.Bool(false), Value: n(1)}}, map[string]types.AttributeValueUpdate{"x": put(n(1))}, invalid},
			{"children", map[string]types.ExpectedAttributeValue{"leaseKey": exists(s("k"))}, map[string]types.AttributeValueUpdate{"childShardIds": put(ss("c1", "c2"))}, `ok {childShardIds:SS["c1" "c2"]}`},
			{"a key can't be updated", nil, map[string]types.AttributeValueUpdate{"leaseKey": put(s("x"))}, invalid},
		} {
			e.put(t, table, held)
			out, err := e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("k"), ReturnValues: "ALL_NEW", Expected: row.expected, AttributeUpdates: row.updates})
			got := code(err)
			if err == nil {
				got += " " + difference(held, out.Attributes)
			}
			if got != row.want {
				t.Errorf("%s:\n got %s\nwant %s (%v)", row.name, got, row.want, err)
			}
		}
		_, err = e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("k"), UpdateExpression: aws.String("SET x=:x"), ExpressionAttributeValues: item{":x": n(1)},
			Expected: map[string]types.ExpectedAttributeValue{"leaseCounter": exists(n(7))}})
		wantCode(t, "old and new parameters together", err, invalid)
		out, err := e.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: lease("k"), AttributesToGet: []string{"leaseCounter", "absent"}, ConsistentRead: aws.Bool(true)})
		if err != nil {
			t.Fatal(err)
		}
		wantText(t, "AttributesToGet", show(out.Item), "{leaseCounter:7}")
		found, err := e.Scan(t.Context(), &dynamodb.ScanInput{TableName: &table, ConsistentRead: aws.Bool(true), ScanFilter: map[string]types.Condition{"leaseOwner": {ComparisonOperator: "EQ", AttributeValueList: []types.AttributeValue{s("A")}}}})
		if err != nil || found.Count != 1 {
			t.Errorf("ScanFilter: %v, %v", found, err)
		}
	})
}
