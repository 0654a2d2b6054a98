package cache

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"

	"github.com/golang/snappy"
)

// A value of the store is encoded as
//
//	version, CRC-32C of all that follows (4 bytes), key (with its length), some numbers, body (snappy)
//
// where numbers are unsigned varints, and texts and bytes come after their length.

// version is that of the encoding. Another one is another key of the store: see Found.storeKey.
const version = 2

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errNoBlock says that bytes are no block of the key: they are of another version, broken, or those of another
// key with the same hash.
var errNoBlock = errors.New("not a block of this key")

// maxBody is the most bytes of a body that is decoded.
const maxBody = 256 << 20

// seal returns the value of a key.
func seal(key string, numbers []int64, body []byte) []byte {
	out := make([]byte, 5, 64+len(key)+snappy.MaxEncodedLen(len(body)))
	out[0] = version
	out = appendText(out, key)
	for _, n := range numbers {
		out = binary.AppendUvarint(out, uint64(n))
	}
	out = append(out, snappy.Encode(out[len(out):cap(out)], body)...) // in place, as there is room
	binary.BigEndian.PutUint32(out[1:], crc32.Checksum(out[5:], castagnoli))
	return slices.Clip(slices.Clone(out))
}

// unseal reads the numbers and returns the body of the value of a key.
func unseal(key string, value []byte, numbers ...*int64) (body []byte, err error) {
	if len(value) < 5 || value[0] != version || crc32.Checksum(value[5:], castagnoli) != binary.BigEndian.Uint32(value[1:]) {
		return nil, errNoBlock
	}
	r := reader{rest: value[5:]}
	own := r.bytes()
	for _, to := range numbers {
		n := r.number()
		if n > math.MaxInt64 {
			return nil, errNoBlock
		}
		*to = int64(n)
	}
	size, err := snappy.DecodedLen(r.rest)
	if err != nil || r.failed || string(own) != key || size > maxBody {
		return nil, errNoBlock
	}
	if body, err = snappy.Decode(nil, r.rest); err != nil {
		return nil, errNoBlock
	}
	return body, nil
}

func appendText[T string | []byte](to []byte, text T) []byte {
	return append(binary.AppendUvarint(to, uint64(len(text))), text...)
}

// reader reads what is encoded. Once it has failed, all that it reads is empty.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) bytes() []byte {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.fail()
		return nil
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) fail() { r.rest, r.failed = nil, true }
