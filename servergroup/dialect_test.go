package servergroup

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/dialect"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// TestKind_ChangeIsNoticedByTheNextProbe, where no request fails that would tell of it sooner.
func TestKind_ChangeIsNoticedByTheNextProbe(t *testing.T) {
	data := promqltest.LoadedStorage(t, "load 15s\n foo 1x3")
	t.Cleanup(func() { require.NoError(t, data.Close()) })
	prometheus := dialect.NewPrometheus(backendtest.Options{Queryable: data}, nil)
	thanos := dialect.NewThanos(dialect.ThanosOptions{Stores: []dialect.Store{{Name: "s", Labels: labels.EmptyLabels(), Data: data}}})
	changing := dialect.NewChanging(thanos)
	s, c := setAt(t, groupOf("a", serve(t, changing)))
	r := firstReplica(s)

	f := func(kind, version, method string) {
		t.Helper()
		got, _, err := selectText(t, s, `foo`, 0, 30_000)
		require.NoError(t, err)
		require.Equal(t, `{__name__="foo"} 0:1 15:1 30:1`+"\n", got)
		st := s.Status()[0].Replicas[0]
		require.Equal(t, []string{kind, version, method}, []string{string(st.Kind), st.Version, st.Transport})
	}
	refresh := func() {
		if probing := r.Refresh(); probing != nil { // else the probe has ended already, or there was none
			<-probing
		}
	}
	f("thanos", "0.39.2", "query_api")

	changing.Become(prometheus)
	c.ms.Add(replica.RefreshAge.Milliseconds() - 1)
	refresh()
	f("thanos", "0.39.2", "query_api")
	c.ms.Add(1)
	refresh()
	f("prometheus", backendtest.Version, "remote_read_streamed")

	// Here a request fails, which is probed after at once.
	changing.Become(thanos)
	f("thanos", "0.39.2", "query_api")
}

// TestKind_ThatCannotBeTold is a finding, and a warning in each answer, until it is configured.
func TestKind_ThatCannotBeTold(t *testing.T) {
	f := func(kind, finding string, doubted bool, configured transport.Kind, replace map[string]http.HandlerFunc) {
		t.Helper()
		o := overridden(t, "load 15s\n foo 1x3")
		o.replace = replace
		cfg := groupOf("a", serve(t, o))
		cfg.Kind = configured
		s, _ := setAt(t, cfg)
		_, ws, err := selectText(t, s, `foo`, 0, 30_000)
		require.NoError(t, err)
		st := s.Status()[0].Replicas[0]
		require.Equal(t, kind, st.Kind)
		if finding == "" {
			require.Empty(t, st.Findings)
			require.Empty(t, strs(ws))
			return
		}
		require.Len(t, st.Findings, 1)
		require.Contains(t, st.Findings[0], finding)
		require.Equal(t, doubted, len(ws) > 0, "%v", ws)
	}
	hidden := func(more map[string]http.HandlerFunc) map[string]http.HandlerFunc {
		for path, status := range untold {
			if more[path] == nil {
				more[path] = refusing(status)
			}
		}
		return more
	}
	f("prometheus", "", false, "", nil)
	f("unknown", "the backend does not show what kind it is", true, "", hidden(map[string]http.HandlerFunc{}))
	named := map[string]http.HandlerFunc{"/status/buildinfo": answering(`{"status":"success","data":{"version":"3.0","application":"Store of ours"}}`)}
	f("unknown", `the backend calls itself "Store of ours", which is no known kind`, true, "", hidden(named))
	f("cortex", "", false, transport.Cortex, hidden(named))
	f("prometheus", "", false, transport.Prometheus, hidden(map[string]http.HandlerFunc{}))

	// Before a Prometheus, as its flags show, stands something that answers range queries otherwise.
	cache := answering(strings.Replace(dotInLine, "[90", "[60", 1))
	f("unknown", "steps of range queries are moved", true, "", map[string]http.HandlerFunc{"/query_range": cache})
	f("prometheus", "`kind: prometheus` is configured, but steps of range queries are moved", false, transport.Prometheus, map[string]http.HandlerFunc{"/query_range": cache})
}
