package shared

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
)

// sealSize is what a seal adds to a value (bytes).
const sealSize = sha256.Size

// sealer names and seals values with an HMAC. Without a secret anybody can compute it: it then
// finds values that are broken, or those of another key, but no forgeries.
type sealer struct{ secret []byte }

// name returns the name by which servers know the value of a key. Oneproms whose secrets differ
// have different names, so that they do not overwrite each other's values.
func (s sealer) name(key string) string {
	h := s.begin('n')
	h.Write([]byte(key))
	return "oneprom:" + hex.EncodeToString(h.Sum(nil))
}

// seal returns the seal of a value, and the value behind it.
func (s sealer) seal(key string, value []byte) []byte {
	sealed := make([]byte, 0, sealSize+len(value))
	return append(s.sum(sealed, key, value), value...)
}

// open returns the value that was sealed for a key, and whether its seal is right.
func (s sealer) open(key string, sealed []byte) (value []byte, ok bool) {
	if len(sealed) < sealSize {
		return nil, false
	}
	seal, value := sealed[:sealSize], sealed[sealSize:]
	return value, hmac.Equal(seal, s.sum(nil, key, value))
}

// sum appends the seal of a value to b.
func (s sealer) sum(b []byte, key string, value []byte) []byte {
	h := s.begin('v')
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(key))))
	h.Write([]byte(key))
	h.Write(value)
	return h.Sum(b)
}

// begin begins an HMAC for a purpose: that of a name is no seal.
func (s sealer) begin(purpose byte) hash.Hash {
	h := hmac.New(sha256.New, s.secret)
	h.Write([]byte{purpose})
	return h
}
