package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// Recent data and an archive, and the seam in time between them: whatever a query
// looks at there, the answer is that of one Prometheus that holds both.

// tier is one side of the seam: what the configuration says of it, and what it
// really holds (ms, inclusive).
type tier struct {
	timeRange string
	from, to  int64
}

func (r tier) held(ms int64) bool { return r.from <= ms && ms <= r.to }

type seamCase struct {
	name            string
	recent, archive tier
	archiveFirst    bool
	// pair: two replicas scrape what is recent, and each writes into the archive.
	pair bool
	// pivots (ms) are where one side begins or ends.
	pivots []int64
	// hole tells that nobody holds what is between the sides.
	hole bool
}

func (c seamCase) held(ms int64) bool { return c.recent.held(ms) || c.archive.held(ms) }

func seamCases() []seamCase {
	end := seamNow.UnixMilli()
	absolute := time.UnixMilli(seam).UTC().Format(time.RFC3339)
	return []seamCase{
		{
			name:   "overlap",
			recent: tier{"{max_age: 90m}", seam - 30*minute, end}, archive: tier{"{min_age: 1h}", seamStart, seam},
			pivots: []int64{seam, seam - 30*minute},
		},
		{
			name: "overlap, archive first", archiveFirst: true,
			recent: tier{"{max_age: 90m}", seam - 30*minute, end}, archive: tier{"{min_age: 1h}", seamStart, seam},
			pivots: []int64{seam, seam - 30*minute},
		},
		{
			name:   "abut",
			recent: tier{"{max_age: 1h}", seam, end}, archive: tier{"{min_age: 1h}", seamStart, seam},
			pivots: []int64{seam},
		},
		{
			name:   "abut at an instant, each has all",
			recent: tier{"{start: " + absolute + "}", seamStart, end}, archive: tier{"{end: " + absolute + "}", seamStart, end},
			pivots: []int64{seam},
		},
		{
			name: "abut, archive first", archiveFirst: true,
			recent: tier{"{max_age: 1h}", seam, end}, archive: tier{"{min_age: 1h}", seamStart, seam},
			pivots: []int64{seam},
		},
		{
			name: "hole", hole: true,
			recent: tier{"{max_age: 1h}", seam, end}, archive: tier{"{min_age: 62m}", seamStart, seam - 2*minute},
			pivots: []int64{seam, seam - 2*minute},
		},
		{
			name:   "archive lags",
			recent: tier{"{max_age: 70m}", seam - 10*minute, end}, archive: tier{"{min_age: 50m}", seamStart, seam},
			pivots: []int64{seam - 10*minute, seam, seam + 10*minute},
		},
		{
			name: "pair, overlap", pair: true,
			recent: tier{"{max_age: 90m}", seam - 30*minute, end}, archive: tier{"{min_age: 1h}", seamStart, seam},
			pivots: []int64{seam, seam - 30*minute},
		},
		{
			name: "pair, abut", pair: true,
			recent: tier{"{max_age: 1h}", seam, end}, archive: tier{"{min_age: 1h}", seamStart, seam},
			pivots: []int64{seam},
		},
	}
}

// seamQuery is an instant query if step is 0. Times are ms.
type seamQuery struct {
	expr             string
	start, end, step int64
}

func (q seamQuery) String() string {
	if q.step == 0 {
		return fmt.Sprintf("%s at %d", q.expr, q.start-seam)
	}
	return fmt.Sprintf("%s from %d to %d each %d", q.expr, q.start-seam, q.end-seam, q.step)
}

func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }

// path is where and how the query is asked.
func (q seamQuery) path() string {
	if q.step == 0 {
		return "/api/v1/query?" + url.Values{"query": {q.expr}, "time": {seconds(q.start)}}.Encode()
	}
	form := url.Values{"query": {q.expr}, "start": {seconds(q.start)}, "end": {seconds(q.end)}, "step": {seconds(q.step)}}
	return "/api/v1/query_range?" + form.Encode()
}

// seamQueries look at what is around an instant p (ms).
func seamQueries(p int64) []seamQuery {
	var all []seamQuery
	at := func(expr string, times ...int64) {
		for _, t := range times {
			all = append(all, seamQuery{expr: expr, start: p + t})
		}
	}
	steps := func(start, end, step int64, exprs ...string) {
		for _, expr := range exprs {
			all = append(all, seamQuery{expr, p + start, p + end, step})
		}
	}
	at(`{__name__=~"edge|level|up|slow_total"}`, -1, 0, 1, 4870, 4871, 7500, 14_999, 15_000, 40_000, 5*minute-1, 5*minute, 5*minute+1)
	at(`rate(requests_total[10m])`, 0, 1, minute, 10*minute-1, 10*minute, 10*minute+1)
	at(`edge[1m]`, -1, 0, 1, 30*second, minute-1, minute, minute+1)
	at(`count_over_time({__name__=~"edge|slow_total"}[5m])`, 5*minute-1, 5*minute+1)
	at(`timestamp(edge)`, 1, 20*second)
	at(`edge offset 10m`, 10*minute-1, 10*minute, 10*minute+1, 10*minute+20*second)
	at(`edge offset -10m`, -10*minute-1, -10*minute, -10*minute+1, -10*minute+20*second)
	at(`increase(requests_total[5m] offset -3m)`, 0, 2*minute)
	at(`edge @ `+seconds(p)+` or level @ `+seconds(p)+` offset -20s`, -20*minute, 20*minute)
	at(`rate(requests_total[5m] @ `+seconds(p)+`)`, 20*minute)
	at(`max_over_time(edge[10m:15s])`, -1, 1, 5*minute)
	at(`sum_over_time(rate(requests_total[1m])[10m:30s])`, minute, 10*minute)
	at(`count_over_time(edge[4m:7s] offset 3m)`, 5*minute)
	at(`max_over_time(edge[4m:7s] @ `+seconds(p)+` offset -1m)`, -5*minute)
	at(`histogram_quantile(0.9, rate(latency_seconds[5m])) or histogram_count(latency_seconds)`, 1, minute)
	at(`rate(requests_total[5m] anchored)`, 1, 5*minute)
	at(`rate(requests_total[5m] smoothed) or level smoothed`, 1, -second)
	at(`sort_by_label(info(up), "instance")`, -second, second, 10*second, 20*second)
	at(`absent(edge{life="ends before"}) or topk(2, level) or sum by (job) (requests_total)`, -1, 20*second)

	steps(-20, 20, 1, `{__name__=~"edge|level"}`)
	steps(-31*second, 31*second, second, `edge`, `edge offset -1s`, `count_over_time(edge[1m])`, `level @ start() + level @ end()`)
	steps(-6*minute, 6*minute, 15*second, `{__name__=~"edge|level|slow_total"}`, `rate(requests_total[2m])`, `edge offset 5m`, `edge @ start()`,
		`edge @ end()`, `rate(requests_total[1m] @ end() offset 4m)`, `histogram_sum(rate(latency_seconds[2m]))`)
	steps(-20*minute, 20*minute, 77*second, `{__name__=~"edge|slow_total"}`, `count by (life) (edge)`, `sum(rate(requests_total[5m]))`,
		`min_over_time(edge[5m:1m])`, `sum_over_time(edge[3m:20s] offset -2m)`, `resets(latency_seconds[4m])`, `info(up)`, `delta(level[90s])`)
	return all
}

func TestSeam(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: make test-race runs it")
	}
	for name, parts := range map[string]bool{"names removed at the end": false, "parts and stretches": true} {
		t.Run(name, func(t *testing.T) {
			rig := startSeamRig(t, parts)
			for _, c := range seamCases() {
				t.Run(c.name, func(t *testing.T) { rig.compare(t, c) })
			}
			t.Run("a hole is said, or an error", func(t *testing.T) { testSeamHole(t, rig) })
			t.Run("the archive is asked for its time only", func(t *testing.T) { testSeamRequests(t, rig) })
		})
	}
}

// compare asks both sides of a case, the archive in each way, and the truth.
func (rig *seamRig) compare(t *testing.T, c seamCase) {
	rig.load(t, c)
	truth := map[seamQuery]seamAnswer{}
	for _, read := range seamTransports {
		t.Run(fmt.Sprint("read ", read), func(t *testing.T) {
			rig.configure(t, c, read, "warn")
			for _, p := range c.pivots {
				for _, q := range seamQueries(p) {
					want, ok := truth[q]
					if !ok {
						want = askSeam(t, rig.truth, q)
						truth[q] = want
					}
					compareSeam(t, q, want, askSeam(t, rig.server.Handler(), q), c.hole)
				}
			}
		})
	}
}

// seamAnswer is an answer of the query API.
type seamAnswer struct {
	Status   string   `json:"status"`
	Error    string   `json:"error"`
	Warnings []string `json:"warnings"`
	Data     struct {
		Result []json.RawMessage `json:"result"`
	} `json:"data"`
}

func askSeam(t *testing.T, h http.Handler, q seamQuery) seamAnswer {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, q.path(), nil))
	var a seamAnswer
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a), w.Body)
	return a
}

// series are the series as text, in order.
func (a seamAnswer) series() (list []string) {
	for _, raw := range a.Data.Result {
		list = append(list, string(raw))
	}
	return list
}

func compareSeam(t *testing.T, q seamQuery, want, got seamAnswer, hole bool) {
	t.Helper()
	require.Equal(t, "success", want.Status, "%s: %s", q, want.Error)
	require.Equal(t, "success", got.Status, "%s: %s", q, got.Error)
	for _, w := range got.Warnings {
		if !hole || !strings.HasPrefix(w, "partial answer: no server group holds the data of ") {
			t.Errorf("%s: warning %s", q, w)
		}
	}
	w, g := want.series(), got.series()
	if slices.Equal(w, g) {
		return
	}
	differs := func(list, other []string) string {
		list = slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
		return strings.Join(list, "\n")
	}
	t.Errorf("%s\nonly in the truth:\n%s\nonly in the answer:\n%s", q, differs(w, g), differs(g, w))
}

func testSeamHole(t *testing.T, rig *seamRig) {
	cases := seamCases()
	c := cases[slices.IndexFunc(cases, func(c seamCase) bool { return c.hole })]
	rig.load(t, c)
	const said = `no server group holds the data of "recent", "archive" from 2026-11-22T10:58:00.001Z to 2026-11-22T10:59:59.999Z` +
		`: no time_range covers that; widen one, or add a group that has it`
	ask := func(expr string, at int64) seamAnswer {
		return askSeam(t, rig.server.Handler(), seamQuery{expr: expr, start: at})
	}
	rig.configure(t, c, backendtest.Streamed, "warn")
	require.Equal(t, []string{"partial answer: " + said}, ask(`edge`, seam).Warnings)
	require.Empty(t, ask(`edge`, seam+5*minute-1).Warnings)
	require.Empty(t, ask(`edge`, seam-2*minute).Warnings)
	rig.configure(t, c, backendtest.Streamed, "error")
	require.Contains(t, ask(`edge`, seam).Error, said)
	require.Equal(t, "success", ask(`edge`, seam+5*minute-1).Status)
	require.Equal(t, "success", ask(`edge`, seam-2*minute).Status)
}

func testSeamRequests(t *testing.T, rig *seamRig) {
	c := seamCases()[0]
	rig.load(t, c)
	for _, read := range seamTransports {
		rig.configure(t, c, read, "warn")
		askSeam(t, rig.server.Handler(), seamQuery{expr: `edge`, start: seam}) // probes
		asked := func(q seamQuery) []int64 {
			rig.archives[read].forget()
			require.Empty(t, askSeam(t, rig.server.Handler(), q).Error)
			return rig.archives[read].asked()
		}
		// A lookback, and what three holders are merged with, lie before the instant: the
		// archive may hold a copy of either replica.
		later := 5*minute + dedup.MarginOf(3)
		for _, q := range []seamQuery{
			{expr: `edge`, start: seam + later},
			{expr: `rate(requests_total[5m])`, start: seam + later},
			{expr: `max_over_time(edge[5m:15s])`, start: seam + 5*minute + later},
			{expr: `edge offset -20m`, start: seam - 20*minute + later},
			{expr: `edge @ end()`, start: seam - 30*minute, end: seam + later, step: minute},
			{expr: `rate(requests_total[5m])`, start: seam + later, end: seamNow.UnixMilli(), step: 15 * second},
		} {
			require.Empty(t, asked(q), "read %d: %s", read, q)
		}
		for _, q := range []seamQuery{
			{expr: `edge`, start: seam + 5*minute - 1},
			{expr: `rate(requests_total[10m])`, start: seam + 10*minute - 1},
			{expr: `edge[20m]`, start: seam + 10*minute},
			{expr: `rate(requests_total[5m])`, start: seam - 30*minute, end: seamNow.UnixMilli(), step: minute},
			{expr: `edge`, start: seam - 30*minute, end: seamNow.UnixMilli(), step: minute},
		} {
			ends := asked(q)
			require.NotEmpty(t, ends, "read %d: %s", read, q)
			for _, end := range ends {
				require.Equal(t, seam, end, "read %d: %s", read, q)
			}
		}
	}
}
