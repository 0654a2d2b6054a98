package toxics

import (
	"encoding/json"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
)

// TestWholeReplicaFails_ItsTwinAnswers: that a replica has missed nothing is known before it fails, and
// so it is to answer alone. Its twin, which has missed nothing either, answers instead, and the answer
// says so in an info.
func TestWholeReplicaFails_ItsTwinAnswers(t *testing.T) {
	w := sharedWorld()
	for name, f := range map[string]fault.Fault{"refuses": fault.Refuse(), "hangs": fault.Hang(), "500": fault.Says(500, nil, "oops")} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, w)
			r.start(t)
			r.settle(t, w)
			servers, ails := scopes[0].within(r, false)
			r.set(t, f, servers)
			q := question{"query", "/api/v1/query?time=3600&timeout=" + queryTimeout.String() + "&query=" + url.QueryEscape("sum by (zone) (m)")}
			got := r.ask(t.Context(), q)
			v := w.judge(q, got, ails, nil)
			require.Equal(t, right, v.outcome, "%s after %s: %s", v.why, got.after, got.body)
			var e struct{ Infos []string }
			require.NoError(t, json.Unmarshal([]byte(got.body), &e))
			if name == "hangs" && len(e.Infos) == 0 {
				return // nobody waited for it to fail
			}
			require.Len(t, e.Infos, 1)
			require.Contains(t, e.Infos[0], `server group "us-east" (region "us") answered without a replica: http://`+ails.servers[0])
		})
	}
}
