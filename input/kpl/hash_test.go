package kpl_test

import (
	"crypto/md5"
	"errors"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/kpl"
)

func TestHashRangeWithoutEndsIsEverything(t *testing.T) {
	if r := hashRange(t, "", ""); r != (kpl.HashRange{}) {
		t.Errorf("a lease without a hash range got %+v", r)
	}
	if r := hashRange(t, "0", maxHash); r != (kpl.HashRange{}) {
		t.Errorf("the whole key space is not the zero value but %+v", r)
	}
	if r := hashRange(t, "0", "0"); r == (kpl.HashRange{}) {
		t.Error("the range from 0 to 0 is taken for the whole key space")
	}
}

func TestBadHashRangeIsRefusedByTheEndThatIsWrong(t *testing.T) {
	for _, c := range []struct {
		start, end, says string
		notAKey          bool
	}{
		{"", "1", "starting", true},
		{"1", "", "ending", true},
		{"-1", "1", "starting", true},
		{"0", "340282366920938463463374607431768211456", "ending", true},
		{"0", "3402823669209384634633746074317682114550", "ending", true},
		{"0", "0xff", "ending", true},
		{"2", "1", "above", false},
		{upper, lowerLast, "above", false},
	} {
		r, err := kpl.ParseHashRange(c.start, c.end)
		if err == nil || !strings.Contains(err.Error(), c.says) || errors.Is(err, kpl.ErrHashKey) != c.notAKey || r != (kpl.HashRange{}) {
			t.Errorf("%q to %q: %+v, %v", c.start, c.end, r, err)
		}
	}
}

// The model is big.Int, with the rules of Contains written out again.
func TestContainsAgreesWithBigIntegers(t *testing.T) {
	space := new(big.Int).Lsh(big.NewInt(1), 128)
	number := rapid.Custom(func(t *rapid.T) *big.Int {
		n := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 16).Draw(t, "bytes"))
		return n.Rsh(n, uint(rapid.IntRange(0, 127).Draw(t, "shift")))
	})
	rapid.Check(t, func(t *rapid.T) {
		first, last := number.Draw(t, "first"), number.Draw(t, "last")
		if first.Cmp(last) > 0 {
			first, last = last, first
		}
		in, err := kpl.ParseHashRange(first.String(), last.String())
		if err != nil {
			t.Fatal(err)
		}
		key := rapid.String().Draw(t, "key")
		explicit := rapid.OneOf(
			rapid.Just(""), rapid.StringMatching(`[0-9]{1,42}`), rapid.Just(first.String()), rapid.Just(last.String()),
			rapid.Just(new(big.Int).Add(last, big.NewInt(1)).String()),
			rapid.Map(number, (*big.Int).String),
		).Draw(t, "explicit")
		place, ok := new(big.Int).SetString(explicit, 10)
		if !ok || place.Cmp(space) >= 0 {
			sum := md5.Sum([]byte(key))
			place = new(big.Int).SetBytes(sum[:])
		}
		want := first.Cmp(place) <= 0 && place.Cmp(last) <= 0
		if got := in.Contains(key, explicit); got != want {
			t.Errorf("[%s, %s] contains (%q, %q): %v", first, last, key, explicit, got)
		}
	})
}
