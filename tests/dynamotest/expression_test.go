package dynamotest_test

import (
	"maps"
	"regexp"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// What the expressions of the tables below may refer to.
var (
	sampleItem = item{
		"leaseKey": s("k"), "n": n(5), "neg": n("-1.50"), "str": s("abc"), "blank": s(""), "bin": b(1, 2),
		"tags": ss("a", "b"), "nums": ns("1", "2"), "l": list(s("x"), n(1), dict(item{"deep": s("d")})),
		"m": dict(item{"a": dict(item{"b": n(7)})}), "yes": boolean(true), "nul": null(), "with.dot": s("x"),
		"huge": n("9007199254740993"),
	}
	sampleValues = item{
		":zero": n(0), ":one": n(1), ":two": n(2), ":five": n("5.00"), ":nine": n(9), ":huge": n("9007199254740993"), ":minus": n("-1.5"),
		":a": s("a"), ":ab": s("ab"), ":abc": s("abc"), ":b": s("b"), ":x": s("x"), ":z": s("z"), ":none": s(""),
		":bin": b(1, 2), ":bin1": b(1), ":tags": ss("b", "a"), ":tagb": ss("b"), ":tagbc": ss("b", "c"), ":nums": ns("2", "3"),
		":l": list(s("y")), ":l0": list(), ":m": dict(item{"b": n(7)}), ":yes": boolean(true), ":nul": null(),
		":S": s("S"), ":N": s("N"), ":SS": s("SS"), ":XX": s("XX"),
	}
	sampleNames = map[string]string{"#n": "n", "#status": "status", "#dot": "with.dot", "#m": "m", "#a": "a"}
	reference   = regexp.MustCompile(`[:#]\w+`)
)

// references picks the names and values an expression mentions: DynamoDB refuses more.
func references(expression string) (map[string]string, item) {
	names, values := map[string]string{}, item{}
	for _, r := range reference.FindAllString(expression, -1) {
		if v, ok := sampleValues[r]; ok {
			values[r] = v
		}
		if v, ok := sampleNames[r]; ok {
			names[r] = v
		}
	}
	if len(names) == 0 {
		names = nil
	}
	if len(values) == 0 {
		values = nil
	}
	return names, values
}

const (
	yes     = "ok"
	no      = "ConditionalCheckFailedException"
	invalid = "ValidationException"
)

var conditions = []struct{ expression, want, local string }{
	{"n = :five", yes, ""},
	{"n = :abc", no, ""},
	{"n <> :abc", yes, ""},
	{"absent = :one", no, ""},
	{"absent <> :one", yes, ""},
	{"NOT absent = :one", yes, ""},
	{"n < :nine", yes, ""},
	{"n < :five", no, ""},
	{"n <= :five", yes, ""},
	{"n > :two", yes, ""},
	{"n >= :nine", no, ""},
	{":two < n", yes, ""},
	{"neg < :zero", yes, ""},
	{"neg = :minus", yes, ""},
	{"huge = :huge", yes, ""},
	{"str < :z", yes, ""},
	{"str < :nine", no, ""},
	{"blank = :none", yes, ""},
	{"blank < :a", yes, ""},
	{"bin = :bin", yes, ""},
	{"bin > :bin1", yes, ""},
	{"tags = :tags", yes, ""},
	{"tags = :tagb", no, ""},
	{"l[0] = :x", yes, ""},
	{"l[1] = :one", yes, ""},
	{"l[7] = :one", no, ""},
	{"l[2].deep <> :x", yes, ""},
	{"m.#a = :m", yes, ""},
	{"#m.#a.b > :five", yes, ""},
	{"m.nothing.b = :one", no, ""},
	{"n.b = :one", no, ""},
	{"#dot = :x", yes, ""},
	{"yes = :yes", yes, ""},
	{"nul = :nul", yes, ""},
	{"n < :yes", invalid, ""},
	{"n < :tags", invalid, ""},
	{"n = n", invalid, ""},
	{"n BETWEEN :two AND :nine", yes, ""},
	{"n BETWEEN :five AND :five", yes, ""},
	{"n BETWEEN :zero AND :one", no, ""},
	{"n BETWEEN :nine AND :one", invalid, ""},
	{"n BETWEEN :one AND :abc", invalid, ""},
	{"absent BETWEEN :one AND :two", no, ""},
	{"str BETWEEN :one AND :two", no, ""},
	{"n IN (:one, :five)", yes, ""},
	{"n IN (:abc)", no, ""},
	{"absent IN (:one)", no, ""},
	{"n IN (:one, huge)", no, ""},
	{"n IN ()", invalid, ""},
	{"attribute_exists(n)", yes, ""},
	{"attribute_exists(absent)", no, ""},
	{"attribute_exists(m.#a.b)", yes, ""},
	{"attribute_exists(l[2].deep)", yes, ""},
	{"attribute_not_exists(absent)", yes, ""},
	{"attribute_not_exists(nul)", no, ""},
	{"attribute_not_exists(leaseKey)", no, ""},
	{"attribute_exists(:one)", invalid, ""},
	{"attribute_exists(n, str)", invalid, ""},
	{"Attribute_Exists(n)", invalid, ""},
	{"attribute_type(str, :S)", yes, ""},
	{"attribute_type(str, :N)", no, ""},
	{"attribute_type(tags, :SS)", yes, ""},
	{"attribute_type(absent, :S)", no, ""},
	{"attribute_type(str, :XX)", invalid, ""},
	{"attribute_type(str, :one)", invalid, ""},
	{"begins_with(str, :ab)", yes, ""},
	{"begins_with(str, :b)", no, ""},
	{"begins_with(bin, :bin1)", yes, ""},
	{"begins_with(n, :ab)", no, ""},
	{"begins_with(absent, :ab)", no, ""},
	{"begins_with(str, :one)", invalid, ""},
	{"contains(str, :b)", yes, ""},
	{"contains(str, :z)", no, ""},
	{"contains(tags, :b)", yes, ""},
	{"contains(nums, :one)", yes, ""},
	{"contains(nums, :a)", no, ""},
	{"contains(l, :x)", yes, ""},
	{"contains(l, :z)", no, ""},
	{"contains(n, :one)", no, ""},
	{"contains(str, str)", invalid, ""},
	{"size(str) = :two", no, ""},
	{"size(str) > :two", yes, ""},
	{"size(tags) = :two", yes, ""},
	{"size(bin) = :two", yes, ""},
	{"size(l) > :two", yes, ""},
	{"size(m) = :one", yes, ""},
	{"size(n) = :one", no, ""},
	{"size(absent) = :one", no, ""},
	{"size(absent) <> :one", yes, ""},
	{"size(str)", invalid, ""},
	{"n = :five AND str = :abc", yes, ""},
	{"n = :five and not str = :abc", no, ""},
	{"n = :one OR str = :abc", yes, ""},
	{"n = :five OR n = :one AND str = :z", yes, ""},
	{"(n = :five OR n = :one) AND str = :z", no, ""},
	{"NOT (n = :one OR str = :z)", yes, ""},
	{"NOT NOT n = :five", yes, ""},
	{"(n = :five)", yes, ""},
	{"((n = :five))", invalid, ""},
	{"((n = :five) OR n = :one)", yes, ""},
	{"((n = :five) AND (n = :five))", yes, ""},
	{"(n) = :five", yes, ""},
	{"n = (:five)", yes, ""},
	{"((n)) = :five", invalid, ""},
	{"(size(str)) > (:two)", yes, ""},
	{"(n = :five) = :yes", invalid, ""},
	{"n BETWEEN (:two) AND (:nine)", yes, ""},
	{"NOT n", invalid, ""},
	{"n AND n = :five", invalid, ""},
	{"size(size(str)) = :one", invalid, ""},
	{"n = :unknown", invalid, ""},
	{"#unknown = :one", invalid, ""},
	{"status = :one", invalid, ""},
	{"Owner = :one", invalid, ""},
	{"#status = :one", no, ""},
	{"n = :one AND", invalid, ""},
	{"n == :one", invalid, ""},
	{"n = 5", invalid, ""},
	{"n", invalid, ""},
	{"", invalid, ""},
	{"n = :one)", invalid, ""},
	{"n[:one] = :one", invalid, ""},
	{"nonsense(n)", invalid, ""},
	{"if_not_exists(n, :one) = :one", invalid, ""},
	{"n BETWEEN :one", invalid, ""},
	{"NOT attribute_exists(n) OR n <> :one AND n IN (:five, :nine)", yes, ""},
	{"n = :one % :two", invalid, ""},
}

func TestConditions(t *testing.T) {
	onEngines(t, func(t *testing.T, e *engine) {
		table := e.table(t)
		e.put(t, table, sampleItem)
		for _, row := range conditions {
			names, values := references(row.expression)
			_, err := e.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: sampleItem,
				ConditionExpression: &row.expression, ExpressionAttributeNames: names, ExpressionAttributeValues: values})
			wantCode(t, row.expression, err, e.orLocal(row.want, row.local))

			// The same words as a filter must choose the same items.
			found, err := e.Scan(t.Context(), &dynamodb.ScanInput{TableName: &table, ConsistentRead: aws.Bool(true),
				FilterExpression: &row.expression, ExpressionAttributeNames: names, ExpressionAttributeValues: values})
			got := code(err)
			if err == nil && found.Count == 0 {
				got = no
			}
			if want := e.orLocal(row.want, row.local); got != want {
				t.Errorf("as filter: %s: got %s, want %s (%v)", row.expression, got, want, err)
			}
		}
	})
}

// updates are applied to sampleItem; want tells what has changed in it: "ok {changed attributes, null for removed}".
var updates = []struct{ expression, want, local string }{
	{"SET n = :one", "ok {n:1}", ""},
	{"SET fresh = :one, str = :z", `ok {fresh:1 str:"z"}`, ""},
	{"set #status = :a", `ok {status:"a"}`, ""},
	{"SET n = n + :one", "ok {n:6}", ""},
	{"SET n = n - :nine", "ok {n:-4}", ""},
	{"SET n = :one + :two", "ok {n:3}", ""},
	{"SET huge = huge + :one", "ok {huge:9007199254740994}", ""},
	{"SET neg = neg + neg", "ok {neg:-3}", "ok {neg:-3.0}"},
	{"SET n = n + str", invalid, ""},
	{"SET n = n + :a", invalid, ""},
	{"SET n = absent + :one", invalid, ""},
	{"SET fresh = absent", invalid, ""},
	{"SET fresh = n", "ok {fresh:5}", ""},
	{"SET n = huge, huge = n", "ok {huge:5 n:9007199254740993}", ""},
	{"SET n = if_not_exists(n, :one)", "ok {}", ""},
	{"SET fresh = if_not_exists(fresh, :one)", "ok {fresh:1}", ""},
	{"SET fresh = if_not_exists(fresh, :zero) + :one", "ok {fresh:1}", ""},
	{"SET fresh = if_not_exists(fresh, n)", "ok {fresh:5}", ""},
	{"SET fresh = if_not_exists(:one, :one)", invalid, ""},
	{"SET l = list_append(l, :l)", `ok {l:["x" 1 {deep:"d"} "y"]}`, ""},
	{"SET l = list_append(:l, l)", `ok {l:["y" "x" 1 {deep:"d"}]}`, ""},
	{"SET fresh = list_append(if_not_exists(fresh, :l0), :l)", `ok {fresh:["y"]}`, ""},
	{"SET l = list_append(l, :a)", invalid, ""},
	{"SET l = list_append(n, :l)", invalid, ""},
	{"SET l[0] = :z", `ok {l:["z" 1 {deep:"d"}]}`, ""},
	{"SET l[9] = :z", `ok {l:["x" 1 {deep:"d"} "z"]}`, ""},
	{"SET l[2].deep = :z", `ok {l:["x" 1 {deep:"z"}]}`, ""},
	{"SET m.#a.b = :one", "ok {m:{a:{b:1}}}", ""},
	{"SET m.c = :one, m.#a.d = :two", "ok {m:{a:{b:7 d:2} c:1}}", ""},
	{"SET absent.c = :one", invalid, ""},
	{"SET n.c = :one", invalid, ""},
	{"SET n[0] = :one", invalid, ""},
	{"REMOVE n", "ok {n:nil}", ""},
	{"REMOVE absent", "ok {}", ""},
	{"REMOVE n, str", "ok {n:nil str:nil}", ""},
	{"REMOVE l[0]", `ok {l:[1 {deep:"d"}]}`, ""},
	{"REMOVE l[0], l[1]", `ok {l:[{deep:"d"}]}`, ""},
	{"REMOVE l[9]", "ok {}", ""},
	{"REMOVE m.#a.b", "ok {m:{a:{}}}", ""},
	{"REMOVE absent.c", invalid, ""},
	{"REMOVE l[0] SET l[1] = :z", `ok {l:["z" {deep:"d"}]}`, ""},
	{"ADD n :one", "ok {n:6}", ""},
	{"ADD fresh :one", "ok {fresh:1}", ""},
	{"ADD str :one", invalid, ""},
	{"ADD n :a", invalid, ""},
	{"ADD n :l", invalid, ""},
	{"ADD tags :tagbc", `ok {tags:SS["a" "b" "c"]}`, ""},
	{"ADD nums :nums", "ok {nums:NS[1 2 3]}", ""},
	{"ADD fresh :tagb", `ok {fresh:SS["b"]}`, ""},
	{"ADD tags :nums", invalid, ""},
	{"ADD tags :one", invalid, ""},
	{"DELETE tags :tagbc", `ok {tags:SS["a"]}`, ""},
	{"DELETE tags :tags", "ok {tags:nil}", ""},
	{"DELETE absent :tagb", "ok {}", ""},
	{"DELETE n :one", invalid, ""},
	{"DELETE tags :nums", invalid, ""},
	{"DELETE n :tagb", invalid, ""},
	{"SET n = :one REMOVE str ADD fresh :two DELETE tags :tagb", `ok {fresh:2 n:1 str:nil tags:SS["a"]}`, ""},
	{"SET n = :one, n = :two", invalid, ""},
	{"SET n = :one REMOVE n", invalid, ""},
	{"SET m.#a = :one, m.#a.b = :two", invalid, ""},
	{"SET n = :one SET str = :z", invalid, ""},
	{"SET leaseKey = :z", invalid, ""},
	{"REMOVE leaseKey", invalid, ""},
	{"SET leaseKey.x = :z", invalid, ""},
	{"SET owner = :z", invalid, ""},
	{"SET n :one", invalid, ""},
	{"SET n = :one,", invalid, ""},
	{"SET n = :unknown", invalid, ""},
	{"SET n = n * :two", invalid, ""},
	{"SET n = n + :one + :two", invalid, ""},
	{"SET n = (n + :one)", "ok {n:6}", ""},
	{"SET n = size(str)", invalid, ""},
	{"SET n = nonsense(str)", invalid, ""},
	{"ADD n n", invalid, ""},
	{"REMOVE", invalid, ""},
	{"n = :one", invalid, ""},
	{"", invalid, ""},
}

func TestUpdates(t *testing.T) {
	onEngines(t, func(t *testing.T, e *engine) {
		table := e.table(t)
		for _, row := range updates {
			e.put(t, table, sampleItem)
			before := e.get(t, table, lease("k"))
			names, values := references(row.expression)
			out, err := e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("k"), ReturnValues: "ALL_NEW",
				UpdateExpression: &row.expression, ExpressionAttributeNames: names, ExpressionAttributeValues: values})
			got := code(err)
			after := e.get(t, table, lease("k"))
			if err == nil {
				wantText(t, row.expression+": ALL_NEW", show(out.Attributes), show(after))
				got += " " + difference(before, after)
			} else {
				wantText(t, row.expression+": a refused update must change nothing", show(after), show(before))
			}
			if want := e.orLocal(row.want, row.local); got != want {
				t.Errorf("%s:\n got %s\nwant %s (%v)", row.expression, got, want, err)
			}
		}
	})
}

// difference is what of after is not as before; nil stands for what is gone.
func difference(before, after item) string {
	changed := item{}
	for name, v := range after {
		if old, ok := before[name]; !ok || showValue(old) != showValue(v) {
			changed[name] = v
		}
	}
	for name := range maps.Keys(before) {
		if _, ok := after[name]; !ok {
			changed[name] = gone{}
		}
	}
	return show(changed)
}

type gone struct{ types.AttributeValue }

func TestNamesAndValuesMustBeUsed(t *testing.T) {
	onEngines(t, func(t *testing.T, e *engine) {
		table := e.table(t)
		e.put(t, table, sampleItem)
		update := func(expression string, names map[string]string, values item) error {
			_, err := e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &table, Key: lease("k"), UpdateExpression: &expression,
				ExpressionAttributeNames: names, ExpressionAttributeValues: values})
			return err
		}
		wantCode(t, "all used", update("SET #x = :v", map[string]string{"#x": "status"}, item{":v": n(1)}), yes)
		wantCode(t, "unused value", update("SET n = :v", nil, item{":v": n(1), ":w": n(1)}), invalid)
		wantCode(t, "unused name", update("SET n = :v", map[string]string{"#x": "n"}, item{":v": n(1)}), invalid)
		wantCode(t, "value without colon", update("SET n = :v", nil, item{"v": n(1)}), invalid)
		wantCode(t, "name without hash", update("SET x = :v", map[string]string{"x": "n"}, item{":v": n(1)}), invalid)
		wantCode(t, "empty values", update("REMOVE n", nil, item{}), invalid)
		_, err := e.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: lease("k"), ExpressionAttributeNames: map[string]string{"#x": "n"}})
		wantCode(t, "names without an expression", err, invalid)
	})
}
