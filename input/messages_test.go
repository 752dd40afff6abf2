package input

import (
	"fmt"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
)

func TestFormatInstantAsJavaDoes(t *testing.T) {
	for nanos, want := range map[int]string{
		0:           "2019-03-05T19:28:58Z",
		120_000_000: "2019-03-05T19:28:58.120Z",
		120_500_000: "2019-03-05T19:28:58.120500Z",
		1:           "2019-03-05T19:28:58.000000001Z",
	} {
		at := time.Date(2019, 3, 5, 20, 28, 58, nanos, time.FixedZone("", 3600))
		if got := formatInstant(at); got != want {
			t.Errorf("%d: %s, want %s", nanos, got, want)
		}
	}
}

func TestConverterProperties(t *testing.T) {
	r := retrieval.Record{
		Position: checkpoint.Position{Sequence: "42", Sub: 3}, PartitionKey: "pk", Data: []byte("v"),
		Arrival: time.Unix(0, 0), Encryption: "KMS", MillisBehindLatest: 7,
	}
	all := []Property{PropertyArrivalTimestamp, PropertyEncryptionType, PropertyPartitionKey, PropertySequenceNumber, PropertyShardID, PropertyMillisBehindLatest, PropertySubSequenceNumber}
	got := map[Property]string{}
	for _, p := range all {
		got[p], _ = propertyValue(p, "shardId-1", &r)
	}
	want := map[Property]string{
		PropertyArrivalTimestamp: "1970-01-01T00:00:00Z", PropertyEncryptionType: "KMS", PropertyPartitionKey: "pk",
		PropertySequenceNumber: "42", PropertyShardID: "shardId-1", PropertyMillisBehindLatest: "7", PropertySubSequenceNumber: "3",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %v", got)
	}
	r.MillisBehindLatest = -1
	if _, ok := propertyValue(PropertyMillisBehindLatest, "s", &r); ok {
		t.Fatal("a lag that Kinesis did not tell became a property")
	}
	if key := (&converter{keyMode: KeyModeShardID}).key("shardId-1", &r); key != "shardId-1" {
		t.Fatalf("got %s", key)
	}
	if key := (&converter{keyMode: KeyModePartitionKey}).key("shardId-1", &r); key != "pk" {
		t.Fatalf("got %s", key)
	}
}
