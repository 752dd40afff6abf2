package kinesistest

import (
	"encoding/base64"
	"testing"

	"pgregory.net/rapid"
)

func TestIteratorsAreReadAsTheyWereWrittenAndOnlyByTheirServer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		it := iterator{
			stream:   rapid.StringMatching(`[a-zA-Z0-9_.-]{1,128}`).Draw(t, "stream"),
			created:  rapid.Int64().Draw(t, "created"),
			shard:    rapid.Uint32().Draw(t, "shard"),
			position: rapid.Uint64().Draw(t, "position"),
			issued:   rapid.Int64().Draw(t, "issued"),
			epoch:    rapid.Uint32().Draw(t, "epoch"),
		}
		text := it.encode([]byte("key"))
		if back, err := decodeIterator([]byte("key"), text); err != nil || back != it {
			t.Fatalf("%+v is read as %+v, %v", it, back, err)
		}
		if _, err := decodeIterator([]byte("other"), text); err == nil {
			t.Fatal("another server accepts it")
		}
		// One changed character anywhere is noticed.
		b := []byte(text)
		at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		b[at] = rapid.ByteRange(0, 255).Filter(func(c byte) bool { return c != text[at] }).Draw(t, "changed")
		if _, err := decodeIterator([]byte("key"), string(b)); err == nil {
			t.Fatalf("accepted although changed at %d", at)
		}
	})
}

func FuzzDecodeIterator(f *testing.F) {
	key := []byte("key")
	good := iterator{stream: "orders", shard: 3, position: 9, created: 1, issued: 2}
	f.Add(good.encode(key), true)
	f.Add("", false)
	f.Add("AAAA\n", false)
	f.Add(base64.StdEncoding.EncodeToString(make([]byte, iteratorFixed+iteratorSum)), true)
	f.Fuzz(func(t *testing.T, text string, signed bool) {
		if signed {
			// The signature stops the fuzzer; with it made right the layout behind it is reached.
			if b, err := base64.StdEncoding.DecodeString(text); err == nil {
				text = base64.StdEncoding.EncodeToString(append(b, sign(key, b)...))
			}
		}
		if it, err := decodeIterator(key, text); err == nil && it.encode(key) != text {
			t.Fatalf("%q is accepted and written as %q", text, it.encode(key))
		}
	})
}
