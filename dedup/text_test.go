package dedup

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// run makes samples of text like "0:1 15:2.5 30:s 45..90/15": value 1 at 0 s, 2.5
// at 15 s, a stale marker at 30 s, and from 45 s to 90 s, every 15 s, the time in
// seconds as the value.
func run(t testing.TB, text string) *Samples {
	t.Helper()
	s := &Samples{}
	num := func(v string) float64 {
		f, err := strconv.ParseFloat(v, 64)
		require.NoError(t, err)
		return f
	}
	ms := func(v string) int64 { return int64(math.Round(num(v) * 1000)) }
	for word := range strings.FieldsSeq(text) {
		if from, rest, ok := strings.Cut(word, ".."); ok {
			to, step, _ := strings.Cut(rest, "/")
			for at := ms(from); at <= ms(to); at += ms(step) {
				s.Append(0, at, float64(at)/1000)
			}
			continue
		}
		at, v, ok := strings.Cut(word, ":")
		require.True(t, ok, word)
		if v == "s" {
			s.Append(0, ms(at), StaleNaN)
		} else {
			s.Append(0, ms(at), num(v))
		}
	}
	require.NoError(t, s.Check())
	return s
}

// text is the reverse of run, without ranges. Histograms appear as h and their sum.
func text(s *Samples) string {
	var words []string
	for i, t := range s.T {
		v := fmt.Sprint(s.F[i])
		switch {
		case s.Stale(i):
			v = "s"
		case s.H != nil && s.H[i] != nil:
			v = fmt.Sprint("h", s.H[i].Sum)
		case s.FH != nil && s.FH[i] != nil:
			v = fmt.Sprint("fh", s.FH[i].Sum)
		}
		words = append(words, fmt.Sprintf("%v:%v", float64(t)/1000, v))
	}
	return strings.Join(words, " ")
}

// clip returns the samples of s in [mint, maxt].
func clip(s *Samples, mint, maxt int64) *Samples {
	out := &Samples{}
	if err := s.AppendTo(out, mint, maxt); err != nil {
		panic(err)
	}
	return out
}

// merge is Merge into a used dst, so that left-overs would show.
func merge(runs ...*Samples) *Samples {
	dst := &Samples{T: []int64{-1, 7}, F: []float64{3, 4}, ST: []int64{1, 2}}
	return Merge(dst, runs)
}
