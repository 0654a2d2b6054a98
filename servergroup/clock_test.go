package servergroup

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
	"github.com/oneprom/oneprom/servergroup/config"
)

// Samples of a server whose clock is wrong are not where they belong, and nothing in them shows it.
// Its answers are dated, and that does.
func TestView_WrongClockIsSaid(t *testing.T) {
	h := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s\n foo 1x3")})
	p, err := fault.New(http.NotFoundHandler())
	require.NoError(t, err)
	t.Cleanup(p.Close)
	f := func(wrong time.Duration, want string) {
		t.Helper()
		require.NoError(t, p.Set(fault.Clock(wrong, h)))
		s := newTestSet(t, config.PartialWarn, groupOf("a", &httptest.Server{URL: "http://" + p.Addr()}))
		got, ws, err := selectText(t, s, `foo`, 0, 0)
		require.NoError(t, err)
		require.Equal(t, `{__name__="foo"} 0:1`+"\n", got)
		findings := s.Status()[0].Replicas[0].Findings
		if want == "" {
			require.Empty(t, ws)
			require.Empty(t, findings)
			return
		}
		text := "its clock is " + want + " oneprom's, and so are the times of its samples, unless oneprom's is wrong"
		require.Equal(t, []string{fmt.Sprintf(`server group "a": http://%s: %s`, p.Addr(), text)}, strs(ws))
		require.Equal(t, []string{text}, findings)
	}
	f(0, "")
	f(20*time.Second, "")
	f(-20*time.Second, "")
	f(3*time.Minute, "3m0s ahead of")
	f(-time.Hour, "1h0m0s behind")
}
