package proxy

import (
	"bufio"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// manySeries is a server that makes up any number of series when it is asked for them.
type manySeries struct {
	http.Handler
	n    atomic.Int64
	half atomic.Pointer[func()] // called in the middle of an answer with series
}

func (m *manySeries) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query, path := r.FormValue("query")+strings.Join(r.Form["match[]"], ""), r.URL.Path
	one, value := `{"__name__":"many","job":"j","i":"%07d"}`, "1"
	switch {
	case path == "/api/v1/read":
		http.NotFound(w, r)
		return
	case !strings.Contains(query, "many") && path != "/api/v1/label/i/values", backendtest.CountsSeries(r):
		m.Handler.ServeHTTP(w, r)
		return
	case path == "/api/v1/label/i/values":
		one = `"%07d"`
	case strings.HasPrefix(path, "/api/v1/query"):
		if strings.HasPrefix(query, "timestamp(") {
			value = "600"
		}
		one = `{"metric":` + one + `,"values":[[600,"` + value + `"]]}`
	}
	head, tail := `{"status":"success","data":[`, `]}`
	if strings.HasPrefix(path, "/api/v1/query") {
		head, tail = `{"status":"success","data":{"resultType":"matrix","result":[`, `]}}`
	}
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriter(w)
	_, _ = out.WriteString(head)
	n := m.n.Load()
	for i := range n {
		if i > 0 {
			_ = out.WriteByte(',')
		}
		_, _ = fmt.Fprintf(out, one, i)
		if half := m.half.Load(); half != nil && i == n/2 {
			(*half)()
		}
	}
	_, _ = out.WriteString(tail)
	_ = out.Flush()
}

// TestManySeries: what answers of very many series cost grows with their number and no faster, the budget ends those that are
// too large, and other clients are answered meanwhile.
func TestManySeries(t *testing.T) {
	m := &manySeries{Handler: backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 1m\n few 1x10")})}
	srv := httptest.NewServer(m)
	t.Cleanup(srv.Close)
	config := "server_groups:\n- {name: g, static_configs: [{targets: ['" + strings.TrimPrefix(srv.URL, "http://") + "']}]}\n"
	s, _ := startedServer(t, config, "--cache.size=0") // what the server has changes all the time
	paths := map[string]string{                        // of what is asked, with what a series looks like in the answer
		"/api/v1/series?match[]=many&start=0&end=600": `"i":"`, "/api/v1/label/i/values?start=0&end=600": `"0`,
		"/api/v1/query?query=many&time=600": `"i":"`, "/api/v1/query_range?query=many&start=540&end=600&step=60": `"i":"`, "/api/v1/query?query=sum(many)&time=600": "",
	}
	allocated := func(path, each string, n int) uint64 {
		t.Helper()
		m.n.Store(int64(n))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := get(s.Handler(), path)
		runtime.ReadMemStats(&after)
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		if each == "" {
			require.Contains(t, w.Body.String(), fmt.Sprintf(`[600,"%d"]`, n))
		} else {
			require.Equal(t, n, strings.Count(w.Body.String(), each))
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	for path, each := range paths {
		some, more := uint64(math.MaxUint64), uint64(math.MaxUint64)
		for range 4 { // the least: what is kept for reuse may have been collected
			some, more = min(some, allocated(path, each, 3_000)), min(more, allocated(path, each, 12_000))
		}
		require.Less(t, float64(more)/float64(some), 5.5, path)
	}

	small, _ := startedServer(t, config, "--query.max-fetched-bytes=1MiB")
	for path := range paths {
		w := get(small.Handler(), path)
		require.Equal(t, http.StatusUnprocessableEntity, w.Code, path)
		require.Contains(t, w.Body.String(), "query needs more than 1048576 bytes of data from the server groups, most of it from "+srv.URL)
	}

	var asked, answered atomic.Int64 // a slow answer is asked for once more, so more than once is right, too
	other := func() {
		asked.Add(1)
		if w := get(s.Handler(), "/api/v1/query?query=few&time=60"); w.Code == http.StatusOK && strings.Contains(w.Body.String(), `[60,"1"]`) {
			answered.Add(1)
		}
	}
	m.half.Store(&other)
	require.Equal(t, http.StatusOK, get(s.Handler(), "/api/v1/series?match[]=many&start=0&end=600").Code)
	require.Positive(t, asked.Load())
	require.Equal(t, asked.Load(), answered.Load())
}
