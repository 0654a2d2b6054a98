package demo

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestServer_ForgetsWhatIsOlderThanItKeeps(t *testing.T) {
	p := plan{name: "us-a", regions: []string{"us"}, keep: kept}
	now := func() time.Time { return testEnd }
	s, err := startServer(p, t.TempDir(), testEnd, now)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.stop(t.Context())) }()
	for at := testEnd.Add(-history + interval); !at.After(testEnd); at = at.Add(interval) {
		require.NoError(t, s.scrape(at))
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()

	const scrapes, inChunk = int(kept / interval), 120
	got, err := ask(t.Context(), client, s.url(), `count_over_time(up{instance="us-api-1"}[6h])`, testEnd)
	require.NoError(t, err)
	n := int(got.vector[0].Value)
	require.GreaterOrEqual(t, n, scrapes)
	require.LessOrEqual(t, n, scrapes+inChunk)

	got, err = ask(t.Context(), client, s.url(), `count_over_time(up[6h] offset 3h)`, testEnd)
	require.NoError(t, err)
	require.Empty(t, got.vector)
}
