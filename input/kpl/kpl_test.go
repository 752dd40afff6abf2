package kpl_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/big"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/kpl"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kpltest"
)

const (
	maxHash   = "340282366920938463463374607431768211455" // 2^128−1
	lowerLast = "170141183460469231731687303715884105727" // 2^127−1
	upper     = "170141183460469231731687303715884105728" // 2^127
	alphaHash = "58606826522850340945736240254012750329"  // MD5 of "alpha", made with another tool
)

func golden(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/envelope.hex")
	if err != nil {
		t.Fatal(err)
	}
	digits := regexp.MustCompile(`#.*|\s`).ReplaceAllString(string(text), "")
	envelope, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

var goldenUsers = []kpl.UserRecord{
	{PartitionKey: "alpha", Data: []byte("one"), Sub: 0},
	{PartitionKey: "beta", ExplicitHashKey: "42", Data: []byte{0, 0xff}, Sub: 1},
	{PartitionKey: "alpha", Data: []byte{}, Sub: 2},
}

func hashRange(t testing.TB, start, end string) kpl.HashRange {
	t.Helper()
	r, err := kpl.ParseHashRange(start, end)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// subs splits an envelope and returns the sub-sequence numbers; it fails when data is a plain record.
func subs(t testing.TB, data []byte, in kpl.HashRange) []int64 {
	t.Helper()
	users, aggregated := kpl.Split(nil, data, in)
	if !aggregated {
		t.Fatal("an aggregate was taken for a plain record")
	}
	subs := []int64{}
	for _, u := range users {
		subs = append(subs, u.Sub)
	}
	return subs
}

func expectPlain(t testing.TB, data []byte) {
	t.Helper()
	before := []kpl.UserRecord{{PartitionKey: "before"}}
	users, total, aggregated := kpl.SplitCounting(before, data, kpl.HashRange{})
	if aggregated || total != 0 || !reflect.DeepEqual(users, before) {
		t.Errorf("not taken for a plain record: aggregated %v, total %d, users %+v", aggregated, total, users)
	}
}

func TestGoldenEnvelope(t *testing.T) {
	before := kpl.UserRecord{PartitionKey: "before"}
	users, total, aggregated := kpl.SplitCounting([]kpl.UserRecord{before}, golden(t), kpl.HashRange{})
	want := append([]kpl.UserRecord{before}, goldenUsers...)
	if !aggregated || total != 3 || !reflect.DeepEqual(users, want) {
		t.Errorf("aggregated %v, total %d, users\n%+v\nwant\n%+v", aggregated, total, users, want)
	}
}

func TestDataAliasesTheEnvelopeAndAppendingLeavesTheNeighbourAlone(t *testing.T) {
	envelope := golden(t)
	users, _ := kpl.Split(nil, envelope, kpl.HashRange{})
	original := bytes.Clone(envelope)
	for _, u := range users {
		_ = append(u.Data, "overwriting"...)
	}
	if !bytes.Equal(envelope, original) {
		t.Error("appending to Data wrote into the envelope")
	}
	envelope[bytes.Index(envelope, []byte("one"))] = 'O'
	if string(users[0].Data) != "One" {
		t.Errorf("Data is a copy: %q", users[0].Data)
	}
	for _, u := range users {
		if u.Data == nil {
			t.Errorf("record %d has nil Data", u.Sub)
		}
	}
}

func TestWhatMerelyLooksLikeAnAggregateIsAPlainRecord(t *testing.T) {
	envelope := golden(t)
	t.Run("cut short", func(t *testing.T) {
		for n := range envelope {
			expectPlain(t, envelope[:n])
		}
	})
	t.Run("one bit wrong", func(t *testing.T) {
		for i := range envelope {
			broken := bytes.Clone(envelope)
			broken[i] ^= 0x10
			expectPlain(t, broken)
		}
	})
	t.Run("one byte too many", func(t *testing.T) { expectPlain(t, append(bytes.Clone(envelope), 0)) })
	t.Run("nil", func(t *testing.T) { expectPlain(t, nil) })
	t.Run("empty message", func(t *testing.T) { expectPlain(t, kpltest.Seal(nil)) })
}

func TestMessageCutShortUnderARightDigestIsAPlainRecord(t *testing.T) {
	envelope := golden(t)
	message := envelope[4 : len(envelope)-16]
	// At the end of a field the rest is a message of its own: three tables' entries, then a record more each time.
	whole := map[int]int{7: 0, 13: 0, 17: 0, 26: 1, 36: 2, len(message): 3}
	for n := 1; n <= len(message); n++ {
		sealed := kpltest.Seal(message[:n])
		if records, ok := whole[n]; ok {
			if got := len(subs(t, sealed, kpl.HashRange{})); got != records {
				t.Errorf("%d bytes: %d records, want %d", n, got, records)
			}
			continue
		}
		expectPlain(t, sealed)
	}
}

func wire(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func bytesField(number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

func varintField(number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), value)
}

var (
	keyA     = bytesField(1, []byte("a"))
	keyB     = bytesField(1, []byte("b"))
	hashKey7 = bytesField(2, []byte("7"))
	dataX    = bytesField(3, []byte("x"))
	good     = bytesField(3, wire(varintField(1, 0), dataX))
	group    = wire(protowire.AppendTag(nil, 9, protowire.StartGroupType), varintField(1, 1), protowire.AppendTag(nil, 9, protowire.EndGroupType))
)

func TestUnparsableMessageIsAPlainRecord(t *testing.T) {
	for name, message := range map[string][]byte{
		"key index behind the table":            wire(keyA, good, bytesField(3, wire(varintField(1, 1), dataX))),
		"key index, no table":                   good,
		"key index 2^32, which KCL takes for 0": wire(keyA, bytesField(3, wire(varintField(1, 1<<32), dataX))),
		"key index 2^64-1":                      wire(keyA, bytesField(3, wire(varintField(1, 1<<64-1), dataX))),
		"hash key index behind the table":       wire(keyA, hashKey7, good, bytesField(3, wire(varintField(1, 0), varintField(2, 1), dataX))),
		"hash key index, no table":              wire(keyA, bytesField(3, wire(varintField(1, 0), varintField(2, 0), dataX))),
		"record without key index":              wire(keyA, good, bytesField(3, dataX)),
		"record without data":                   wire(keyA, good, bytesField(3, varintField(1, 0))),
		"record is empty":                       wire(keyA, bytesField(3, nil)),
		"record cut short":                      wire(keyA, bytesField(3, wire(varintField(1, 0), dataX[:2]))),
		"tag without key":                       wire(keyA, bytesField(3, wire(varintField(1, 0), dataX, bytesField(4, bytesField(2, []byte("v")))))),
		"tag is no message":                     wire(keyA, bytesField(3, wire(varintField(1, 0), dataX, bytesField(4, []byte{0xff})))),
		"field number 0":                        wire(keyA, good, []byte{0x00, 0x00}),
		"field number 2^29":                     wire(keyA, good, protowire.AppendVarint(nil, 1<<32), []byte{0}),
		"group that does not end":               wire(keyA, good, group[:3]),
		"end of a group that did not begin":     wire(keyA, good, group[3:]),
	} {
		t.Run(name, func(t *testing.T) { expectPlain(t, kpltest.Seal(message)) })
	}
}

func TestProtobufsLibertiesAreTaken(t *testing.T) {
	for name, c := range map[string]struct {
		message []byte
		want    []kpl.UserRecord
	}{
		"tables and no records": {wire(keyA, hashKey7), nil},
		"tables behind the records": {
			wire(good, bytesField(3, wire(varintField(1, 1), varintField(2, 0), dataX)), hashKey7, keyA, keyB),
			[]kpl.UserRecord{{PartitionKey: "a", Data: []byte("x")}, {PartitionKey: "b", ExplicitHashKey: "7", Data: []byte("x"), Sub: 1}},
		},
		"unknown fields": {
			wire(group, varintField(7, 1), keyA, bytesField(3, wire(group, varintField(1, 0), bytesField(8, []byte("?")), dataX))),
			[]kpl.UserRecord{{PartitionKey: "a", Data: []byte("x")}},
		},
		"known numbers with other wire types": {
			wire(varintField(1, 5), varintField(3, 5), keyA, bytesField(3, wire(bytesField(1, nil), varintField(1, 0), varintField(3, 1), dataX))),
			[]kpl.UserRecord{{PartitionKey: "a", Data: []byte("x")}},
		},
		"the last of a field counts": {
			wire(keyA, keyB, bytesField(3, wire(varintField(1, 9), bytesField(3, []byte("y")), varintField(1, 1), dataX))),
			[]kpl.UserRecord{{PartitionKey: "b", Data: []byte("x")}},
		},
		"indexes in no order": {
			wire(keyA, keyB, bytesField(3, wire(dataX, varintField(1, 1))), good),
			[]kpl.UserRecord{{PartitionKey: "b", Data: []byte("x")}, {PartitionKey: "a", Data: []byte("x"), Sub: 1}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			users, total, aggregated := kpl.SplitCounting(nil, kpltest.Seal(c.message), kpl.HashRange{})
			if !aggregated || total != len(c.want) || !reflect.DeepEqual(users, c.want) {
				t.Errorf("aggregated %v, total %d, users %+v; want %+v", aggregated, total, users, c.want)
			}
		})
	}
}

func TestAnAggregateInsideAnAggregateIsData(t *testing.T) {
	inner := golden(t)
	users, _ := kpl.Split(nil, kpltest.Aggregate([]kpltest.Record{{PartitionKey: "k", Data: inner}}), kpl.HashRange{})
	if len(users) != 1 || !bytes.Equal(users[0].Data, inner) {
		t.Errorf("got %+v", users)
	}
}

// After a split the producer still aggregates for the parent. Each child delivers its own part under KCL's numbers, and
// both together are the whole.
func TestStaleShardMapLosesNothing(t *testing.T) {
	var records []kpltest.Record
	for i := range 40 {
		records = append(records, kpltest.Record{PartitionKey: fmt.Sprintf("key-%d", i), Data: []byte{byte(i)}})
	}
	envelope := kpltest.Aggregate(records)
	delivered := map[int64]int{}
	for _, child := range []kpl.HashRange{hashRange(t, "0", lowerLast), hashRange(t, upper, maxHash)} {
		users, total, aggregated := kpl.SplitCounting(nil, envelope, child)
		if !aggregated || total != len(records) {
			t.Errorf("aggregated %v, total %d: the count must not depend on the range", aggregated, total)
		}
		if len(users) == 0 || len(users) == len(records) {
			t.Errorf("a child got %d of %d: this tests nothing", len(users), len(records))
		}
		for i, u := range users {
			if i > 0 && users[i-1].Sub >= u.Sub {
				t.Errorf("sub %d comes after %d", u.Sub, users[i-1].Sub)
			}
			if int(u.Data[0]) != int(u.Sub) {
				t.Errorf("record %d got the number %d: numbers count from before the filter", u.Data[0], u.Sub)
			}
			delivered[u.Sub]++
		}
	}
	for i := range records {
		if delivered[int64(i)] != 1 {
			t.Errorf("record %d was delivered %d times", i, delivered[int64(i)])
		}
	}
}

func TestAnAggregateWhollyOutsideIsStillAnAggregate(t *testing.T) {
	if got := subs(t, golden(t), hashRange(t, maxHash, maxHash)); len(got) != 0 {
		t.Errorf("delivered %v", got)
	}
}

func TestHashRangeFilter(t *testing.T) {
	explicit := func(hashKeys ...string) []byte {
		var records []kpltest.Record
		for _, h := range hashKeys {
			records = append(records, kpltest.Record{PartitionKey: "alpha", ExplicitHashKey: h, Data: []byte(h)})
		}
		return kpltest.Aggregate(records)
	}
	above := func(decimal string, delta int64) string {
		n, _ := new(big.Int).SetString(decimal, 10)
		return n.Add(n, big.NewInt(delta)).String()
	}
	for _, c := range []struct {
		name, start, end string
		envelope         []byte
		want             []int64
	}{
		{"both ends belong", "1000", "2000", explicit("999", "1000", "1001", "1999", "2000", "2001"), []int64{1, 2, 3, 4}},
		{"across the halves", above(upper, -1), upper, explicit(above(upper, -2), above(upper, -1), upper, above(upper, 1)), []int64{1, 2}},
		{"across 2^64", "18446744073709551615", "18446744073709551616", explicit("18446744073709551614", "18446744073709551615", "18446744073709551616", "18446744073709551617"), []int64{1, 2}},
		{"one place, the first", "0", "0", explicit("0", "1", maxHash), []int64{0}},
		{"one place, the last", maxHash, maxHash, explicit("0", above(maxHash, -1), maxHash), []int64{2}},
		{"whole key space", "0", maxHash, explicit("0", upper, maxHash), []int64{0, 1, 2}},
		{"MD5 of the partition key", alphaHash, alphaHash, explicit("", "0"), []int64{0}},
		{"explicit hash key before partition key", "0", "0", explicit("", "0"), []int64{1}},
		{"leading zeros are a number", "7", "7", explicit("0000000000000000000000000000000000000000000000007"), []int64{0}},
		{"invalid explicit hash keys fall back", alphaHash, alphaHash, explicit("-1", "+1", "1e3", "0x10", " 1", "١", above(maxHash, 1), "9999999999999999999999999999999999999999", maxHash+"0"), []int64{0, 1, 2, 3, 4, 5, 6, 7, 8}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := subs(t, c.envelope, hashRange(t, c.start, c.end)); !reflect.DeepEqual(got, c.want) {
				t.Errorf("delivered %v, want %v", got, c.want)
			}
		})
	}
}

func TestEmptyExplicitHashKeyInTheTableFallsBack(t *testing.T) {
	message := wire(bytesField(1, []byte("alpha")), bytesField(2, nil), bytesField(3, wire(varintField(1, 0), varintField(2, 0), dataX)))
	if got := subs(t, kpltest.Seal(message), hashRange(t, alphaHash, alphaHash)); len(got) != 1 {
		t.Errorf("delivered %v", got)
	}
}

func TestTablesOfAnyLength(t *testing.T) {
	var records []kpltest.Record
	for i := range 500 {
		records = append(records, kpltest.Record{PartitionKey: strings.Repeat("k", i%7) + fmt.Sprint(i), ExplicitHashKey: fmt.Sprint(i), Data: []byte{}})
	}
	users, _ := kpl.Split(nil, kpltest.Aggregate(records), kpl.HashRange{})
	for i, u := range users {
		if u.PartitionKey != records[i].PartitionKey || u.ExplicitHashKey != records[i].ExplicitHashKey {
			t.Fatalf("record %d came as %+v", i, u)
		}
	}
	if len(users) != len(records) {
		t.Errorf("%d records of %d", len(users), len(records))
	}
}

func records() *rapid.Generator[[]kpltest.Record] {
	text := rapid.OneOf(rapid.SampledFrom([]string{"", "a", "b", "42", maxHash, "no number"}), rapid.String())
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) kpltest.Record {
		return kpltest.Record{
			PartitionKey:    text.Draw(t, "key"),
			ExplicitHashKey: text.Draw(t, "hash key"),
			Data:            rapid.SliceOf(rapid.Byte()).Draw(t, "data"),
		}
	}), 1, 40)
}

func TestSplitUndoesAggregateAndAShardGetsWhatItContains(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		records := records().Draw(rt, "records")
		cut := rapid.StringMatching(`[1-9][0-9]{0,37}`).Draw(rt, "cut")
		in := hashRange(t, "0", cut)
		var whole, part []kpl.UserRecord
		for i, r := range records {
			u := kpl.UserRecord{PartitionKey: r.PartitionKey, ExplicitHashKey: r.ExplicitHashKey, Data: append([]byte{}, r.Data...), Sub: int64(i)}
			whole = append(whole, u)
			if in.Contains(u.PartitionKey, u.ExplicitHashKey) {
				part = append(part, u)
			}
		}
		envelope := kpltest.Aggregate(records)
		if got, _ := kpl.Split(nil, envelope, kpl.HashRange{}); !reflect.DeepEqual(got, whole) {
			rt.Errorf("got %+v\nwant %+v", got, whole)
		}
		if got, total, _ := kpl.SplitCounting(nil, envelope, in); total != len(whole) || len(got) != len(part) || len(got) > 0 && !reflect.DeepEqual(got, part) {
			rt.Errorf("0…%s: got %+v\nwant %+v", cut, got, part)
		}
	})
}
