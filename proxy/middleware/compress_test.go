package middleware

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/stretchr/testify/require"
)

// answered is what a handler that writes pieces answers to a client that accepts encodings.
func answered(t *testing.T, accepted string, code int, pieces ...string) (encoding, body string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Accept-Encoding", accepted)
	w := httptest.NewRecorder()
	Compress(func(w http.ResponseWriter, r *http.Request) {
		require.Empty(t, r.Header.Get("Accept-Encoding"))
		w.WriteHeader(code)
		for _, p := range pieces {
			n, err := io.WriteString(w, p)
			require.NoError(t, err)
			require.Equal(t, len(p), n)
		}
	})(w, r)
	require.Equal(t, code, w.Code)
	require.Equal(t, "Accept-Encoding", w.Header().Get("Vary"))
	encoding = w.Header().Get("Content-Encoding")
	var plain io.Reader = w.Body
	var err error
	switch encoding {
	case "gzip":
		plain, err = gzip.NewReader(bytes.NewReader(w.Body.Bytes()))
	case "deflate":
		plain, err = zlib.NewReader(bytes.NewReader(w.Body.Bytes()))
	}
	require.NoError(t, err)
	text, err := io.ReadAll(plain)
	require.NoError(t, err)
	return encoding, string(text)
}

func TestCompress_WhatIsNotSmall(t *testing.T) {
	most, beyond := strings.Repeat("a", smallAnswer), strings.Repeat("b", 100_000)
	f := func(accepted string, pieces []string, want string) {
		t.Helper()
		for _, code := range []int{http.StatusOK, http.StatusBadRequest} {
			encoding, body := answered(t, accepted, code, pieces...)
			require.Equal(t, want, encoding)
			require.Equal(t, strings.Join(pieces, ""), body)
		}
	}
	f("gzip", nil, "")
	f("gzip", []string{"small"}, "")
	f("gzip", []string{most}, "")
	f("gzip", []string{most, "b"}, "gzip")
	f("gzip", []string{"a", most, beyond, "c"}, "gzip")
	f("gzip", []string{beyond}, "gzip") // by a writer that was used before
	f("br, deflate, gzip", []string{beyond}, "deflate")
	f("gzip, deflate", []string{beyond}, "gzip")
	f("gzip;q=1.0", []string{beyond}, "")
	f("", []string{beyond}, "")
}
