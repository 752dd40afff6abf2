package lease

import (
	"strings"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

func TestAProbeChangesNothingAndNamesWhatIsRefused(t *testing.T) {
	db := dynamotest.New()
	table := NewTable(db.API(), "probed")
	if _, err := table.EnsureExists(t.Context(), Creation{}); err != nil {
		t.Fatal(err)
	}
	if err := table.Probe(t.Context()); err != nil {
		t.Fatalf("with every permission: %v", err)
	}
	if s, err := table.Scan(t.Context(), true); err != nil || len(s.Leases)+len(s.Foreign)+len(s.Broken) != 0 {
		t.Fatalf("after a probe the table holds %+v, %v", s, err)
	}
	for _, operation := range []string{"Scan", "GetItem", "PutItem", "UpdateItem", "DeleteItem"} {
		fault := db.Inject(dynamotest.Fault{Operation: operation, Kind: dynamotest.AccessDenied, Count: -1})
		err := table.Probe(t.Context())
		fault.Remove()
		if err == nil || !strings.Contains(err.Error(), "dynamodb:"+operation+" on lease table probed") || strings.Count(err.Error(), "dynamodb:") != 1 {
			t.Errorf("%s refused: %v", operation, err)
		}
	}
}
