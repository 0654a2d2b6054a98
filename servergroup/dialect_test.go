package servergroup

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/dialect"
	"github.com/oneprom/oneprom/servergroup/replica"
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
	c.ms.Add(replica.ProfileAge.Milliseconds() - 1)
	refresh()
	f("thanos", "0.39.2", "query_api")
	c.ms.Add(1)
	refresh()
	f("prometheus", backendtest.Version, "remote_read_streamed")

	// Here a request fails, which is probed after at once.
	changing.Become(thanos)
	f("thanos", "0.39.2", "query_api")
}
