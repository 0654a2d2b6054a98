//go:build e2e

package e2e

import (
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
	"github.com/oneprom/oneprom/servergroup/evidence"
)

// TestChanging_PairOfPrometheus changes the servers of a pair, one after the other, as upgrades, accidents and people do. A third server
// has everything, and each answer must be its answer.
func TestChanging_PairOfPrometheus(t *testing.T) {
	var series []labels.Labels
	for i := range 3 {
		for _, name := range []string{"up", "m"} {
			series = append(series, labels.FromStrings("__name__", name, "job", "j", "instance", strconv.Itoa(i)))
		}
	}
	end := time.Now().Truncate(time.Minute)
	from, to := end.Add(-50*time.Minute).UnixMilli(), end.UnixMilli()
	truth := world.RunFed(t, world.Prometheus, series, from, to)
	a, b := world.RunMember(t, series, from, to), world.RunMember(t, series, from, to)
	var ahead atomic.Int64 // ns
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	base := onepromAt(t, now, oneBackend([]string{hostPort(t, a.URL), hostPort(t, b.URL)}))

	at := end.Add(-25 * time.Minute).Unix()
	text := func(t int64) string { return strconv.FormatInt(t, 10) }
	var paths []string
	for _, query := range []string{`count(m)`, `absent(m{instance="1"})`, `sum by (job) (count_over_time(m[10m]))`, `sum(m) + count(up)`} {
		paths = append(paths,
			"/api/v1/query?"+url.Values{"query": {query}, "time": {text(at)}}.Encode(),
			"/api/v1/query_range?"+url.Values{"query": {query}, "start": {text(at - 600)}, "end": {text(at)}, "step": {"60"}}.Encode())
	}
	ask := func(what string) {
		t.Helper()
		for _, path := range paths {
			require.Equal(t, meant(t, truth.URL+path), meant(t, base+path), "%s: %s", what, path)
		}
	}
	ask("all is well")
	ask("all is well, and known to be")
	for _, change := range []struct {
		what   string
		happen func()
	}{
		{"a has an external label", func() { a.Become(t, world.Prometheus, map[string]string{"replica": "a"}, false) }},
		{"a has another external label", func() { a.Become(t, world.Prometheus, map[string]string{"region": "eu"}, false) }},
		{"a has lost its data", func() { a.Become(t, world.Prometheus, nil, true) }},
		{"a has its data again", func() { a.Give(t, series, from, to) }},
		{"a is downgraded, with all data", func() { a.Become(t, world.Prometheus2, nil, true); a.Give(t, series, from, to) }},
		{"b has lost its data", func() { b.Become(t, world.Prometheus, map[string]string{"replica": "b"}, true) }},
		{"b has its data again", func() { b.Give(t, series, from, to) }},
		{"a has lost its data as a Prometheus 2", func() { a.Become(t, world.Prometheus2, nil, true) }},
		{"a is upgraded, with all data", func() { a.Become(t, world.Prometheus, nil, true); a.Give(t, series, from, to) }},
		{"a has deleted some series", func() { a.Delete(t, `m{instance="1"}`); ahead.Add(evidence.CountAge * int64(time.Millisecond)) }},
		{"a is started again", func() { a.Become(t, world.Prometheus, nil, false) }},
		{"a has deleted one target", func() { a.Delete(t, `{instance="0"}`); ahead.Add(evidence.CountAge * int64(time.Millisecond)) }},
	} {
		change.happen()
		// A server that took long to start is asked again when a probe has shown that it is there. Until then, answers say so.
		require.Eventually(t, func() bool { return !strings.Contains(meant(t, base+"/api/v1/status/groups"), `"breaker":"open"`) }, time.Minute, 50*time.Millisecond, change.what)
		ask(change.what)
		ask(change.what + ", and is known to")
	}
}
