package promjson

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// requireFloat: scanFloat reads what strconv reads, or leaves it to strconv.
func requireFloat(t *testing.T, text string) {
	t.Helper()
	want, err := strconv.ParseFloat(text, 64)
	got, n := scanFloat([]byte(text + `"]`))
	if err != nil {
		require.Zero(t, n, text)
		return
	}
	require.Equal(t, len(text), n, text)
	require.Equal(t, math.Float64bits(want), math.Float64bits(got), "%s: want %v, got %v", text, want, got)
	_, n = scanFloat([]byte(text))
	require.Zero(t, n, "%s without a quote", text)
}

func TestScanFloat(t *testing.T) {
	for _, text := range []string{
		"0", "-0", "1", "-1", "0.0", "-0.0", "1.", ".5", "-.5", "007", "1e5", "1E-5", "NaN", "+Inf", "-Inf", "inf", "Infinity", "+1", "0x1p-2",
		"", "-", ".", "-.", "1.2.3", "1e", "e5", "--1", "1-", " 1", "1 ", "0x", "1_000", `1\`,
		"9007199254740992", "9007199254740993", "9007199254740995", "900719925474099.3", "18446744073709551615", "18446744073709551616",
		"9999999999999999999", "99999999999999999999", "0.9999999999999999999", "1.9999999999999999999",
		"0.016666666666666666", "0.00016666666666666666", "0.0000000000166666666666666666", "0." + strings.Repeat("0", 26) + "1", "0." + strings.Repeat("0", 27) + "1",
		"0." + strings.Repeat("0", 400) + "1", strings.Repeat("9", 400), "1" + strings.Repeat("0", 308), "18446744073709551616" + "." + strings.Repeat("0", 20),
		"4.9406564584124654e-324", "2.2250738585072011e-308", "1.7976931348623157e308", "1e309",
		// Just between two float64s, and a digit to either side of it.
		"1.00000000000000011102230246251565404236316680908203125", "4503599627370496.5", "4503599627370497.5", "4503599627370496.501", "450359962737049650.5e-2",
	} {
		requireFloat(t, text)
	}
}

func TestScanFloatRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 40_000 {
		f := math.Float64frombits(rng.Uint64())
		requireFloat(t, strconv.FormatFloat(f, 'g', -1, 64))
		f = math.Ldexp(rng.Float64(), rng.IntN(120)-60)
		requireFloat(t, strconv.FormatFloat(f, 'f', -1, 64))
		requireFloat(t, strconv.FormatFloat(f, 'f', rng.IntN(30), 64))
	}
}

// TestDecimalHalf: quotients that lie between two float64s, or as near to it as
// the remainder of the division tells, are rounded as strconv does.
func TestDecimalHalf(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 40_000 {
		// An odd number of 54 bits is halfway; times a power of five it is one of
		// decimals again.
		k := rng.IntN(5) + 1
		half := (1<<53 | rng.Uint64N(1<<53)) | 1
		if k <= 4 && half < math.MaxUint64/pow5[k] {
			for _, m := range []uint64{half * pow5[k], half*pow5[k] + 1, half*pow5[k] - 1} {
				requireDecimal(t, m, k)
			}
		}
		requireDecimal(t, rng.Uint64()>>rng.IntN(64), rng.IntN(maxDecimals+1))
	}
}

func requireDecimal(t *testing.T, m uint64, k int) {
	t.Helper()
	want, err := strconv.ParseFloat(strconv.FormatUint(m, 10)+"e-"+strconv.Itoa(k), 64)
	require.NoError(t, err)
	require.Equal(t, want, decimal(m, k), "%d/10^%d", m, k)
}

func TestParseTime(t *testing.T) {
	for text, want := range map[string]int64{
		"4": 4000, "0": 0, "-0": 0, "-0.5": -500, "-59.200": -59200, "1435781451.781": 1435781451781, "1435781451.78": 1435781451780, "0.001": 1,
		"1.7e9": 1700000000000, "17E8": 1700000000000, "1.0005": 1001, "1.00049": 1000, "1435781451.7810": 1435781451781, "1e-3": 1,
		"9223309901257974.775": 9223309901257974775, "-9223309901257974.775": -9223309901257974775, "9223372036854773.807": 9223372036854773807,
	} {
		got, ok := parseTime([]byte(text))
		require.True(t, ok, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"1e16", "-1e16", "9999999999999999", "1e400", strings.Repeat("9", 100)} {
		_, ok := parseTime([]byte(text))
		require.False(t, ok, text)
	}
	// All ms of some time are exact.
	var b bytes.Buffer
	for ms := int64(1_700_000_000_000); ms < 1_700_000_010_000; ms++ {
		b.Reset()
		writeTime(&b, ms)
		got, _ := parseTime(b.Bytes())
		require.Equal(t, ms, got)
		long, _ := parseTime(append(b.Bytes(), "e0"...))
		require.Equal(t, ms, long)
	}
}
