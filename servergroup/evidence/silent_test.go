package evidence

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
)

// every returns the times from one until another (ms), with a distance.
func every(from, until, distance int64) (list []int64) {
	for t := from; t < until; t += distance {
		list = append(list, t)
	}
	return list
}

// TestSilent: nobody scraped where one and a half intervals have passed since the last scrape of any target.
func TestSilent(t *testing.T) {
	const s, m = 1000, 60_000
	for name, row := range map[string]struct {
		runs [][]int64
		want []Span
	}{
		"one target":               {[][]int64{every(0, 10*m, 15*s)}, nil},
		"its beginning":            {[][]int64{every(2*m, 10*m, 15*s)}, []Span{{0, 2*m - 1}}},
		"its end":                  {[][]int64{every(0, 8*m, 15*s)}, []Span{{8*m + 7501, 10*m - 1}}},
		"a scrape is missing":      {[][]int64{append(every(0, 2*m, 15*s), every(2*m+15*s, 10*m, 15*s)...)}, []Span{{2*m + 7501, 2*m + 15*s - 1}}},
		"another target has it":    {[][]int64{append(every(0, 2*m, 15*s), every(5*m, 10*m, 15*s)...), every(2*m, 5*m, 15*s)}, nil},
		"another replica in turns": {[][]int64{append(every(0, 4*m, 15*s), every(6*m, 10*m, 15*s)...), append(every(0, 3*m, 15*s), every(5*m, 10*m, 15*s)...)}, []Span{{4*m + 7501, 5*m - 1}}},
		"long intervals":           {[][]int64{every(0, 10*m, 2*m)}, nil},
		"a reload":                 {[][]int64{append(every(0, 5*m, 30*s), every(5*m+s, 10*m, 30*s)...)}, nil},
		"one scrape":               {[][]int64{{5 * m}}, []Span{{0, 5*m - 1}, {5*m + 1, 10*m - 1}}},
		"nothing":                  {nil, []Span{{0, 10*m - 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := &scrapeComparer{}
			for _, times := range row.runs {
				c.all = append(c.all, &dedup.Samples{T: times})
			}
			c.addScraped()
			require.Equal(t, row.want, silent(c.scraped, 0, 10*m-1))
		})
	}
}

// TestSilentIn: what may still be scraped is not silent.
func TestSilentIn(t *testing.T) {
	list := []*sliceScrapes{
		{begin: 0, asked: 2 * scrapeSlice, silent: []Span{{10, 20}, {scrapeSlice - 5, scrapeSlice - 1}}},
		{begin: scrapeSlice, asked: 2*scrapeSlice - 10, silent: []Span{{scrapeSlice, scrapeSlice + 5}, {2*scrapeSlice - settleTime - 20, 2*scrapeSlice - 1}}},
	}
	require.Equal(t, []Span{{15, 20}, {scrapeSlice - 5, scrapeSlice - 1}, {scrapeSlice, scrapeSlice + 5}, {2*scrapeSlice - settleTime - 20, 2*scrapeSlice - settleTime - 10}}, silentIn(list, 15, 3*scrapeSlice))
	require.Empty(t, silentIn(list, 21, scrapeSlice-6))
}
