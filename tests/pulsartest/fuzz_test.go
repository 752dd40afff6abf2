package pulsartest

import (
	"bufio"
	"bytes"
	"testing"
)

// FuzzFrames feeds a connection's whole decoding with arbitrary bytes: it must end in values or errors, never in a panic, and
// what it returns must lie within the input.
func FuzzFrames(f *testing.F) {
	key := "k"
	for _, send := range []RawSend{
		{Producer: 1, Sequence: 2, Name: "p", Payload: []byte("x"), Key: &key},
		{Producer: 1, Sequence: 2, Highest: 3, Name: "p", Batch: []string{"a", "", "c"}},
		{Name: "p", Batch: []string{"a"}, Claim: 1 << 30},
		{Name: "p", NoChecksum: true},
	} {
		f.Add(send.Frame())
	}
	f.Add(frame(cmdProducer, message{}.string(1, "t").uint(2, 1).uint(3, 1).string(4, "n").bytes(6, message{}.string(1, "a").string(2, "b"))))
	f.Add(frame(cmdConnect, message{}.string(1, "c").bytes(3, []byte("token")).string(5, "token")))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			fr, err := readFrame(r, nil, 1<<20)
			if err != nil {
				return
			}
			raw, rest, err := splitFrame(fr)
			if err != nil {
				continue
			}
			cmd, err := decodeCommand(raw)
			if err != nil || cmd.kind != cmdSend {
				continue
			}
			body, err := verifyChecksum(rest)
			if err != nil {
				continue
			}
			decodeEntry(t, &cmd, body)
		}
	})
}

// FuzzEntries starts behind the checksum, which arbitrary bytes never get past.
func FuzzEntries(f *testing.F) {
	for _, send := range []RawSend{
		{Name: "p", Payload: []byte("x")},
		{Name: "p", Batch: []string{"a", "", "c"}},
		{Name: "p", Batch: []string{"a"}, Claim: 1 << 30},
		{Name: "p", Batch: []string{"a"}, Claim: -5},
	} {
		send.NoChecksum = true
		_, rest, err := splitFrame(send.Frame()[4:])
		if err != nil {
			f.Fatal(err)
		}
		for codec := range byte(6) {
			f.Add(rest, codec)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, codec byte) {
		decodeEntry(t, &command{kind: cmdSend, numMessages: 1}, body)
		size := uint32(codec) << 4
		out, err := decompress(Compression(codec), body, size)
		if err == nil && codec > byte(SNAPPY) {
			t.Error("an unknown codec was accepted")
		}
		if err == nil && codec != 0 && len(out) != int(size) {
			t.Errorf("%d bytes instead of %d", len(out), size)
		}
	})
}

func decodeEntry(t *testing.T, cmd *command, body []byte) {
	e := sent{cmd: cmd}
	e.decode(body, true)
	size := 0
	for _, m := range e.messages {
		size += len(m.Payload)
	}
	if size > len(e.payload) {
		t.Errorf("%d bytes of messages in %d bytes of payload", size, len(e.payload))
	}
}
