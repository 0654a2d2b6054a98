package middleware

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNeverInternal(t *testing.T) {
	for code, want := range map[int]int{500: 503, 400: 400, 200: 200} {
		h := NeverInternal(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, streams := w.(http.Flusher)
			require.True(t, streams)
			w.WriteHeader(code)
		}))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		require.Equal(t, want, w.Code)
	}
}
