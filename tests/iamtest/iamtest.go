// Package iamtest holds the project to the permissions that docs/iam.md tells people to give: it reads the policies of that page,
// checks that the calls which the fake services have seen are on it, and has the fakes deny what a policy does not allow.
//
// It knows what those policies use of IAM: allowing statements of actions and resources, with * at the end of a resource.
package iamtest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// The policies of the page, by their headings.
const (
	Polling   = "Polling"
	FanOut    = "Enhanced fan-out"
	Optional  = "What can be done without"
	Connector = "The role of the connector"
)

// Names are what stands for the placeholders of the page.
type Names struct {
	// Stream, Table and Application are names; "" stands for any name without a dash or slash, for tests that use several.
	Stream, Table, Application string
}

// Policy is what a role may do.
type Policy struct{ statements []statement }

type statement struct {
	Effect   string
	Action   texts
	Resource texts
}

// texts is a text or a list of texts.
type texts []string

func (t *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// Documented reads the policies under the headings, all together one role.
func Documented(headings ...string) (Policy, error) {
	_, file, _, _ := runtime.Caller(0)
	page, err := os.ReadFile(filepath.Join(filepath.Dir(file), "..", "..", "docs", "iam.md"))
	if err != nil {
		return Policy{}, err
	}
	var p Policy
	for _, heading := range headings {
		statements, err := policyUnder(string(page), heading)
		if err != nil {
			return Policy{}, fmt.Errorf("docs/iam.md, %q: %w", heading, err)
		}
		p.statements = append(p.statements, statements...)
	}
	return p, nil
}

func policyUnder(page, heading string) ([]statement, error) {
	_, section, ok := strings.Cut(page, "\n## "+heading+"\n")
	if !ok {
		return nil, fmt.Errorf("no such section")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	_, block, ok := strings.Cut(section, "```json\n")
	if !ok {
		return nil, fmt.Errorf("no policy")
	}
	block, _, _ = strings.Cut(block, "```")
	var document struct {
		Version   string
		Statement []struct {
			Sid string
			statement
		}
	}
	decoder := json.NewDecoder(strings.NewReader(block))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&document); err != nil {
		return nil, err
	}
	if document.Version != "2012-10-17" || len(document.Statement) == 0 {
		return nil, fmt.Errorf("version %q with %d statements", document.Version, len(document.Statement))
	}
	var statements []statement
	for _, s := range document.Statement {
		if s.Effect != "Allow" || len(s.Action) == 0 || len(s.Resource) == 0 {
			return nil, fmt.Errorf("statement %q has effect %q, %d actions, %d resources", s.Sid, s.Effect, len(s.Action), len(s.Resource))
		}
		statements = append(statements, s.statement)
	}
	return statements, nil
}

// Allows tells whether the policy allows an action on a resource, given by what its ARN has behind the account.
func (p Policy) Allows(action, resource string, names Names) bool {
	for _, s := range p.statements {
		for _, a := range s.Action {
			if a != action {
				continue
			}
			for _, r := range s.Resource {
				if matches(r, resource, names) {
					return true
				}
			}
		}
	}
	return false
}

// matches compares the part of an ARN behind the account; a * at its end stands for anything.
func matches(pattern, resource string, names Names) bool {
	if pattern == "*" {
		return true
	}
	parts := strings.SplitN(pattern, ":", 6)
	if len(parts) != 6 {
		return false
	}
	rest := parts[5]
	for placeholder, name := range map[string]string{"STREAM": names.Stream, "TABLE": names.Table, "APPLICATION": names.Application} {
		before, after, has := strings.Cut(rest, placeholder)
		if !has {
			continue
		}
		if name == "" {
			// Any name that is neither another table of the application nor a part of the resource's path.
			name = strings.TrimPrefix(resource, before)
			if i := strings.IndexAny(name, "-/"); i >= 0 {
				name = name[:i]
			}
		}
		rest = before + name + after
	}
	if prefix, ok := strings.CutSuffix(rest, "*"); ok {
		return strings.HasPrefix(resource, prefix)
	}
	return rest == resource
}

// onConsumer are the actions whose resource is a consumer of enhanced fan-out rather than the stream.
var onConsumer = map[string]bool{"SubscribeToShard": true}

// kinesisResource is what a call's resource has behind the account.
func kinesisResource(c kinesistest.Call) string {
	if onConsumer[c.Operation] {
		return "stream/" + c.Stream + "/consumer/application:1"
	}
	return "stream/" + c.Stream
}

// Beyond lists the calls that the services have seen and that the policy does not allow.
func (p Policy) Beyond(kinesis *kinesistest.Server, dynamodb *dynamotest.DB, names Names) (beyond []string) {
	for c := range kinesis.Counts() {
		if c.Operation == "" {
			continue // no request of the SDK's: a probe of the connection
		}
		if c.Stream == "" {
			c.Stream = names.Stream // a page of a list, which only its token names
		}
		if !p.Allows("kinesis:"+c.Operation, kinesisResource(c), names) {
			beyond = append(beyond, "kinesis:"+c.Operation+" on "+kinesisResource(c))
		}
	}
	for _, c := range dynamodb.Calls() {
		if !p.Allows("dynamodb:"+c.Operation, "table/"+c.Table, names) {
			beyond = append(beyond, "dynamodb:"+c.Operation+" on table/"+c.Table)
		}
	}
	return beyond
}

// Enforce has the services deny whatever the policy does not allow, from now on.
func (p Policy) Enforce(kinesis *kinesistest.Server, dynamodb *dynamotest.DB, names Names) {
	kinesis.Inject(kinesistest.Fault{Count: -1, Kind: kinesistest.Fail, Code: kinesistest.AccessDenied, Message: "not authorized to perform this action",
		When: func(c kinesistest.Call) bool {
			return c.Stream != "" && !p.Allows("kinesis:"+c.Operation, kinesisResource(c), names)
		}})
	dynamodb.Inject(dynamotest.Fault{Count: -1, Kind: dynamotest.AccessDenied, When: func(r dynamotest.Request) bool {
		if r.Operation == "CreateTable" && strings.Contains(string(r.Body), `"Tags":[`) && !p.Allows("dynamodb:TagResource", "table/"+r.Table, names) {
			return true
		}
		return !p.Allows("dynamodb:"+r.Operation, "table/"+r.Table, names)
	}})
}

// Check fails the test if the services have seen calls that the page does not know of.
func Check(t testing.TB, kinesis *kinesistest.Server, dynamodb *dynamotest.DB, names Names) {
	t.Helper()
	everything, err := Documented(Polling, FanOut, Optional)
	if err != nil {
		t.Error(err)
	}
	for _, call := range everything.Beyond(kinesis, dynamodb, names) {
		t.Errorf("called without a word in docs/iam.md: %s", call)
	}
}
