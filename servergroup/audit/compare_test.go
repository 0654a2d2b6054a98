package audit

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/transport"
)

const (
	second = 1000
	minute = 60 * second
)

// hour is what the tests look at, with its surroundings.
var hour = window{Span: evidence.Span{From: 10 * minute, To: 70 * minute}, fetched: evidence.Span{From: 4 * minute, To: 76 * minute}}

// life is when a target exposes a series (ms): from the first to before the second, and so on.
type life []int64

func (l life) at(t int64) bool {
	n, _ := slices.BinarySearch(l, t+1)
	return n%2 == 1
}

// always is a series that was there before and is there afterwards.
var always = life{math.MinInt64}

// scraped is what a replica has of a series: a sample of each scrape that finds it, and a stale marker
// where it is found no more. missed scrapes fail, and end it too.
func scraped(l life, interval, offset, jitter int64, rnd *rand.Rand, missed func(t int64) bool) *dedup.Samples {
	s := &dedup.Samples{}
	there := false
	for t := hour.fetched.From + offset; t <= hour.fetched.To; t += interval {
		at := t
		if jitter > 0 {
			at += rnd.Int64N(2*jitter) - jitter
		}
		was := there
		if there = l.at(at) && (missed == nil || !missed(at)); there {
			s.Append(0, at, 1)
		} else if was {
			s.Append(0, at, dedup.StaleNaN)
		}
	}
	return s
}

// without returns samples without those in [from, to] (ms).
func without(s *dedup.Samples, from, to int64) *dedup.Samples {
	out := &dedup.Samples{}
	for i, t := range s.T {
		if t < from || t > to {
			out.Append(0, t, s.F[i])
		}
	}
	return out
}

// lost returns what compareSeries finds of one series; nil stands for a replica that has none.
func lost(t *testing.T, own, twin *dedup.Samples) []evidence.Span {
	t.Helper()
	list := func(s *dedup.Samples) []transport.Series {
		if s == nil || s.Len() == 0 {
			return nil
		}
		return []transport.Series{{Labels: labels.FromStrings("__name__", "m"), Run: s}}
	}
	l, err := compareSeries(t.Context(), list(own), list(twin), hour)
	require.NoError(t, err)
	require.Equal(t, l.series > 0, len(l.byName["m"]) > 0)
	return l.byName["m"]
}

// TestCompare_HealthyPair: two clocks, series that come and go, scrapes that fail, and restarts of a
// replica make no find.
func TestCompare_HealthyPair(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 4_000 {
		interval := []int64{10 * second, 15 * second, 30 * second, minute, 2 * minute}[rnd.IntN(5)]
		var l life
		for at := rnd.Int64N(40 * minute); at < 80*minute && len(l) < 8; at += 1 + rnd.Int64N(20*minute) {
			l = append(l, at)
		}
		if rnd.IntN(4) == 0 {
			l = always
		}
		once := rnd.Int64N(80 * minute)
		missed := func(at int64) bool { return at >= once && at < once+interval }
		a := scraped(l, interval, rnd.Int64N(interval), interval/100, rnd, missed)
		b := scraped(l, interval, rnd.Int64N(interval), interval/100, rnd, nil)
		require.Empty(t, lost(t, a, b), "%v every %d ms:\n%v\n%v", l, interval, a.T, b.T)
		require.Empty(t, lost(t, b, a), "%v every %d ms:\n%v\n%v", l, interval, b.T, a.T)
	}
}

// TestCompare_ClocksApart: a replica whose clock is half a minute ahead sees series begin and end at
// other times.
func TestCompare_ClocksApart(t *testing.T) {
	l := life{20 * minute, 30 * minute, 50 * minute}
	a := scraped(l, 15*second, 0, 0, nil, nil)
	b := scraped(life{20*minute + 30*second, 30*minute + 30*second, 50*minute + 30*second}, 15*second, 7*second, 0, nil, nil)
	require.Empty(t, lost(t, a, b))
	require.Empty(t, lost(t, b, a))
}

// TestCompare_Losses: what is lost is found, wherever it is.
func TestCompare_Losses(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 1_000 {
		interval := []int64{10 * second, 15 * second, 30 * second, minute}[rnd.IntN(4)]
		a := scraped(always, interval, rnd.Int64N(interval), interval/100, rnd, nil)
		b := scraped(always, interval, rnd.Int64N(interval), interval/100, rnd, nil)
		from := hour.From + rnd.Int64N(50*minute)
		to := from + 2*interval + rnd.Int64N(10*minute)
		require.NotEmpty(t, lost(t, without(a, from, to), b), "%d to %d every %d ms", from, to, interval)
	}
	whole := scraped(always, 15*second, 0, 0, nil, nil)
	twin := scraped(always, 15*second, 7*second, 0, nil, nil)
	for name, row := range map[string]struct {
		own  *dedup.Samples
		want evidence.Span
	}{
		"all":               {nil, evidence.Span{From: math.MinInt64, To: math.MaxInt64}},
		"the beginning":     {without(whole, 0, 30*minute), evidence.Span{From: math.MinInt64, To: 30*minute + 15*second}},
		"the end":           {without(whole, 30*minute, 80*minute), evidence.Span{From: 30*minute - 15*second, To: math.MaxInt64}},
		"ten minutes":       {without(whole, 30*minute, 40*minute), evidence.Span{From: 30*minute - 15*second, To: 40*minute + 15*second}},
		"two scrapes":       {without(whole, 30*minute, 30*minute+15*second), evidence.Span{From: 30*minute - 15*second, To: 30*minute + 30*second}},
		"nothing":           {whole, evidence.Span{}},
		"before the window": {without(whole, 0, 9*minute), evidence.Span{}},
		"one scrape":        {without(whole, 30*minute, 30*minute), evidence.Span{From: 30*minute - 15*second, To: 30*minute + 15*second}},
		"after an end":      {without(scraped(life{0, 20 * minute, 30 * minute}, 15*second, 0, 0, nil, nil), 31*minute, 41*minute), evidence.Span{From: 31*minute - 15*second, To: 41*minute + 15*second}},
		"behind the end":    {without(scraped(life{0, 20 * minute, 30 * minute}, 15*second, 0, 0, nil, nil), 29*minute, 41*minute), evidence.Span{From: 30*minute - 8*second, To: 41*minute + 15*second}},
	} {
		t.Run(name, func(t *testing.T) {
			other := twin
			if slices.Contains([]string{"after an end", "behind the end"}, name) {
				other = scraped(life{0, 20 * minute, 30 * minute}, 15*second, 7*second, 0, nil, nil)
			}
			got := lost(t, row.own, other)
			if row.want == (evidence.Span{}) {
				require.Empty(t, got)
				return
			}
			require.Equal(t, []evidence.Span{row.want}, got)
		})
	}
}
