package lease

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

const (
	testStream = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders@1700000000"
	shard0     = "shardId-000000000000"
	shard1     = "shardId-000000000001"
)

func at(sequence string) checkpoint.Position { return checkpoint.Position{Sequence: sequence} }

func TestDecodeNamesTheBrokenAttribute(t *testing.T) {
	good := Lease{Key: shard0, Checkpoint: at(checkpoint.TrimHorizon)}.newItem()
	for _, c := range []struct {
		attribute string
		value     types.AttributeValue
		want      string
	}{
		{attrKey, nil, "leaseKey is missing"},
		{attrCheckpoint, nil, "checkpoint is missing"},
		{attrCheckpoint, text("LATETS"), "checkpoint cannot be used"},
		{attrCheckpoint, number(7), "checkpoint must be a string"},
		{attrCounter, text("7"), "leaseCounter must be a number"},
		{attrCounter, &types.AttributeValueMemberN{Value: "1.5"}, "leaseCounter is \"1.5\""},
		{attrCounter, number(-1), "leaseCounter is negative"},
		{attrOwner, text(""), "leaseOwner is an empty string; remove"},
		{attrOwner, &types.AttributeValueMemberNULL{Value: true}, "leaseOwner must be a string"},
		{attrParents, text(shard1), "parentShardId must be a set"},
		{attrStart, text("now"), "kp_start must be a number"},
		{attrFailover, number(-1), "kp_fo is -1"},
		{attrDedupAt, text("x"), "kp_at must be binary"},
	} {
		item := maps.Clone(good)
		if item[c.attribute] = c.value; c.value == nil {
			delete(item, c.attribute)
		}
		if _, err := Decode(item); err == nil || errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %v: error %v, want %q in it", c.attribute, c.value, err, c.want)
		}
	}
	for name, item := range map[string]map[string]types.AttributeValue{
		"no counter":         {attrKey: text("Migration3.0")},
		"other entity type":  {attrKey: text("W1"), attrEntityType: text("WORKER_METRIC_STATS"), attrCounter: number(1)},
		"nothing understood": {"x": number(1)},
	} {
		if _, err := Decode(item); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v, want ErrForeign", name, err)
		}
	}
}

func TestAStaleAcquisitionDoesNotMakeAKCLLeaseOurs(t *testing.T) {
	for _, c := range []struct {
		owner, acquisition string
		ours               bool
	}{
		{"A", "A#r", true},
		{"KCL", "A#r", false}, // stolen: the attribute stayed behind
		{"A", "", false},
		{"", "A#r", false}, // released
		{"", "#r", false},
		{"A", "AB#r", false},
	} {
		if got := (Lease{Owner: c.owner, Acquisition: c.acquisition}).IsOurs(); got != c.ours {
			t.Errorf("owner %q, acquisition %q: IsOurs %v", c.owner, c.acquisition, got)
		}
	}
}

// itemSize is DynamoDB's: names and text by bytes, numbers by pairs of digits, one byte per element of a set.
func itemSize(item map[string]types.AttributeValue) (n int) {
	for name, v := range item {
		n += len(name)
		switch v := v.(type) {
		case *types.AttributeValueMemberS:
			n += len(v.Value)
		case *types.AttributeValueMemberN:
			n += (len(v.Value)+1)/2 + 2
		case *types.AttributeValueMemberB:
			n += len(v.Value)
		case *types.AttributeValueMemberSS:
			n += 3
			for _, s := range v.Value {
				n += len(s) + 1
			}
		}
	}
	return n
}

// A renewal of more than 1024 bytes costs two write units, for ever.
func TestTheLargestLegalItemCostsOneWriteUnit(t *testing.T) {
	worker := strings.Repeat("w", maxWorkerID)
	names := newAcquisitions(worker)
	names.last.Store(1 << 40) // far more takes than a process lives for
	acquisition := names.next()
	digits := strings.Repeat("9", 56)
	l := Lease{
		Key: shard0, Checkpoint: checkpoint.Position{Sequence: digits, Sub: 99999},
		Parents: []string{shard0, shard1}, Children: []string{shard0, shard1},
		StartingHashKey: strings.Repeat("3", 39), EndingHashKey: strings.Repeat("3", 39),
		Stream: StreamName("arn:aws-us-gov:kinesis:us-gov-west-1:123456789012:stream/"+strings.Repeat("s", 128), 1700000000),
		Start:  time.UnixMilli(1700000000123),
	}
	item := l.newItem()
	for name, v := range map[string]types.AttributeValue{
		attrOwner: text(worker), attrAcquisition: text(acquisition), attrCounter: number(1 << 40), attrSwitches: number(1 << 20),
		attrEntityType: text(entityTypeLease), attrThroughput: &types.AttributeValueMemberN{Value: "12345.123456"},
		attrAsk: text(worker), attrAskAt: number(1 << 40), attrFailover: number(3600000),
		attrDedupCount: number(1 << 60), attrDedupAt: &types.AttributeValueMemberB{Value: make([]byte, 8)},
		attrDedupFirst: &types.AttributeValueMemberB{Value: make([]byte, 8)}, attrDedupEpoch: text("01234567"), attrDedupParts: number(10000),
	} {
		item[name] = v
	}
	if _, err := Decode(item); err != nil {
		t.Fatal(err)
	}
	if n := itemSize(item); n >= 1024 {
		t.Errorf("the largest item has %d bytes", n)
	} else {
		t.Logf("the largest item has %d bytes", n)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("shardId-0", "7", "TRIM_HORIZON", "0", "W", "W#1", "1700000000000", "10000", "LEASE")
	f.Add("", "-1", "00123", "9999999999999999999", "", "#", "1e400", "9223372036854775807", "LEADER")
	f.Fuzz(func(t *testing.T, key, counter, sequence, sub, owner, acquisition, start, failover, entity string) {
		n := func(s string) types.AttributeValue { return &types.AttributeValueMemberN{Value: s} }
		item := map[string]types.AttributeValue{
			attrKey: text(key), attrCounter: n(counter), attrCheckpoint: text(sequence), attrSub: n(sub), attrOwner: text(owner),
			attrAcquisition: text(acquisition), attrStart: n(start), attrFailover: n(failover), attrThroughput: n(counter),
			attrEntityType: text(entity),
		}
		l, err := Decode(item)
		if err != nil {
			return
		}
		if l.Key == "" || l.Checkpoint.IsZero() || l.Counter < 0 || l.Failover < 0 {
			t.Errorf("accepted %+v", l)
		}
		if again, err := Decode(l.newItem()); err != nil || again.Checkpoint != l.Checkpoint || again.Key != l.Key {
			t.Errorf("written and read again: %+v, %v", again, err)
		}
	})
}
