package input

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
)

func TestTheLeaseTableIsMadeAsConfigured(t *testing.T) {
	env := newConfigTester(t, nil)
	for config, want := range map[string]lease.Creation{
		"":                         {},
		"billingMode: PROVISIONED": {ReadCapacity: 10, WriteCapacity: 10},
		"billingMode: PROVISIONED\ninitialLeaseTableWriteCapacity: 300": {ReadCapacity: 10, WriteCapacity: 300},
		"billingMode: PROVISIONED\ninitialLeaseTableReadCapacity: '7'":  {ReadCapacity: 7, WriteCapacity: 10},
		"createTable: false": {Never: true},
		"tableTags: {team: orders}\ndeletionProtection: true\npointInTimeRecovery: true": {
			Tags: map[string]string{"team": "orders"}, DeletionProtection: true, PointInTimeRecovery: true,
		},
	} {
		c, err := env.parse(t, minimal+config+"\n")
		if err != nil || fmt.Sprint(c.tableCreation()) != fmt.Sprint(want) {
			t.Errorf("%q: %+v, %v; want %+v", config, c.tableCreation(), err, want)
		}
		if lints := env.lint(t, minimal+config+"\n"); len(lints) > 0 {
			t.Errorf("%q: %q", config, lints)
		}
	}
}

func TestSettingsOfATableThatWouldDoNothingAreLints(t *testing.T) {
	env := newConfigTester(t, nil)
	for config, want := range map[string][]string{
		"initialLeaseTableReadCapacity: 10":                                     {"billingMode: PROVISIONED"},
		"billingMode: PAY_PER_REQUEST\ninitialLeaseTableWriteCapacity: 10":      {"billingMode: PROVISIONED"},
		"createTable: false\nbillingMode: PROVISIONED\ntableTags: {a: b}":       {"createTable", "billingMode, tableTags would do nothing"},
		"createTable: false\npointInTimeRecovery: true":                         {"createTable", "pointInTimeRecovery would do nothing"},
		"createTable: false\ndeletionProtection: true":                          {"createTable", "deletionProtection would do nothing"},
		"applicationName: app\ntableName: app-CoordinatorState":                 {"tableName app-CoordinatorState", "KCL 3.x"},
		"applicationName: app\ntableName: app-WorkerMetricStats\nnumRetries: 1": {"tableName app-WorkerMetricStats", "KCL 3.x"},
	} {
		lints := env.lint(t, minimal+config+"\n")
		if len(lints) != 1 {
			t.Errorf("%q: %q", config, lints)
			continue
		}
		for _, text := range want {
			if !strings.Contains(lints[0], text) {
				t.Errorf("%q: %q does not say %q", config, lints[0], text)
			}
		}
		if _, err := env.parse(t, minimal+config+"\n"); err == nil || err.Error() != lints[0] {
			t.Errorf("%q: parsing says %v, lint %q", config, err, lints[0])
		}
	}
	if lints := env.lint(t, minimal+"createTable: false\ndeletionProtection: false\ntableTags: {}\n"); len(lints) > 0 {
		t.Errorf("what is off does nothing in any case: %q", lints)
	}
}

func TestTheTableMayHaveAnotherNameThanTheApplication(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.put("k", "1")
	in := w.connected("tableName: elsewhere")
	w.read(in, 1, nil)
	if len(w.dynamodb.Items("elsewhere")) != 1 || w.dynamodb.Items("application") != nil {
		t.Errorf("elsewhere: %v, application: %v", w.dynamodb.Items("elsewhere"), w.dynamodb.Items("application"))
	}
}

func TestAMissingTableThatMayNotBeMadeIsToldByConnect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	in := w.input("createTable: false")
	if err := in.Connect(w.ctx()); err == nil || !strings.Contains(err.Error(), `"application"`) || !strings.Contains(err.Error(), "leaseKey of type S") {
		t.Errorf("got %v", err)
	}
	if err := in.ConnectionTest(w.ctx())[0].Err; err == nil || !strings.Contains(err.Error(), "leaseKey of type S") {
		t.Errorf("the connection test says %v", err)
	}
	if got := w.dynamodb.Counts()["CreateTable"].Requests; got > 0 {
		t.Errorf("asked %d times for a table", got)
	}
}
