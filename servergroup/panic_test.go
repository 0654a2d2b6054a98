package servergroup

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/transport"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A bug that one replica's answer shows, in whatever goroutine, is that replica's
// failure: its twin answers, and the process goes on.
func TestView_PanicOverOneReplicaIsItsFailure(t *testing.T) {
	a, b := backend(t, "load 15s\n foo 1+1x3"), backend(t, "load 15s\n foo 1+1x3")
	var logged bytes.Buffer
	s := newTestSet(t, config.PartialError, groupOf("a", a, b))
	first := (*s.current.Load().groups()[0].replicas.Load())[0]
	_, err := first.ready(t.Context())
	require.NoError(t, err)
	first.logger = slog.New(slog.NewTextHandler(&logged, nil))
	broken := func(*http.Request) (*http.Response, error) { panic("oh") }
	for _, c := range []*transport.Client{first.client, first.profile.client} {
		c.HTTP = &http.Client{Transport: roundTripper(broken)}
	}
	got, ws, err := selectText(t, s, `foo`, 0, 15000)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo"} 0:1 15:2`+"\n", got)
	require.Len(t, strs(ws), 1)
	require.Contains(t, strs(ws)[0], `server group "a" answered without a replica: `)
	require.Contains(t, strs(ws)[0], `panic: oh`)
	require.Contains(t, logged.String(), "panic=oh")
	require.Contains(t, logged.String(), "panic_test.go", "the stack tells where")

	_, err = first.probe(t.Context())
	var bug *transport.PanicError
	require.ErrorAs(t, err, &bug)
}

func TestLater_PanicIsItsError(t *testing.T) {
	var done sync.WaitGroup
	set := Later(context.Background(), &done, func() ([]storage.Series, annotations.Annotations, error) { panic("oh") }).Read()
	require.False(t, set.Next())
	var bug *transport.PanicError
	require.ErrorAs(t, set.Err(), &bug)
	require.EqualError(t, bug, "panic: oh")
	require.Contains(t, string(bug.Stack), "TestLater_PanicIsItsError")
	done.Wait()
}
