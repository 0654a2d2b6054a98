package e2e

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A question that nobody waits for any more must not keep a backend busy.

// patience is how long a test waits for what must happen at once.
const patience = 20 * time.Second

// hangingBackend answers no query; all else goes to the healthy Prometheus.
type hangingBackend struct {
	url     string
	started chan url.Values // a query arrived, with these parameters
	ended   chan struct{}   // the request of a query was cancelled
}

func newHangingBackend(t *testing.T, healthy string) *hangingBackend {
	t.Helper()
	b := &hangingBackend{started: make(chan url.Values, 100), ended: make(chan struct{}, 100)}
	target, err := url.Parse(healthy)
	require.NoError(t, err)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	pass := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	b.url = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The body has to be read to its end, or net/http does not notice that
		// the client went away.
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if bytes.Contains(body, []byte("topk")) {
			// Without a series to compare by, no probe reads samples.
			says(http.StatusOK, jsonType, `{"status":"success","data":{"resultType":"vector","result":[]}}`)(w, r, wire{})
			return
		}
		if isProbe(r, body) || !strings.Contains(r.URL.Path, "/api/v1/query") && !strings.HasSuffix(r.URL.Path, "/api/v1/read") {
			pass.ServeHTTP(w, r)
			return
		}
		_ = r.ParseForm()
		b.started <- r.Form
		<-r.Context().Done()
		b.ended <- struct{}{}
	}))
	return b
}

// hears waits for one message of a channel.
func hears[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		require.FailNow(t, what)
		panic("unreachable")
	}
}

// hangingGroups is the configuration of a group for each backend.
func hangingGroups(t *testing.T, remoteRead string, backends []*hangingBackend) string {
	config := ""
	for i, b := range backends {
		group := oneBackend([]string{hostPort(t, b.url)}, "remote_read: "+remoteRead, "labels: {shard: '"+strconv.Itoa(i)+"'}")
		if i > 0 {
			group = strings.TrimPrefix(group, "server_groups:\n")
		}
		config += strings.Replace(group, "name: a", "name: g"+strconv.Itoa(i), 1)
	}
	return config
}

func eachReadWayAndQuery(t *testing.T, run func(t *testing.T, remoteRead, path string)) {
	for _, remoteRead := range []string{"always", "never"} {
		for _, path := range []string{
			"/api/v1/query?time=600&query=m",
			"/api/v1/query_range?start=0&end=600&step=30&query=sum(rate(reqs_total[1m]))",
		} {
			t.Run(remoteRead+path, func(t *testing.T) { run(t, remoteRead, path) })
		}
	}
}

func TestClientThatLeavesCancelsTheBackends(t *testing.T) {
	shows(t, byHTTP, 22)
	healthy := reference(t)
	eachReadWayAndQuery(t, func(t *testing.T, remoteRead, path string) {
		backends := []*hangingBackend{newHangingBackend(t, healthy), newHangingBackend(t, healthy)}
		base := oneprom(t, hangingGroups(t, remoteRead, backends))
		c := badBackendClient(t)
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
		require.NoError(t, err)
		left := make(chan error, 1)
		go func() {
			resp, err := c.client.Do(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			left <- err
		}()
		for _, b := range backends {
			hears(t, b.started, "a backend was not asked")
		}
		leave()
		require.ErrorIs(t, hears(t, left, "the client could not leave"), context.Canceled)
		for _, b := range backends {
			hears(t, b.ended, "the request to a backend goes on")
		}
	})
}

func TestTimeoutParameterCancelsTheBackend(t *testing.T) {
	shows(t, byHTTP, 22)
	healthy := reference(t)
	eachReadWayAndQuery(t, func(t *testing.T, remoteRead, path string) {
		b := newHangingBackend(t, healthy)
		base := oneprom(t, hangingGroups(t, remoteRead, []*hangingBackend{b}))
		began := time.Now()
		r := badBackendClient(t).ask(t, base, probe{path: path + "&timeout=300ms"})
		require.Equal(t, http.StatusServiceUnavailable, r.status, r.body)
		require.Contains(t, r.body, `"errorType":"timeout"`)
		require.Less(t, time.Since(began), patience)
		form := hears(t, b.started, "the backend was not asked")
		hears(t, b.ended, "the request to the backend goes on")
		if remoteRead == "never" {
			passedOn, err := parseSeconds(form.Get("timeout"))
			require.NoError(t, err, "the timeout is not passed on: %s", form)
			require.Positive(t, passedOn)
			require.LessOrEqual(t, passedOn, 0.3)
		}
	})
}

// parseSeconds reads a duration parameter: 0.3 or 300ms.
func parseSeconds(text string) (float64, error) {
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		return f, nil
	}
	d, err := time.ParseDuration(text)
	return d.Seconds(), err
}
