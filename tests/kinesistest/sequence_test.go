package kinesistest

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The two numbers are those of the Lambda guide's example event, which tells the shard and the arrival too.
func TestSequenceNumbersHaveTheLayoutOfThoseFromAWS(t *testing.T) {
	for text, arrival := range map[string]int64{
		"49590338271490256608559692538361571095921575989136588898": 1545084650,
		"49590338271490256608559692540925702759324208523137515618": 1545084711,
	} {
		q, err := parseSequence(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if q.shard != 6 || q.arrived < arrival-2 || q.arrived > arrival+2 || q.created > q.arrived {
			t.Errorf("%s reads as shard %d, arrived %d, shard created %d", text, q.shard, q.arrived, q.created)
		}
		if q.String() != text {
			t.Errorf("%s is written as %s", text, q)
		}
	}
}

func genSequence(t *rapid.T) sequence {
	return sequence{
		created: rapid.Int64Range(0, nineHexDigits).Draw(t, "created"),
		shard:   rapid.Uint32().Draw(t, "shard"),
		index:   rapid.Uint64Range(0, maxRecordIndex).Draw(t, "index"),
		arrived: rapid.Int64Range(0, nineHexDigits).Draw(t, "arrived"),
	}
}

func TestSequenceNumbersAreReadAsTheyWereWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := genSequence(t)
		text := q.String()
		if len(text) != sequenceDigits {
			t.Fatalf("%d digits: %s", len(text), text)
		}
		high, middle, low := q.words()
		n := new(big.Int).SetUint64(high)
		n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(middle))
		n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(low))
		if n.String() != text {
			t.Fatalf("written as %s instead of %s", text, n)
		}
		if back, err := parseSequence(text); err != nil || back != q {
			t.Fatalf("%+v is read as %+v, %v", q, back, err)
		}
	})
}

func TestSequenceNumbersOfAShardGrowWithTheRecordsWhateverTheClockDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genSequence(t), genSequence(t)
		a.index = rapid.Uint64Range(0, maxRecordIndex-1).Draw(t, "first")
		b.index = rapid.Uint64Range(a.index+1, maxRecordIndex).Draw(t, "second")
		b.created, b.shard = a.created, a.shard
		if a.String() >= b.String() {
			t.Fatalf("%s is not below %s", a, b)
		}
	})
}

func FuzzParseSequence(f *testing.F) {
	f.Add("49590338271490256608559692538361571095921575989136588898")
	f.Add("0")
	f.Add("99999999999999999999999999999999999999999999999999999999")
	f.Add(sequence{created: time.Now().Unix(), shard: 3, index: 7}.String())
	f.Fuzz(func(t *testing.T, text string) {
		if q, err := parseSequence(text); err == nil && q.String() != text {
			t.Fatalf("%q is accepted and written as %q", text, q)
		}
	})
}
