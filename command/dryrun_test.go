package command_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// Leaks are not looked for here: Benthos leaves what it built for a connection test to the end of the process.

// services are stand-ins for all that a pipeline needs.
type services struct {
	kinesis *kinesistest.Server
	dynamo  *dynamotest.Server
	broker  *pulsartest.Broker
}

func newServices(t *testing.T) *services {
	t.Helper()
	s := &services{kinesistest.NewServer(), dynamotest.NewServer(), pulsartest.NewBroker()}
	t.Cleanup(func() {
		s.kinesis.Close()
		s.dynamo.Close()
		s.broker.Close()
	})
	if err := s.kinesis.CreateStream("orders", 2); err != nil {
		t.Fatal(err)
	}
	return s
}

// input is the beginning of a config that reads orders.
func (s *services) input() string {
	return fmt.Sprintf(`input:
  kinesis_pulsar:
    awsKinesisStreamName: orders
    awsRegion: us-east-1
    awsEndpoint: %s
    dynamoEndpoint: %s
    awsCredentialPluginParam: '{"accessKey":"a","secretKey":"hush"}'
    applicationName: orders-app
    useEnhancedFanOut: false
`, s.kinesis.URL(), s.dynamo.URL())
}

func (s *services) output() string {
	return fmt.Sprintf("output:\n  pulsar: { url: %q, topic: orders }\n", s.broker.URL())
}

func TestADryRunOfWhatWorksMovesNothing(t *testing.T) {
	s := newServices(t)
	if _, err := lease.NewTable(s.dynamo.API(), "orders-app").EnsureExists(t.Context(), lease.Creation{}); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"c.yaml": s.input() + s.output()})
	code, out, complaints := run(t, "dry-run", filepath.Join(dir, "c.yaml"))
	if code != 0 || complaints != "" {
		t.Errorf("exit code %d: %s %s", code, out, complaints)
	}
	wants(t, out, "ok         input\n", "ok         output\n")
	if items := s.dynamo.Items("orders-app"); len(items) != 0 {
		t.Errorf("it left %v in the lease table", items)
	}
}

func TestADryRunCreatesNoTable(t *testing.T) {
	s := newServices(t)
	dir := write(t, map[string]string{"c.yaml": s.input() + s.output()})
	if code, out, complaints := run(t, "dry-run", filepath.Join(dir, "c.yaml")); code != 0 {
		t.Errorf("exit code %d: %s %s", code, out, complaints)
	}
	if err := lease.NewTable(s.dynamo.API(), "orders-app").Test(t.Context(), lease.Creation{Never: true}); !errors.Is(err, lease.ErrNoTable) {
		t.Errorf("the table: %v", err)
	}
}

// One run tells everything that is missing: who asks for permissions and who gives them are two people.
func TestADryRunTellsAllThatIsMissing(t *testing.T) {
	s := newServices(t)
	if _, err := lease.NewTable(s.dynamo.API(), "orders-app").EnsureExists(t.Context(), lease.Creation{}); err != nil {
		t.Fatal(err)
	}
	for _, operation := range []string{"UpdateItem", "DeleteItem"} {
		s.dynamo.Inject(dynamotest.Fault{Operation: operation, Kind: dynamotest.AccessDenied, Count: -1})
	}
	s.kinesis.Inject(kinesistest.Fault{Operation: "GetRecords", Code: kinesistest.AccessDenied, Count: -1})
	dir := write(t, map[string]string{"c.yaml": s.input() + "output:\n  pulsar: { url: \"pulsar://127.0.0.1:1\", topic: orders }\n"})
	code, out, complaints := run(t, "dry-run", "--json", filepath.Join(dir, "c.yaml"))
	var report struct {
		OK         bool
		Components []struct {
			Path, Status string
			Errors       []string
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if code != 1 || report.OK || len(report.Components) != 2 || report.Components[1].Status != "failed" {
		t.Errorf("exit code %d: %+v", code, report)
	}
	wants(t, strings.Join(report.Components[0].Errors, "\n"), "dynamodb:UpdateItem on lease table orders-app", "dynamodb:DeleteItem", "GetRecords")
	wants(t, complaints, "would not work")
	if strings.Contains(out+complaints, "hush") {
		t.Errorf("a secret is told: %s %s", out, complaints)
	}
}

// A stream that is not there does not hide what is wrong with the table; and credentials that are not there are told once.
func TestADryRunGoesOnBehindTheFirstError(t *testing.T) {
	s := newServices(t)
	s.dynamo.AddTable("orders-app", "name")
	dir := write(t, map[string]string{
		"c.yaml":      strings.Replace(s.input(), ": orders\n", ": nothing\n", 1) + s.output(),
		"nobody.yaml": strings.Replace(s.input(), `awsCredentialPluginParam: '{"accessKey":"a","secretKey":"hush"}'`, `awsCredentialPluginParam: ""`, 1) + s.output(),
	})
	code, out, _ := run(t, "dry-run", filepath.Join(dir, "c.yaml"))
	if wants(t, out, `there is no stream "nothing"`, "checking lease table orders-app: the table's key must be"); code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, variable := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		t.Setenv(variable, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	code, out, _ = run(t, "dry-run", filepath.Join(dir, "nobody.yaml"))
	if wants(t, out, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE"); code != 1 || strings.Count(out, "no AWS credentials were found") != 1 {
		t.Errorf("exit code %d: %s", code, out)
	}
	if code, _, complaints := run(t, "leases", filepath.Join(dir, "nobody.yaml")); code != 1 || !strings.Contains(complaints, "no AWS credentials were found") {
		t.Errorf("leases: exit code %d: %s", code, complaints)
	}
}

func TestADryRunOfABadConfigIsToldInOneLine(t *testing.T) {
	dir := write(t, map[string]string{"bad.yaml": "input: { kinesis_pulsar: { awsRegion: r } }\noutput: { drop: {} }\n", "half.yaml": "input: {", "good.yaml": "input: { generate: { mapping: root = 1 } }\noutput: { drop: {} }\n"})
	for _, args := range [][]string{{}, {"a", "b"}, {filepath.Join(dir, "none.yaml")}, {"--timeout", "0s", filepath.Join(dir, "good.yaml")}, {"--nope"},
		{"-r", filepath.Join(dir, "none.yaml"), filepath.Join(dir, "good.yaml")}} {
		if code, _, complaints := run(t, append([]string{"dry-run"}, args...)...); code != 1 || complaints == "" || strings.Contains(strings.TrimSpace(complaints), "\n") {
			t.Errorf("%v: exit code %d, %q", args, code, complaints)
		}
	}
	for file, want := range map[string]string{"bad.yaml": "awsKinesisStreamName", "half.yaml": "half.yaml(1,1)"} {
		if code, out, _ := run(t, "dry-run", filepath.Join(dir, file)); code != 1 || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, %q", file, code, out)
		}
	}
	if code, out, _ := run(t, "dry-run", filepath.Join(dir, "good.yaml")); code != 0 || !strings.Contains(out, "input") {
		t.Errorf("without any of our components: exit code %d, %q", code, out)
	}
}
