package command_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/command/leases"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/iamtest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// leaseTable is a table of orders with one lease for each way in which a lease can stand, and a config that names it.
func leaseTable(t *testing.T) (s *services, config string, table *lease.Table) {
	t.Helper()
	s = newServices(t)
	table = lease.NewTable(s.dynamo.API(), "orders-app")
	if _, err := table.EnsureExists(t.Context(), lease.Creation{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.kinesis.SplitShard("orders", "shardId-000000000000"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.kinesis.Put("orders", "a", []byte("1"), []byte("2")); err != nil {
		t.Fatal(err)
	}
	for _, l := range []lease.Lease{
		{Key: "shardId-000000000000", Checkpoint: checkpoint.Position{Sequence: checkpoint.TrimHorizon}},
		{Key: "shardId-000000000001", Checkpoint: checkpoint.Position{Sequence: checkpoint.Latest}, Start: time.UnixMilli(1_700_000_000_000)},
		{Key: "shardId-000000000002", Checkpoint: checkpoint.Position{Sequence: checkpoint.TrimHorizon}, Parents: []string{"shardId-000000000000"}},
	} {
		if _, _, err := table.Create(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	own(t, s, "shardId-000000000000", "kcl-worker")
	dir := write(t, map[string]string{"c.yaml": s.input() + s.output()})
	return s, filepath.Join(dir, "c.yaml"), table
}

// own makes a worker of KCL the owner of a lease, or renews it.
func own(t *testing.T, s *services, key, owner string) {
	t.Helper()
	name, expression := "orders-app", "SET leaseOwner = :o ADD leaseCounter :one"
	_, err := s.dynamo.API().UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName: &name, Key: map[string]types.AttributeValue{"leaseKey": &types.AttributeValueMemberS{Value: key}}, UpdateExpression: &expression,
		ExpressionAttributeValues: map[string]types.AttributeValue{":o": &types.AttributeValueMemberS{Value: owner}, ":one": &types.AttributeValueMemberN{Value: "1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// On a table of another stream the same line was told of each of its shards, and a name in it could move the cursor.
func TestLeasesOfAForeignTableStaysReadable(t *testing.T) {
	s, config, table := leaseTable(t)
	for i := range 40 {
		if _, _, err := table.Create(t.Context(), lease.Lease{Key: fmt.Sprintf("shardId-0000000009%02d", i), Checkpoint: checkpoint.Position{Sequence: checkpoint.TrimHorizon}}); err != nil {
			t.Fatal(err)
		}
	}
	own(t, s, "shardId-000000000900", "\x1b[2Jowner\nand more")
	code, out, complaints := run(t, "leases", "--no-lag", config)
	if code != 0 || complaints != "" {
		t.Fatalf("exit code %d: %s", code, complaints)
	}
	wants(t, out, "shardId-000000000900, shardId-000000000901, shardId-000000000902 and 37 more: Kinesis lists no such shard", `\x1b[2Jowner\nand more (KCL)`, " UTC\n")
	if strings.Count(out, "Kinesis lists no such shard") != 1 || strings.Contains(out, "\x1b") {
		t.Errorf("%q", out)
	}
}

// An alias of something outside of the input stood for nothing, so that leases refused a config that runs.
func TestLeasesReadsAConfigWithAliases(t *testing.T) {
	s, _, _ := leaseTable(t)
	text := strings.Replace(s.input(), "orders-app", "*app", 1)
	dir := write(t, map[string]string{"c.yaml": "pipeline: { processors: [ { label: &app orders-app, mapping: root = this } ] }\n" + text + s.output()})
	if code, out, complaints := run(t, "leases", "--no-lag", filepath.Join(dir, "c.yaml")); code != 0 || !strings.Contains(out, "table orders-app, ") {
		t.Errorf("exit code %d: %s in %s", code, complaints, text)
	}
}

func TestLeasesAtAGlance(t *testing.T) {
	s, config, _ := leaseTable(t)
	before := s.dynamo.Items("orders-app")
	code, out, complaints := run(t, "leases", config)
	if code != 0 || complaints != "" {
		t.Fatalf("exit code %d: %s", code, complaints)
	}
	if row := regexp.MustCompile(`(?m)^shardId-000000000002 +waiting .* 0 *$`); !strings.Contains(out, "PARENTS  CHILDREN") || !row.MatchString(out) {
		t.Errorf("no lineage: %s", out)
	}
	wants(t, out, "kcl-worker (KCL)", "shardId-000000000002 waits for the end of shardId-000000000000",
		"before a KCL takes the table back: shardId-000000000001 at LATEST", "= 2023-11-14T22:13:20Z",
		"shardId-000000000003: its row is made when shardId-000000000000 has been read to its end")
	var v struct {
		Table  string
		Leases []struct{ Shard, State, Owner, Program string }
	}
	code, out, _ = run(t, "leases", "--json", config)
	if err := json.Unmarshal([]byte(out), &v); code != 0 || err != nil || len(v.Leases) != 4 {
		t.Fatalf("exit code %d, %v: %s", code, err, out)
	}
	for i, want := range []leases.State{leases.Owned, leases.Free, leases.Waiting, leases.Missing} {
		if v.Leases[i].State != string(want) {
			t.Errorf("%s is %s; want %s", v.Leases[i].Shard, v.Leases[i].State, want)
		}
	}
	if after := s.dynamo.Items("orders-app"); !reflect.DeepEqual(after, before) {
		t.Errorf("looking has changed the table: %v", after)
	}
}

func TestLeasesWithoutTheStream(t *testing.T) {
	s, config, _ := leaseTable(t)
	s.kinesis.Inject(kinesistest.Fault{Operation: "DescribeStreamSummary", Code: kinesistest.AccessDenied, Count: -1})
	code, out, _ := run(t, "leases", config)
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	wants(t, out, "not looked at: describing stream orders", "kcl-worker (KCL)")
	if code, _, complaints := run(t, "leases", "--reset", "all", "--to", "TRIM_HORIZON", config); code != 1 || !strings.Contains(complaints, "not known, which a reset needs") {
		t.Errorf("reset: exit code %d, %s", code, complaints)
	}
}

func TestAResetIsShownFirst(t *testing.T) {
	_, config, table := leaseTable(t)
	code, out, _ := run(t, "leases", "--reset", "shardId-000000000001", "--to", "2024-01-31T12:00:00Z", config)
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	wants(t, out, "shardId-000000000001: from LATEST to AT_TIMESTAMP = 2024-01-31T12:00:00Z", "Nothing was changed")
	if l, _, _ := table.Get(t.Context(), "shardId-000000000001"); l.Checkpoint.Sequence != checkpoint.Latest {
		t.Errorf("it was changed: %+v", l)
	}
	code, out, complaints := run(t, "leases", "--reset", "shardId-000000000001", "--to", "2024-01-31T12:00:00Z", "--apply", config)
	if code != 0 {
		t.Errorf("exit code %d: %s", code, complaints)
	}
	wants(t, out, "1 done.")
	if l, _, _ := table.Get(t.Context(), "shardId-000000000001"); l.Checkpoint.Sequence != checkpoint.AtTimestamp || l.Start.UnixMilli() != 1_706_702_400_000 {
		t.Errorf("after the reset: %+v", l)
	}
}

func TestARepairIsRefusedWhileTheOwnerLives(t *testing.T) {
	s, config, table := leaseTable(t)
	quick, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	config = filepath.Join(write(t, map[string]string{"c.yaml": strings.Replace(string(quick), "    useEnh", "    failoverTimeMillis: 3000\n    useEnh", 1)}), "c.yaml")
	// The owner renews before each scan, so between any two of them, however slow the machine is.
	s.dynamo.OnRequest(func(r dynamotest.Request) *dynamotest.Fault {
		if r.Operation == "Scan" {
			own(t, s, "shardId-000000000000", "kcl-worker")
		}
		return nil
	})
	code, _, complaints := run(t, "leases", "--release", "kcl-worker", "--apply", config)
	s.dynamo.OnRequest(nil)
	if code != 1 || !strings.Contains(complaints, "its owner is alive: kcl-worker") {
		t.Errorf("exit code %d: %s", code, complaints)
	}
	alive, _, _ := table.Get(t.Context(), "shardId-000000000000")
	code, out, complaints := run(t, "leases", "--release", "kcl-worker", "--apply", config)
	if code != 0 {
		t.Errorf("exit code %d: %s %s", code, out, complaints)
	}
	if l, _, _ := table.Get(t.Context(), "shardId-000000000000"); l.Owner != "" || l.Counter != alive.Counter+1 {
		t.Errorf("after the release: %+v", l)
	}
}

func TestLeasesListsAndRemovesConsumers(t *testing.T) {
	s, config, _ := leaseTable(t)
	if _, err := s.kinesis.RegisterConsumer("orders", "left-over"); err != nil {
		t.Fatal(err)
	}
	_, out, _ := run(t, "leases", "--consumers", config)
	wants(t, out, "left-over")
	_, out, _ = run(t, "leases", "--deregister", "left-over", config)
	wants(t, out, "Nothing was changed")
	if code, out, complaints := run(t, "leases", "--deregister", "left-over", "--apply", config); code != 0 {
		t.Errorf("exit code %d: %s %s", code, out, complaints)
	}
	if code, _, complaints := run(t, "leases", "--deregister", "nobody", config); code != 1 || !strings.Contains(complaints, "no consumer nobody") {
		t.Errorf("exit code %d: %s", code, complaints)
	}
}

func TestLeasesRefusesWhatMakesNoSense(t *testing.T) {
	_, config, _ := leaseTable(t)
	dir := write(t, map[string]string{
		"none.yaml": "input: { generate: { mapping: root = 1 } }\noutput: { drop: {} }\n", "half.yaml": "input: {",
		"two.yaml": "input: { broker: { inputs: [ { kinesis_pulsar: { awsKinesisStreamName: a, awsRegion: r } }, { kinesis_pulsar: { awsKinesisStreamName: b, awsRegion: r, applicationName: other } } ] } }\noutput: { drop: {} }\n",
		"bad.yaml": "input: { kinesis_pulsar: { awsRegion: r } }\noutput: { drop: {} }\n",
	})
	for want, args := range map[string][]string{
		"give a config":             {},
		"no such file":              {filepath.Join(dir, "nothing.yaml")},
		"no kinesis_pulsar input":   {filepath.Join(dir, "none.yaml")},
		"half.yaml: reading YAML":   {filepath.Join(dir, "half.yaml")},
		"pulsar-kinesis, other":     {filepath.Join(dir, "two.yaml")},
		"no input has":              {"--table", "x", filepath.Join(dir, "two.yaml")},
		"awsKinesisStreamName":      {filepath.Join(dir, "bad.yaml")},
		"awsRegion":                 {"--stream", "s"},
		"one of --watch":            {"--watch", "--consumers", config},
		"go together":               {"--reset", "all", config},
		"--interval":                {"--watch", "--interval", "1ms", config},
		"--apply needs":             {"--apply", config},
		"is no position":            {"--reset", "all", "--to", "yesterday", config},
		"in the future":             {"--reset", "all", "--to", "2999-01-01T00:00:00Z", config},
		"a place in one shard":      {"--reset", "all", "--to", "123", config},
		"no such shard; the table":  {"--reset", "shardId-000000000009", "--to", "TRIM_HORIZON", config},
		"it is there already":       {"--reset", "shardId-000000000000", "--to", "TRIM_HORIZON", config},
		"for a look without a file": {"--stream", "s", config},
		"it is missing":             {"--reset", "shardId-000000000003", "--to", "TRIM_HORIZON", config},
		"no lease is that worker's": {"--release", "nobody", config},
		"flag provided":             {"--nope", config},
	} {
		code, _, complaints := run(t, append([]string{"leases"}, args...)...)
		if code != 1 || !strings.Contains(complaints, want) || strings.Contains(strings.TrimSpace(complaints), "\n") {
			t.Errorf("%v: exit code %d, %q; want %q", args, code, complaints, want)
		}
	}
}

// A parent that is read again after its children is out of order for good.
func TestAnEndedParentIsNotResetAlone(t *testing.T) {
	_, config, table := leaseTable(t)
	for key, to := range map[string]checkpoint.Position{"shardId-000000000000": {Sequence: checkpoint.ShardEnd}, "shardId-000000000002": {Sequence: "49"}} {
		l, _, err := table.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if done, err := table.Reset(t.Context(), l, to, time.Time{}); !done || err != nil {
			t.Fatal(done, err)
		}
	}
	code, _, complaints := run(t, "leases", "--reset", "shardId-000000000000", "--to", "TRIM_HORIZON", config)
	if code != 1 || !strings.Contains(complaints, "reset all") {
		t.Errorf("exit code %d: %s", code, complaints)
	}
	code, out, _ := run(t, "leases", "--reset", "all", "--to", "TRIM_HORIZON", config)
	if code != 0 || strings.Count(out, " to TRIM_HORIZON") != 3 {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// Somebody else's table is no reason to tell how to clean it up.
func TestLeasesOfATableThatIsNone(t *testing.T) {
	s := newServices(t)
	s.dynamo.AddTable("people", "name", map[string]types.AttributeValue{"name": &types.AttributeValueMemberS{Value: "Ada"}})
	dir := write(t, map[string]string{"none.yaml": s.input() + s.output(), "people.yaml": strings.Replace(s.input(), "orders-app", "people", 1) + s.output()})
	for file, want := range map[string]string{"none.yaml": "there is no such table: orders-app; the first run makes it", "people.yaml": "table people: the table's key must be"} {
		code, out, complaints := run(t, "leases", filepath.Join(dir, file))
		if code != 1 || out != "" || !strings.Contains(complaints, want) {
			t.Errorf("%s: exit code %d, %s %s", file, code, out, complaints)
		}
	}
}

// Whoever takes a table over, or hands it back, has to know which KCL it was.
func TestLeasesTellsOfKCL3(t *testing.T) {
	s, config, _ := leaseTable(t)
	if _, out, _ := run(t, "leases", config); strings.Contains(out, "KCL 3") {
		t.Errorf("a table of KCL 2.x: %s", out)
	}
	text := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
	s.dynamo.AddTable("orders-app-CoordinatorState", "key", map[string]types.AttributeValue{"key": text("Migration3.0"), "cv": text("CLIENT_VERSION_3X")})
	s.dynamo.Put("orders-app", map[string]types.AttributeValue{"leaseKey": text("Leader"), "entityType": text("LEADER")})
	_, out, _ := run(t, "leases", config)
	wants(t, out, "KCL 3.x was here: the table orders-app-CoordinatorState beside this one, items that are no leases (Leader), the client version CLIENT_VERSION_3X",
		"before a KCL takes the table back: items that are no leases (LEADER Leader)")
	s.dynamo.Inject(dynamotest.Fault{Operation: "GetItem", Kind: dynamotest.AccessDenied, Count: -1})
	code, out, _ := run(t, "leases", config)
	if wants(t, out, "not looked at: GetItem orders-app-CoordinatorState: not permitted", "kcl-worker (KCL)"); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// The commands need what docs/iam.md says, and no more.
func TestTheCommandsKeepToTheDocumentedPermissions(t *testing.T) {
	for _, tc := range []struct {
		policies []string
		args     []string
		code     int
		want     string
	}{
		{[]string{iamtest.Polling}, []string{"leases"}, 0, "kcl-worker (KCL)"},
		{[]string{iamtest.Polling}, []string{"dry-run"}, 0, "ok         input"},
		{[]string{iamtest.Polling}, []string{"leases", "--reset", "shardId-000000000001", "--to", "TRIM_HORIZON", "--apply"}, 0, "1 done."},
		{[]string{iamtest.Polling}, []string{"leases", "--consumers"}, 1, "ListStreamConsumers"},
		{[]string{iamtest.Polling, "The commands"}, []string{"leases", "--consumers"}, 0, "left-over"},
		{[]string{iamtest.Polling, "The commands"}, []string{"leases", "--deregister", "left-over", "--apply"}, 0, "is being removed"},
	} {
		s, config, _ := leaseTable(t)
		if _, err := s.kinesis.RegisterConsumer("orders", "left-over"); err != nil {
			t.Fatal(err)
		}
		policy, err := iamtest.Documented(tc.policies...)
		if err != nil {
			t.Fatal(err)
		}
		policy.Enforce(s.kinesis, s.dynamo.DB, iamtest.Names{Stream: "orders", Table: "orders-app", Application: "orders-app"})
		code, out, complaints := run(t, append(tc.args, config)...)
		if code != tc.code || !strings.Contains(out+complaints, tc.want) || strings.Contains(out, "its lag is not known") {
			t.Errorf("%v, %v: exit code %d: %s %s", tc.policies, tc.args, code, out, complaints)
		}
	}
}

func TestMovementTellsWhoLives(t *testing.T) {
	var m leases.Movement
	at := time.UnixMilli(0)
	for i, counter := range []int64{5, 5, 6, 6} {
		v := leases.View{At: at.Add(time.Duration(i) * time.Second), Rows: []leases.Row{{Shard: "s", Counter: counter}}}
		m.Note(&v)
		moved := v.Rows[0].Moved
		if i < 2 && moved != nil || i >= 2 && (moved == nil || !moved.Equal(at.Add(2*time.Second))) {
			t.Errorf("look %d: %v", i, moved)
		}
	}
}
