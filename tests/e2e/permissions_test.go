package e2e

import (
	"strings"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/iamtest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// under has the services deny what the policies of docs/iam.md under these headings do not allow.
func (l *lineage) under(headings ...string) {
	l.t.Helper()
	policy, err := iamtest.Documented(headings...)
	must(l.t, err)
	policy.Enforce(l.kinesis, l.dynamodb.DB, iamtest.Names{Stream: streamName, Table: table, Application: table})
}

// warnings are the lines of a log at WARN and above, but for what a machine is told of that stood still for seconds.
func (p *pipeline) warnings() (lines []string) {
	for line := range strings.Lines(p.logs.String()) {
		stall := strings.Contains(line, "could not be renewed") || strings.Contains(line, "have been waiting")
		if (strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR")) && !stall {
			lines = append(lines, line)
		}
	}
	return lines
}

// saysOnce fails the test unless the log has exactly these warnings, each once.
func (p *pipeline) saysOnce(texts ...string) {
	p.w.t.Helper()
	warnings := p.warnings()
	if len(warnings) != len(texts) {
		p.w.t.Errorf("%d warnings, want %d: %q", len(warnings), len(texts), warnings)
	}
	for _, text := range texts {
		n := 0
		for _, line := range warnings {
			if strings.Contains(line, text) {
				n++
			}
		}
		if n != 1 {
			p.w.t.Errorf("%d warnings of %q in %q", n, text, warnings)
		}
	}
}

// live is a life with everything in it that is called: a first start, resharding, a stop, a later start, a merge.
func (l *lineage) live(more ...string) (first, second *pipeline) {
	const keys = 24
	first = l.start(l.config(more...))
	l.number(120, keys)
	l.arrived(120)
	children := l.split(firstShard)
	l.number(120, keys)
	l.arrived(240)
	first.stop()
	l.number(120, keys)
	l.merge(children[0], children[1])
	second = l.start(l.config(more...))
	l.number(120, keys)
	l.arrived(480)
	l.readToTheEnd()
	l.family().balanced().once()
	second.stop()
	return first, second
}

func TestTheDocumentedPoliciesAreEnough(t *testing.T) {
	t.Parallel()
	bothReaders(t, 1, func(l *lineage) {
		headings := []string{iamtest.Polling}
		if l.fanOut {
			headings = append(headings, iamtest.FanOut)
		}
		l.under(headings...)
		first, second := l.live()
		for _, p := range []*pipeline{first, second} {
			p.saysOnce("GetItem " + table + "-CoordinatorState")
		}
	})
}

// The role as it was made for the connector, under settings that ask for more than it allows: each denied call is told
// once, and is all that is missing.
func TestTheRoleOfTheConnectorIsEnough(t *testing.T) {
	t.Parallel()
	bothReaders(t, 1, func(l *lineage) {
		l.under(iamtest.Connector)
		first, second := l.live("tableTags", "{team: orders}", "pointInTimeRecovery", "true")
		first.saysOnce("GetItem "+table+"-CoordinatorState", "created without tags", "created without point-in-time recovery")
		second.saysOnce("GetItem " + table + "-CoordinatorState")
	})
}

// Denied to begin with, and for a while after: nothing is told twice, however often a start is tried.
func TestADeniedCallIsToldOnceHoweverOftenItIsTried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.dynamodb.Inject(dynamotest.Fault{Operation: "GetItem", Table: table + "-CoordinatorState", Count: -1, Kind: dynamotest.AccessDenied})
	listing := w.kinesis.Inject(kinesistest.Fault{Operation: "ListShards", Count: -1, Kind: kinesistest.Fail, Code: kinesistest.AccessDenied, Message: "not authorized to perform kinesis:ListShards"})
	p := w.start(config{})
	w.eventually("it is tried again", func() bool { return listing.Hits() > 1 })
	listing.Remove()
	w.arrived(w.put(10, 5))
	n := 0
	for _, line := range p.warnings() {
		if strings.Contains(line, "CoordinatorState") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("told %d times", n)
	}
	if !p.logs.has("level=ERROR", "kinesis:ListShards") {
		t.Error("what stopped the start is not told")
	}
	p.stop()
}
