package dynamotest_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

var (
	differentialCases = flag.Int("differential.cases", 150, "random expressions to try on the fake and on DynamoDB Local")
	differentialSeed  = flag.Uint64("differential.seed", 1, "seed of the random expressions")
)

// trailingZeros are left by DynamoDB Local in computed and nested numbers, while AWS trims them.
var trailingZeros = regexp.MustCompile(`(\.\d*?[1-9])0+\b|\.0+\b`)

// grammar makes random expressions: mostly valid, over the attributes and values of sampleItem.
type grammar struct{ *rand.Rand }

func (g grammar) pick(choices ...string) string { return choices[g.IntN(len(choices))] }

func (g grammar) path() string {
	return g.pick("n", "neg", "str", "blank", "bin", "tags", "nums", "l", "m", "yes", "nul", "#dot", "huge", "absent",
		"l[0]", "l[1]", "l[2].deep", "l[5]", "m.#a", "m.#a.b", "m.absent", "str.x", "n[0]", "#status", "leaseKey")
}

func (g grammar) value() string {
	return g.pick(":zero", ":one", ":two", ":five", ":nine", ":huge", ":minus", ":a", ":ab", ":abc", ":b", ":x", ":z", ":none",
		":bin", ":bin1", ":tags", ":tagb", ":tagbc", ":nums", ":l", ":l0", ":m", ":yes", ":nul", ":S", ":N", ":SS")
}

func (g grammar) operand() string {
	switch g.IntN(8) {
	case 0, 1, 2:
		return g.path()
	case 3:
		return "size(" + g.path() + ")"
	case 4:
		return "(" + g.value() + ")"
	}
	return g.value()
}

func (g grammar) condition(depth int) string {
	if depth > 0 {
		switch g.IntN(7) {
		case 0:
			return g.condition(depth-1) + " AND " + g.condition(depth-1)
		case 1:
			return g.condition(depth-1) + " OR " + g.condition(depth-1)
		case 2:
			return "NOT " + g.condition(depth-1)
		case 3:
			return "(" + g.condition(depth-1) + ")"
		}
	}
	switch g.IntN(9) {
	case 0:
		return fmt.Sprintf("%s BETWEEN %s AND %s", g.path(), g.operand(), g.operand())
	case 1:
		return fmt.Sprintf("%s IN (%s, %s)", g.path(), g.operand(), g.value())
	case 2:
		return g.pick("attribute_exists", "attribute_not_exists") + "(" + g.path() + ")"
	case 3:
		return g.pick("begins_with", "contains") + "(" + g.path() + ", " + g.operand() + ")"
	case 4:
		return "attribute_type(" + g.path() + ", " + g.pick(":S", ":N", ":SS") + ")"
	}
	return g.operand() + " " + g.pick("=", "<>", "<", "<=", ">", ">=") + " " + g.operand()
}

func (g grammar) setValue(depth int) string {
	switch g.IntN(6) {
	case 0:
		if depth > 0 {
			return "if_not_exists(" + g.path() + ", " + g.setValue(depth-1) + ")"
		}
	case 1:
		if depth > 0 {
			return "list_append(" + g.setValue(depth-1) + ", " + g.setValue(depth-1) + ")"
		}
	case 2:
		return g.pick("n", "neg", "huge", ":one", ":minus") + " " + g.pick("+", "-") + " " + g.pick("n", "huge", ":two", g.value())
	case 3:
		return g.path()
	}
	return g.value()
}

func (g grammar) update() string {
	target := func() string { return g.pick(g.path(), "fresh", "fresh2", "l[7]", "m.fresh") }
	actions := func(one func() string) string {
		out := []string{one()}
		for g.IntN(3) == 0 {
			out = append(out, one())
		}
		return strings.Join(out, ", ")
	}
	sections := []string{}
	if g.IntN(2) == 0 {
		sections = append(sections, "SET "+actions(func() string { return target() + " = " + g.setValue(2) }))
	}
	if g.IntN(3) == 0 {
		sections = append(sections, "REMOVE "+actions(target))
	}
	if g.IntN(3) == 0 {
		sections = append(sections, "ADD "+actions(func() string { return target() + " " + g.pick(":one", ":minus", ":tagbc", ":nums", g.value()) }))
	}
	if g.IntN(4) == 0 {
		sections = append(sections, "DELETE "+actions(func() string { return target() + " " + g.pick(":tagb", ":tags", ":nums", g.value()) }))
	}
	return strings.Join(sections, " ")
}

// Random expressions must come to the same on the fake and on DynamoDB Local: what nobody thought of is compared too.
func TestRandomExpressionsAsDynamoDBLocal(t *testing.T) {
	local := stack.SharedDynamoDB(t)
	transport := newTransport()
	defer transport.CloseIdleConnections()
	options := local.Client().Options()
	options.HTTPClient = httpClient(transport)
	options.Retryer = aws.NopRetryer{}
	db := dynamotest.New()
	defer db.Close()
	engines := []*engine{{client: db.API()}, {client: dynamodb.New(options), local: true}}
	names := []string{engines[0].table(t), engines[1].table(t)}

	g := grammar{rand.New(rand.NewPCG(*differentialSeed, 0))}
	outcomes := map[string]int{}
	for range *differentialCases {
		condition, update := g.condition(3), g.update()
		var results [2]string
		for i, e := range engines {
			e.put(t, names[i], sampleItem)
			n, v := references(condition)
			_, err := e.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &names[i], Key: lease("k"), ConditionExpression: &condition, ExpressionAttributeNames: n, ExpressionAttributeValues: v})
			outcomes[code(err)]++
			results[i] = code(err) + reason(err)
		}
		if withoutReason(results[0]) != withoutReason(results[1]) {
			t.Errorf("condition %q:\n fake  %s\n local %s", condition, results[0], results[1])
		}
		for i, e := range engines {
			e.put(t, names[i], sampleItem)
			n, v := references(update)
			out, err := e.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: &names[i], Key: lease("k"), ReturnValues: "ALL_NEW", UpdateExpression: &update, ExpressionAttributeNames: n, ExpressionAttributeValues: v})
			outcomes[code(err)]++
			results[i] = code(err) + reason(err)
			if err == nil {
				results[i] = "ok " + trailingZeros.ReplaceAllString(show(out.Attributes), "$1")
			}
		}
		if withoutReason(results[0]) != withoutReason(results[1]) {
			t.Errorf("update %q:\n fake  %s\n local %s", update, results[0], results[1])
		}
	}
	t.Logf("outcomes, both engines: %v", outcomes)
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return " because " + err.Error()
}

func withoutReason(result string) string {
	result, _, _ = strings.Cut(result, " because ")
	return result
}
