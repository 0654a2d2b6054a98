package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// A oneprom in front of another one: what is missing below is said above, and what is there is not lost with it.
func TestLevels_AGroupThatIsMissingBelowIsSaidAbove(t *testing.T) {
	c := plainClient(t)
	eu := hostPort(t, serve(t, backendtest.NewHandler(backendtest.Options{Queryable: loaded(t, "load 30s\n foo{i=\"1\"} 1x40")})))
	us := deadAddress(t)
	lower := oneprom(t, "server_groups:\n"+
		"  - {name: eu, labels: {region: eu}, static_configs: [{targets: ['"+eu+"']}]}\n"+
		"  - {name: us, labels: {region: us}, static_configs: [{targets: ['"+us+"']}]}\n")
	below := oneBackend([]string{hostPort(t, lower)})
	upper := oneprom(t, below)

	got := c.ask(t, upper, probe{path: instantQuery("count by (region) (foo)", 600)})
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.Contains(t, got.body, `{"metric":{"region":"eu"},"value":[600,"1"]}`)
	require.Contains(t, got.body, "partial answer")
	require.Contains(t, got.body, us)
	require.Contains(t, c.ask(t, upper, probe{path: "/api/v1/status/groups"}).body, `"kind":"oneprom"`)

	strict := oneprom(t, "global: {partial_response: error}\n"+below)
	requireFailure(t, c.ask(t, strict, probe{path: instantQuery("count(foo)", 600)}), us)
	// What the lost group has no part in is whole.
	got = c.ask(t, strict, probe{path: instantQuery(`count(foo{region="eu"})`, 600)})
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.NotContains(t, got.body, "warnings")
}

// deadAddress is one that refuses connections.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// landData is two hours with ext in the labels of each series; n makes each land's another. No two series of m are
// equal where topk has to choose.
func landData(ext string, n int) string {
	return strings.NewReplacer("E", ext, "N", strconv.Itoa(n)).Replace(`
load 30s
  up{E job="a",i="0"} 1x240
  up{E job="b",i="0"} 1x2N 0x20 1x200
  m{E job="a",i="0"} 0+Nx240
  m{E job="a",i="1"} 1Nx240
  m{E job="b",i="0"} 501.5-Nx240
  reqs_total{E job="a",i="0"} 0+3Nx120 0+15x119
  late{E job="a"} _x10N 1+1x20
  lat_bucket{E le="0.1"} 0+Nx240
  lat_bucket{E le="1"} 0+4Nx240
  lat_bucket{E le="+Inf"} 0+5Nx240
  nh{E job="a"} {{schema:0 sum:8 count:6 buckets:[1 2 3]}}+{{schema:0 sum:1 count:N buckets:[N]}}x240
`)
}

// land is a Prometheus with the data of one.
func land(t *testing.T, ext string, n int) http.Handler {
	t.Helper()
	return backendtest.NewHandler(backendtest.Options{Queryable: loaded(t, landData(ext, n)), Engine: newEngine(t, nil)})
}

// ofAllLands are expressions whose parts are evaluated below. Series of all lands are in each.
var ofAllLands = []string{
	`sum(m)`,
	`sum by (region) (m)`,
	`sum by (site, i) (m)`,
	`sum without (i, job) (m)`,
	`count(m)`,
	`avg(m)`,
	`avg by (region) (m)`,
	`min by (i) (m)`,
	`max without (i) (m)`,
	`topk(2, m)`,
	`bottomk by (region) (1, m)`,
	`quantile by (region, site) (0.5, m)`,
	`stddev by (site, region) (m)`,
	`count_values("v", up)`,
	`group by (job) (up)`,
	`rate(reqs_total[5m])`,
	`sum by (site) (increase(reqs_total[20m] offset 3m))`,
	`sum(rate(m[5m]))`, // an info
	`max_over_time(m[10m:30s])`,
	`max_over_time(sum by (region, site) (m)[10m:1m])`,
	`sum_over_time((up == 0)[20m:])`,
	`sum(m @ 600)`,
	`histogram_quantile(0.9, sum by (region, site, le) (rate(lat_bucket[5m])))`,
	`sum(histogram_count(rate(nh[5m])))`,
	`sum(histogram_count(delta(nh[5m])))`, // a warning
	`absent(late)`,
	`m - m offset 5m`,
	`sum(m > 300) or sum(m)`,
	`m > bool 300`,
	`sum(timestamp(m))`,
}

// ofSomeLands are expressions that not all lands have a part in, or that are not, or not by all, evaluated below.
var ofSomeLands = []string{
	`sum(m{region="us"})`,
	`m{region=~"eu|asia",i="0"} * 2`,
	`absent(m{region="mars"})`,
	`m / on (site, region, i, job) up`,
	`count by (c) (label_replace(up, "c", "$1-x", "region", "(.*)"))`,
	`m`,
	`sort_desc(m)`,
}

// askings are an expression at one time, and over a range.
func askings(expr string) []string {
	return []string{instantQuery(expr, 3600), rangeQuery(expr, 600, 7200, 300)}
}

// counted stands before a server and counts what it is asked.
type counted struct {
	base string

	mtx sync.Mutex
	by  map[string]int // by path
}

func newCounted(t *testing.T, base string) *counted {
	t.Helper()
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	target, err := url.Parse(base)
	require.NoError(t, err)
	pass := &httputil.ReverseProxy{
		Transport:     transport,
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		FlushInterval: -1,
	}
	c := &counted{by: map[string]int{}}
	c.base = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client went away
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !bytes.Contains(body, []byte("oneprom_probe")) { // which comes whenever a minute is over
			c.mtx.Lock()
			c.by[r.URL.Path]++
			c.mtx.Unlock()
		}
		pass.ServeHTTP(w, r)
	}))
	return c
}

// taken returns how often the server was asked to evaluate, and for samples, since the last call.
func (c *counted) taken() (evaluations, reads int) {
	c.mtx.Lock()
	defer c.mtx.Unlock()
	evaluations, reads = c.by["/api/v1/query_range"], c.by["/api/v1/read"]
	clear(c.by)
	return evaluations, reads
}

// passing is what warnings say that differs between two requests: the breaker may have
// opened between them, and samples are fetched of other windows than parts need.
var passing = regexp.MustCompile(`not asked, as its circuit breaker is open: | \(wanted from \S+ to \S+\)`)

// requireSameValues wants an answer to be as it should, but for last digits.
func requireSameValues(t *testing.T, expr string, want, got reply) verdict {
	t.Helper()
	v := judge(evaluation{query: expr}, []byte(want.body), got.status, []byte(got.body))
	require.False(t, v.values.wrong(), "%s is %s\nwant %s\n got %s", expr, v.values, want.body, got.body)
	return v
}

var pushdownOff = map[string]string{"X-Oneprom-Pushdown": "off"}

// Parts go down through two levels, and what comes up is what one Prometheus says.
func TestLevels_PartsAreEvaluatedBelow(t *testing.T) {
	c := plainClient(t)
	eu, us, asia := newCounted(t, serve(t, land(t, "", 1))), newCounted(t, serve(t, land(t, "", 2))), newCounted(t, serve(t, land(t, "", 3)))
	group := func(label, value string, below *counted) string {
		return fmt.Sprintf("  - {name: %[2]s, labels: {%[1]s: %[2]s}, static_configs: [{targets: ['%[3]s']}]}\n", label, value, hostPort(t, below.base))
	}
	west := newCounted(t, oneprom(t, "server_groups:\n"+group("region", "eu", eu)+group("region", "us", us), keepsNothing))
	east := newCounted(t, oneprom(t, "server_groups:\n"+group("region", "asia", asia), keepsNothing))
	upper := oneprom(t, "server_groups:\n"+group("site", "west", west)+group("site", "east", east), keepsNothing)
	truth := truth(t, loaded(t, landData(`site="west",region="eu",`, 1)+landData(`site="west",region="us",`, 2)+landData(`site="east",region="asia",`, 3)))

	requireTruth := func(expr, path string, header map[string]string) {
		t.Helper()
		want, got := c.ask(t, truth, probe{path: path}), c.ask(t, upper, probe{path: path, header: header})
		require.Equal(t, http.StatusOK, want.status, want.body)
		require.False(t, requireSameValues(t, expr, want, got).notes, "%s\n%s\n%s", path, want.body, got.body)
	}
	all := []*counted{eu, us, asia, west, east}
	for _, expr := range ofAllLands {
		for _, path := range askings(expr) {
			requireTruth(expr, path, nil)
			for _, server := range all {
				evaluations, reads := server.taken()
				require.Positive(t, evaluations, "%s at %s", path, server.base)
				require.Zero(t, reads, "%s at %s", path, server.base)
			}
			requireTruth(expr, path, pushdownOff)
			for _, server := range all {
				evaluations, reads := server.taken()
				require.Zero(t, evaluations, "%s at %s", path, server.base)
				require.Positive(t, reads, "%s at %s", path, server.base)
			}
		}
	}
	for _, expr := range ofSomeLands {
		for _, path := range askings(expr) {
			requireTruth(expr, path, nil)
		}
	}
}

// Where the data below has a label that is injected above, it is another one here than there.
func TestLevels_LabelsThatBothInject(t *testing.T) {
	c := plainClient(t)
	lower := newCounted(t, oneprom(t, oneBackend([]string{hostPort(t, serve(t, land(t, "", 1)))}, "labels: {region: eu}")))
	upper := oneprom(t, oneBackend([]string{hostPort(t, lower.base)}, "labels: {region: world}"))
	got := c.ask(t, upper, probe{path: instantQuery(`count by (region, exported_region) (m)`, 600)})
	require.Contains(t, got.body, `[{"metric":{"exported_region":"eu","region":"world"},"value":[600,"3"]}]`)
	evaluations, reads := lower.taken()
	require.Zero(t, evaluations)
	require.Positive(t, reads)
}

// A group that is lost below, while it is known above that parts can be evaluated there: the answers are those of what
// is left, and say so as where samples are fetched; or there are none.
func TestLevels_WhatIsLostBelowIsSaidOfParts(t *testing.T) {
	c := plainClient(t)
	eu := serve(t, land(t, "", 1))
	us := httptest.NewServer(land(t, "", 2))
	t.Cleanup(us.Close)
	middle := oneprom(t, "server_groups:\n"+
		"  - {name: eu, labels: {region: eu}, static_configs: [{targets: ['"+hostPort(t, eu)+"']}]}\n"+
		"  - {name: us, labels: {region: us}, static_configs: [{targets: ['"+hostPort(t, us.URL)+"']}]}\n")
	lower := newCounted(t, middle)
	upper := oneprom(t, oneBackend([]string{hostPort(t, lower.base)}))
	// What fails does so at once, while other requests are on their way: they must not be counted.
	uncounted := oneBackend([]string{hostPort(t, middle)})
	failing, strict := oneprom(t, uncounted), oneprom(t, "global: {partial_response: error}\n"+uncounted)
	left := truth(t, loaded(t, landData(`region="eu",`, 1)))
	for _, base := range []string{upper, strict} {
		got := c.ask(t, base, probe{path: instantQuery(`sum(m)`, 600)})
		require.Equal(t, http.StatusOK, got.status, got.body)
		require.NotContains(t, got.body, "warnings")
	}

	us.Close()
	for _, expr := range ofAllLands {
		for _, path := range askings(expr) {
			if strings.Contains(expr, "absent") { // which is not told of a part
				requireFailure(t, c.ask(t, failing, probe{path: path}), hostPort(t, us.URL))
				continue
			}
			lower.taken()
			got := c.ask(t, upper, probe{path: path})
			evaluations, reads := lower.taken()
			require.Positive(t, evaluations, path)
			require.Zero(t, reads, path)
			require.Contains(t, got.body, `server group \"a\": `+lower.base+`: partial answer: server group \"us\" did not answer`, path)
			requireSameValues(t, expr, c.ask(t, left, probe{path: path}), got)
			fetched := c.ask(t, upper, probe{path: path, header: pushdownOff})
			for _, body := range []*string{&got.body, &fetched.body} {
				*body = passing.ReplaceAllString(*body, "")
			}
			require.False(t, requireSameValues(t, expr, fetched, got).notes, "%s\n%s\n%s", path, fetched.body, got.body)

			requireFailure(t, c.ask(t, strict, probe{path: path}), hostPort(t, us.URL))
		}
	}
	// What the lost group has no part in is whole.
	got := c.ask(t, strict, probe{path: instantQuery(`sum(m{region="eu"})`, 600)})
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.NotContains(t, got.body, "warnings")
}
