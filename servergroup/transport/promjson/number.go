package promjson

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
)

// scanSample reads a sample at the start of in, in the form in which Prometheus prints it:
// [<time>,"<value>"] without white space. n is its length, or 0 if in starts with anything
// else or ends before the sample does.
func scanSample(in []byte) (t int64, f float64, n int) {
	if len(in) == 0 || in[0] != '[' {
		return 0, 0, 0
	}
	t, n = scanTime(in[1:])
	n++
	if n == 1 || n+1 >= len(in) || in[n] != ',' || in[n+1] != '"' {
		return 0, 0, 0
	}
	n += 2
	f, size := scanFloat(in[n:])
	n += size + 1
	if size == 0 || n >= len(in) || in[n] != ']' {
		return 0, 0, 0
	}
	return t, f, n + 1
}

// scanTime reads a time in seconds with up to three decimals and returns it in ms. n is its
// length, or 0 if in starts with anything else or ends with the time, which may continue.
func scanTime(in []byte) (ms int64, n int) {
	i, neg := 0, false
	if len(in) > 0 && in[0] == '-' {
		i, neg = 1, true
	}
	first := i
	s, i := digits(in, i, 0)
	if i == first || i == len(in) || i-first > 16 || in[first] == '0' && i-first > 1 || s > math.MaxInt64/1000-1 {
		return 0, 0
	}
	ms = int64(s) * 1000
	if in[i] == '.' {
		i++
		unit := int64(100)
		for first = i; i < len(in) && in[i]-'0' <= 9; i++ {
			ms += unit * int64(in[i]-'0')
			unit /= 10
		}
		if i == first || i-first > 3 || i == len(in) {
			return 0, 0
		}
	}
	if in[i] == 'e' || in[i] == 'E' {
		return 0, 0
	}
	if neg {
		ms = -ms
	}
	return ms, i
}

// parseTime returns a time, a JSON number of seconds, in ms. ok is false if it does not fit in
// an int64.
func parseTime(text []byte) (ms int64, ok bool) {
	if ms, n := scanTime(append(text, ',')); n > 0 {
		return ms, true
	}
	f, err := strconv.ParseFloat(string(text), 64)
	f = math.Round(f * 1000)
	if err != nil || f < math.MinInt64 || f >= math.MaxInt64 {
		return 0, false
	}
	return int64(f), true
}

// scanFloat reads a number up to the quote after it. n is its length without the quote, or 0
// if in starts with anything else or has no quote. The value is that of strconv.ParseFloat, to
// the last bit.
func scanFloat(in []byte) (f float64, n int) {
	i, neg := 0, false
	if len(in) > 0 && in[0] == '-' {
		i, neg = 1, true
	}
	first := i
	m, i := digits(in, i, 0)
	figures, decimals := i-first, 0
	if i < len(in) && in[i] == '.' {
		i++
		first = i
		if m == 0 {
			// Leading zeros do not count as figures of m.
			for ; i < len(in) && in[i] == '0'; i++ {
			}
			figures -= i - first
		}
		m, i = digits(in, i, m)
		decimals = i - first
		figures += decimals
	}
	if i == len(in) {
		return 0, 0
	}
	if in[i] != '"' || figures+decimals == 0 || figures > 19 || decimals > maxDecimals {
		return parseFloat(in)
	}
	if f = decimal(m, decimals); neg {
		f = -f
	}
	return f, i
}

// digits reads the digits at in[i:] and appends them to the number m, modulo
// 2^64. It returns the index after them.
func digits(in []byte, i int, m uint64) (uint64, int) {
	for i+8 <= len(in) {
		v, ok := eight(binary.LittleEndian.Uint64(in[i:]))
		if !ok {
			break
		}
		m = m*100_000_000 + v
		i += 8
	}
	for ; i < len(in) && in[i]-'0' <= 9; i++ {
		m = m*10 + uint64(in[i]-'0')
	}
	return m, i
}

// eight returns the value of eight digits, the first of them in the lowest
// byte. ok is false if one of the bytes is no digit.
func eight(v uint64) (n uint64, ok bool) {
	const each = 0x0101010101010101
	// A digit is 0x30 to 0x39: its upper half is 3, and stays 3 if 6 is added.
	if v&(0xf0*each) != 0x30*each || (v+6*each)&(0xf0*each) != 0x30*each {
		return 0, false
	}
	v -= 0x30 * each
	// Neighbours are joined: digits to pairs, pairs to fours, fours to eight.
	v = (v*10 + v>>8) & 0x00ff00ff00ff00ff
	v = (v*100 + v>>16) & 0x0000ffff0000ffff
	return (v*10000 + v>>32) & 0xffffffff, true
}

// parseFloat is scanFloat for all other numbers.
func parseFloat(in []byte) (f float64, n int) {
	n = bytes.IndexByte(in, '"')
	if n <= 0 {
		return 0, 0
	}
	f, err := strconv.ParseFloat(string(in[:n]), 64)
	if err != nil {
		return 0, 0
	}
	return f, n
}

// maxDecimals is the greatest power of five that fits in 64 bits.
const maxDecimals = 27

var (
	pow5  = [maxDecimals + 1]uint64{0: 1}
	pow10 = [23]float64{0: 1}
)

func init() {
	for i := 1; i < len(pow5); i++ {
		pow5[i] = 5 * pow5[i-1]
	}
	for i := 1; i < len(pow10); i++ {
		pow10[i] = 10 * pow10[i-1]
	}
}

// decimal returns the float64 nearest to m/10^k, for k <= maxDecimals.
func decimal(m uint64, k int) float64 {
	if k == 0 || m == 0 {
		return float64(m)
	}
	if m <= 1<<53 && k < len(pow10) {
		// Both are exact, so there is only one rounding, that of the quotient.
		return float64(m) / pow10[k]
	}
	// m/5^k to at least 63 bits, by a division of 128 by 64 bits, both shifted to the left
	// end. A remainder sets the lowest bit, beyond the 53 bits that are kept, so that the
	// conversion rounds once and correctly. Powers of two only change the exponent.
	d := pow5[k]
	sm, sd := bits.LeadingZeros64(m), bits.LeadingZeros64(d)
	m <<= sm
	q, rest := bits.Div64(m>>1, m<<63, d<<sd)
	if rest != 0 {
		q |= 1
	}
	return float64(q) * math.Float64frombits(uint64(1023-63+sd-sm-k)<<52)
}
