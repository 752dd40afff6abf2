package pulsartest

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Compression is the codec of an entry's payload, with the numbers of Pulsar's protocol.
type Compression int

// The codecs of the protocol.
const (
	NoCompression Compression = iota
	LZ4
	ZLIB
	ZSTD
	SNAPPY
)

// String is the protocol's name of the codec.
func (c Compression) String() string {
	switch c {
	case NoCompression:
		return "NONE"
	case LZ4:
		return "LZ4"
	case ZLIB:
		return "ZLIB"
	case ZSTD:
		return "ZSTD"
	case SNAPPY:
		return "SNAPPY"
	}
	return "Compression(" + strconv.Itoa(int(c)) + ")"
}

// maxUncompressed bounds what one entry may grow to, so that a corrupt size costs an error and not the process. The
// largest legitimate entries are unbatched messages whose *compressed* size is within maxMessageSize.
const maxUncompressed = 256 << 20

var errUncompressedSize = errors.New("payload does not have the uncompressed size that its metadata names")

var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	// Concurrency 1 keeps DecodeAll in the calling goroutine: no goroutine outlives a broker.
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxUncompressed))
})

// decompress returns the payload; size is what the metadata names as its uncompressed size.
func decompress(codec Compression, payload []byte, size uint32) ([]byte, error) {
	if codec == NoCompression {
		return payload, nil
	}
	if size > maxUncompressed {
		return nil, fmt.Errorf("%w: %d bytes are above the limit of %d", errUncompressedSize, size, maxUncompressed)
	}
	var out []byte
	var err error
	switch codec {
	case LZ4:
		out, err = decompressLZ4(payload, int(size))
	case ZLIB:
		out, err = decompressZLIB(payload, int(size))
	case ZSTD:
		var decoder *zstd.Decoder
		if decoder, err = zstdDecoder(); err == nil {
			out, err = decoder.DecodeAll(payload, make([]byte, 0, min(int(size), 1<<20)))
		}
	case SNAPPY:
		// The block names its own length: checked before anything is allocated for it.
		var n int
		if n, err = snappy.DecodedLen(payload); err == nil && n == int(size) {
			out, err = snappy.Decode(nil, payload)
		}
	default:
		return nil, fmt.Errorf("unknown compression %d", int(codec))
	}
	if err != nil {
		return nil, fmt.Errorf("decompressing %s: %w", codec, err)
	}
	if len(out) != int(size) {
		return nil, fmt.Errorf("decompressing %s: %w: %d instead of %d bytes", codec, errUncompressedSize, len(out), size)
	}
	return out, nil
}

// decompressLZ4 reads a bare block, as the Java library writes it: no frame, the length is only in the metadata.
func decompressLZ4(payload []byte, size int) ([]byte, error) {
	// A block can't grow more than 255-fold.
	if size > 255*len(payload)+64 {
		return nil, errUncompressedSize
	}
	out := make([]byte, size)
	n, err := lz4.UncompressBlock(payload, out)
	if err != nil {
		return nil, err
	}
	return out[:n], nil
}

func decompressZLIB(payload []byte, size int) ([]byte, error) {
	r, err := zlib.NewReader(bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Grow(min(size, 1<<20))
	// One byte more than named is enough to tell that there is too much.
	if _, err := io.Copy(&out, io.LimitReader(r, int64(size)+1)); err != nil {
		return nil, err
	}
	return out.Bytes(), r.Close()
}
