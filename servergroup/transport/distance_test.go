package transport

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDistance_NearAnswersAreNotCompressed: once a connection was opened fast. What is
// far, or not known to be near, is asked for with gzip.
func TestDistance_NearAnswersAreNotCompressed(t *testing.T) {
	var mtx sync.Mutex
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mtx.Lock()
		defer mtx.Unlock()
		asked = append(asked, r.Header.Get("Accept-Encoding"))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"status":"success","data":{}}`))
	}))
	defer server.Close()
	base, err := url.Parse(server.URL)
	require.NoError(t, err)
	encodings := func(d *Distance) []string {
		c := &Client{HTTP: &http.Client{Transport: &http.Transport{}}, Base: base, Distance: d}
		defer c.HTTP.CloseIdleConnections()
		asked = nil
		for range 2 {
			resp, err := c.get(t.Context(), "/api/v1/status/buildinfo", nil)
			require.NoError(t, err)
			resp.Body.Close()
		}
		return asked
	}
	require.Equal(t, []string{"gzip", "gzip"}, encodings(nil))
	fresh := &Distance{}
	require.Equal(t, "gzip", encodings(fresh)[0])
	require.Positive(t, fresh.shortest.Load(), "it was measured")

	near := &Distance{}
	near.observe(time.Hour)
	near.observe(nearby / 2)
	near.observe(nearby * 2)
	require.Equal(t, []string{"identity", "identity"}, encodings(near))
}

func TestDistance_Near(t *testing.T) {
	var unknown *Distance
	require.False(t, unknown.near())
	require.False(t, (&Distance{}).near())
	far := &Distance{}
	far.observe(nearby)
	require.False(t, far.near())
	far.observe(0)
	require.True(t, far.near())
}
