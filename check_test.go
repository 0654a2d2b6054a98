package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCheck_ServerWithPassword: a server behind a password is checked, too.
func TestCheck_ServerWithPassword(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "u" || password != "hunter2" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer s.Close()
	file := filepath.Join(t.TempDir(), "http.yml")
	require.NoError(t, os.WriteFile(file, []byte("basic_auth: {username: u, password: hunter2}\n"), 0o600))
	for _, what := range []string{"ready", "healthy"} {
		require.Equal(t, 1, run([]string{"check", what, "--url=" + s.URL}))
		require.Equal(t, 0, run([]string{"check", what, "--url=" + s.URL, "--http.config.file=" + file}))
		require.Equal(t, 1, run([]string{"check", what, "--url=" + s.URL, "--http.config.file=" + file + ".none"}))
	}
}
