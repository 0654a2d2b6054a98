package servergroup

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/guard"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A bug that one replica's answer shows, in whatever goroutine, is that replica's
// failure: its twin answers, and the process goes on.
func TestView_PanicOverOneReplicaIsItsFailure(t *testing.T) {
	a, b := backend(t, "load 15s\n foo 1+1x3"), backend(t, "load 15s\n foo 1+1x3")
	s, _, log := loggedSet(t, groupOf("a", a, b))
	ready(t, s)
	client := s.current.Load().entries[0].client
	healthy := client.Transport
	client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		if "http://"+r.URL.Host == a.URL {
			panic("oh")
		}
		return healthy.RoundTrip(r)
	})
	got, ws, err := selectText(t, s, `foo`, 0, 15000)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo"} 0:1 15:2`+"\n", got)
	require.Len(t, strs(ws), 1)
	require.Contains(t, strs(ws)[0], `server group "a" answered without a replica: `)
	require.Contains(t, strs(ws)[0], `panic: oh`)
	require.Equal(t, 1, log.count("panic=oh"))
	require.Positive(t, log.count("panic_test.go"), "the stack tells where")

	firstReplica(s).Forget()
	_, err = firstReplica(s).Ready(t.Context())
	var bug *guard.PanicError
	require.ErrorAs(t, err, &bug)
}
