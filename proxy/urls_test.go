package proxy

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExternalURLAndPrefix(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	f := func(flag, prefixFlag, wantURL, wantPrefix string) {
		t.Helper()
		u, err := externalURL(flag, "127.0.0.1:9091")
		require.NoError(t, err)
		require.Equal(t, wantURL, u.String())
		require.Equal(t, wantPrefix, routePrefix(prefixFlag, u))
	}
	f("", "", "http://"+host+":9091", "")
	f("", "/", "http://"+host+":9091", "")
	f("", "prom/", "http://"+host+":9091", "/prom")
	f("https://x.example/prom", "", "https://x.example/prom", "/prom")
	f("https://x.example/prom//", "", "https://x.example/prom", "/prom")
	f("https://x.example/", "", "https://x.example", "")
	f("https://x.example/prom/", "/", "https://x.example/prom", "")
	f("https://x.example/a/b/", "/c//", "https://x.example/a/b", "/c")
	f("/prom/", "", "/prom", "/prom")
	f("prom", "", "/prom", "/prom")
}

func TestExternalURL_Refused(t *testing.T) {
	for _, flag := range []string{`"http://x"`, `'http://x`, `http://x"`, "http://x:port"} {
		_, err := externalURL(flag, "127.0.0.1:9091")
		require.ErrorContains(t, err, "--web.external-url", flag)
	}
}
