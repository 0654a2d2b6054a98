package api

import (
	"bufio"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRecorder_FailureThatIsNoJSON(t *testing.T) {
	w, _ := RecorderOf(httptest.NewRecorder())
	require.Equal(t, http.StatusOK, w.Status())
	http.Error(w, "Service Unavailable", http.StatusServiceUnavailable)
	_, _ = w.Write(make([]byte, 2*maxFailureBody))
	require.Len(t, w.failure, maxFailureBody)
	require.Contains(t, w.Failure(), "Service Unavailable")
	w.Header().Set("Content-Encoding", "gzip")
	require.Empty(t, w.Failure(), "it is none")
}

// wrapped is a writer as others put around theirs.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestRecorderOf_FindsTheOnlyOne(t *testing.T) {
	rec, w := RecorderOf(httptest.NewRecorder())
	require.Same(t, rec, w)
	outer := wrapped{wrapped{w}}
	again, w := RecorderOf(outer)
	require.Same(t, rec, again)
	require.Equal(t, outer, w, "what is around it stays in use")
}

// Hooks are called once, the last that was added first, however the answer begins.
func TestRecorder_Hooks(t *testing.T) {
	for name, begin := range map[string]func(http.ResponseWriter){
		"header": func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"body":   func(w http.ResponseWriter) { _, _ = w.Write([]byte("x")) },
		"flush":  func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
	} {
		under := httptest.NewRecorder()
		rec, w := RecorderOf(under)
		var called []int
		defer rec.OnBegin(func(h http.Header, code int) (int, []byte) {
			h.Set("X-Code", "set")
			called = append(called, code)
			return code, nil
		})()
		rec.OnBegin(func(http.Header, int) (int, []byte) { panic("removed") })()
		defer rec.OnBegin(func(_ http.Header, code int) (int, []byte) {
			called = append(called, code)
			return http.StatusServiceUnavailable, nil
		})()
		require.False(t, rec.Begun())
		begin(w)
		_, _ = w.Write([]byte("y"))
		require.True(t, rec.Begun())
		require.Len(t, called, 2, name)
		require.Equal(t, http.StatusServiceUnavailable, called[1], name)
		require.Equal(t, http.StatusServiceUnavailable, rec.Status(), name)
		require.Equal(t, http.StatusServiceUnavailable, under.Code, name)
		require.Equal(t, "set", under.Header().Get("X-Code"), name)
	}
}

// What a hook answers instead is all that is sent.
func TestRecorder_HookThatAnswers(t *testing.T) {
	under := httptest.NewRecorder()
	rec, w := RecorderOf(under)
	defer rec.OnBegin(func(header http.Header, _ int) (int, []byte) {
		clear(header)
		return http.StatusForbidden, []byte("no")
	})()
	w.Header().Set("X-Key", "secret")
	n, err := w.Write([]byte("secret"))
	require.NoError(t, err)
	require.Equal(t, 6, n)
	w.WriteHeader(http.StatusOK)
	require.NoError(t, http.NewResponseController(w).Flush())
	require.Equal(t, http.StatusForbidden, under.Code)
	require.Equal(t, "no", under.Body.String())
	require.Empty(t, under.Header())
	require.Equal(t, "no", rec.Failure())
}

// hijacked is a writer whose connection can be taken over.
type hijacked struct {
	http.ResponseWriter
	taken bool
}

func (w *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.taken = true
	return nil, nil, nil
}

// What the writer below can do, a controller finds.
func TestRecorder_UnwrapsForControllers(t *testing.T) {
	under := &hijacked{ResponseWriter: httptest.NewRecorder()}
	_, w := RecorderOf(under)
	_, _, err := http.NewResponseController(w).Hijack()
	require.NoError(t, err)
	require.True(t, under.taken)
}
