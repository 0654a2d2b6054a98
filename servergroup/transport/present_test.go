package transport

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// TestPresentSeries_TellsOfEachStep: of any number of steps, and whatever values and names the series
// have.
func TestPresentSeries_TellsOfEachStep(t *testing.T) {
	own := backendtest.NewHandler(backendtest.Options{EarlyNames: true, Queryable: promqltest.LoadedStorage(t, `load 15s
  x{a="1"} NaN _x39 -5 _x39 Inf+0x300
  x{a="2"} _x100 {{schema:0 sum:5 count:4 buckets:[1 2 1]}}x200
  y{a="2"} 1x50 stale`)})
	asked := 0
	c := served(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		own.ServeHTTP(w, r)
	})
	sel := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", "x|y")}
	const minute = 60_000
	there := func(series string, at int64) bool { // with a lookback of three minutes
		at /= minute
		switch series {
		case `{__oneprom_name__="x", a="1"}`:
			return at < 3 || at >= 10 && at < 13 || at >= 20 && at < 98
		case `{__oneprom_name__="x", a="2"}`:
			return at >= 25 && at < 78
		default:
			return at < 13
		}
	}
	for _, n := range []int64{1, 3, 50, 51, 99, 101, 150} {
		for _, first := range []int64{-20, 0, 7} {
			st := Steps{Start: first * minute, End: (first + n - 1) * minute, Step: minute, Lookback: 3 * minute}
			list, err := c.PresentSeries(t.Context(), sel, st, request(t, Request{Labels: unchanged}))
			require.NoError(t, err)
			got := map[string]bool{}
			for _, s := range list {
				for i := range n {
					if s.At[i/64]&(1<<(i%64)) != 0 {
						got[fmt.Sprint(s.Labels.String(), first+i)] = true
					}
				}
				require.Zero(t, s.At[len(s.At)-1]>>((n-1)%64)>>1, "steps after the last one")
			}
			want := map[string]bool{}
			for i := range n {
				for _, s := range []string{`{__oneprom_name__="x", a="1"}`, `{__oneprom_name__="x", a="2"}`, `{__oneprom_name__="y", a="2"}`} {
					if at := (first + i) * minute; at >= 0 && there(s, at) {
						want[fmt.Sprint(s, first+i)] = true
					}
				}
			}
			require.Equal(t, want, got, "%d from %d", n, first)
		}
	}
	require.Equal(t, 21, asked, "one request each")
}
