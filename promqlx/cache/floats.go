package cache

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"slices"
	"sort"

	"github.com/prometheus/prometheus/promql"
)

// The floats of a series in a block are encoded as the steps that have one, a bit for each in an unsigned varint, and
// then their values. Of a value there is what the XOR with the one before leaves, without zeros before and after it:
// how many bytes were left out after it and how many there are, four bits each, and these. That is the encoding of
// Gorilla (Pelkonen et al., VLDB 2015) in whole bytes: snappy makes up for the bits, and it takes a fifth of the time.

// errOffGrid says that an answer has a sample that is at no step.
var errOffGrid = errors.New("a sample is at no step of the grid")

// appendFloats encodes those floats of a series that are from one step of the grid to another one (ms, inclusive).
// found reports whether there are any.
func appendFloats(to []byte, all []promql.FPoint, from, until, step int64) (out []byte, found bool, err error) {
	list := all[sort.Search(len(all), func(i int) bool { return all[i].T >= from }):]
	list = list[:sort.Search(len(list), func(i int) bool { return list[i].T > until })]
	var at uint64
	for _, p := range list {
		if (p.T-from)%step != 0 {
			return nil, false, errOffGrid
		}
		at |= 1 << ((p.T - from) / step)
	}
	to = binary.AppendUvarint(to, at)
	before := uint64(0)
	for _, p := range list {
		diff := math.Float64bits(p.F) ^ before
		before ^= diff
		if diff == 0 {
			to = append(to, 0)
			continue
		}
		left := bits.TrailingZeros64(diff) / 8
		size := 8 - left - bits.LeadingZeros64(diff)/8
		to = append(to, byte(left<<4|size))
		n := len(to)
		to = binary.LittleEndian.AppendUint64(to, diff>>(8*left))[:n+size]
	}
	return to, len(list) > 0, nil
}

// floats decodes those of a block that begins at a step (ms), and appends those from one time to another one (ms,
// inclusive).
func (r *reader) floats(list []promql.FPoint, begin, step, from, until int64) []promql.FPoint {
	at := r.number()
	rest, before := r.rest, uint64(0)
	list = slices.Grow(list, bits.OnesCount64(at))
	for ; at != 0; at &= at - 1 {
		if len(rest) == 0 {
			r.fail()
			return list
		}
		left, size := int(rest[0]>>4), int(rest[0]&15)
		if left+size > 8 || len(rest) < 1+size {
			r.fail()
			return list
		}
		var diff [8]byte
		copy(diff[left:], rest[1:1+size])
		rest = rest[1+size:]
		before ^= binary.LittleEndian.Uint64(diff[:])
		if t := begin + int64(bits.TrailingZeros64(at))*step; t >= from && t <= until {
			list = append(list, promql.FPoint{T: t, F: math.Float64frombits(before)})
		}
	}
	r.rest = rest
	return list
}
