package redact

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestURLs(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "",
		"no URL: a?b=c":                         "no URL: a?b=c",
		"http://a:9090":                         "http://a:9090",
		"http://a:9090/x: connection refused":   "http://a:9090/x: connection refused",
		"http://u:hunter2@a/x?key=hunter2#k":    "http://u:xxxxx@a/x?<secret>",
		"https://hunter2@a":                     "https://xxxxx@a",
		"http://u:hunter2/2?@a/x":               "http://u:xxxxx@a/x",
		"http://a/?":                            "http://a/?",
		"http://a/#hunter2":                     "http://a/#<secret>",
		`Get "http://a/?k=hunter2": EOF`:        `Get "http://a/?<secret>": EOF`,
		`{"u":"http://a/?k=hunter2","v":"b"}`:   `{"u":"http://a/?<secret>","v":"b"}`,
		"x http://a/?k=hunter2 y http://b/?k=1": "x http://a/?<secret> y http://b/?<secret>",
		"http://a/b@c":                          "http://a/b@c",
	} {
		require.Equal(t, want, URLs(text))
		require.Equal(t, want, URLs(want), "once more changes nothing")
	}
}

func TestLogHandler(t *testing.T) {
	const secret = "http://u:hunter2@a/?key=hunter2"
	u, err := url.Parse(secret)
	require.NoError(t, err)
	for _, to := range []func(*bytes.Buffer) slog.Handler{
		func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var out bytes.Buffer
		logger := slog.New(LogHandler(to(&out)))
		logger.With("url", secret).WithGroup("g").Error("at "+secret, "err", fmt.Errorf("x: %w", &url.Error{Op: "Get", URL: secret, Err: errors.New("gone")}),
			"u", u, "list", []string{secret}, slog.Group("more", "a", secret), "n", 1, "ok", true)
		require.NotContains(t, out.String(), "hunter2")
		require.Equal(t, 6, strings.Count(out.String(), "http://u:"), out.String())
		require.Contains(t, out.String(), "gone")
	}
}

func TestGatherer(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c"}, []string{"url", "x"})
	reg.MustRegister(c)
	c.WithLabelValues("http://u:hunter2@a/?key=hunter2", "y").Inc()
	for range 2 { // the metric itself stays as it is
		families, err := Gatherer(reg).Gather()
		require.NoError(t, err)
		require.NotContains(t, fmt.Sprint(families), "hunter2")
		require.Contains(t, fmt.Sprint(families), "http://u:xxxxx@a/?<secret>")
		families, err = reg.Gather()
		require.NoError(t, err)
		require.Contains(t, fmt.Sprint(families), "key=hunter2")
	}
}
