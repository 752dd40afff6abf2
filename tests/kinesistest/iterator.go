package kinesistest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// iteratorLife is how long a shard iterator can be used, and the token of a listing too.
const iteratorLife = 5 * time.Minute

// iterator is what a shard iterator says. It refers to one incarnation of a stream: that of a stream deleted and
// created again under the same name is another one.
type iterator struct {
	stream   string
	created  int64 // the stream's creation, milliseconds since 1970
	shard    uint32
	position uint64 // index of the first record that may come
	issued   int64  // milliseconds since 1970
	epoch    uint32 // of the server; an earlier one has expired, whatever the clock says
}

var errIterator = errors.New("not an iterator of this server")

const (
	iteratorVersion = 1
	iteratorFixed   = 1 + 8 + 8 + 4 + 8 + 4
	iteratorSum     = 16
)

// encode signs the iterator, so that one which was cut, changed or made by another server is told apart from an old one.
func (it iterator) encode(key []byte) string {
	b := make([]byte, 0, iteratorFixed+len(it.stream)+iteratorSum)
	b = append(b, iteratorVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(it.created))
	b = binary.BigEndian.AppendUint64(b, uint64(it.issued))
	b = binary.BigEndian.AppendUint32(b, it.shard)
	b = binary.BigEndian.AppendUint64(b, it.position)
	b = binary.BigEndian.AppendUint32(b, it.epoch)
	b = append(b, it.stream...)
	return base64.StdEncoding.EncodeToString(append(b, sign(key, b)...))
}

func decodeIterator(key []byte, text string) (iterator, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	// The decoder skips line breaks; an iterator has none.
	if err != nil || len(b) < iteratorFixed+iteratorSum || base64.StdEncoding.EncodedLen(len(b)) != len(text) {
		return iterator{}, errIterator
	}
	body, sum := b[:len(b)-iteratorSum], b[len(b)-iteratorSum:]
	if body[0] != iteratorVersion || !bytes.Equal(sum, sign(key, body)) {
		return iterator{}, errIterator
	}
	return iterator{
		created:  int64(binary.BigEndian.Uint64(body[1:])),
		issued:   int64(binary.BigEndian.Uint64(body[9:])),
		shard:    binary.BigEndian.Uint32(body[17:]),
		position: binary.BigEndian.Uint64(body[21:]),
		epoch:    binary.BigEndian.Uint32(body[29:]),
		stream:   string(body[iteratorFixed:]),
	}, nil
}

func sign(key, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(body)
	return mac.Sum(nil)[:iteratorSum]
}
