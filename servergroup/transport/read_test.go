package transport

import (
	"io"
	"math"
	"net/http"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"
)

type flusher struct{}

func (flusher) Flush() {}

// A server that fails after the first frame can only write its error into the stream.
func TestRead_CannotCut(t *testing.T) {
	c := served(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
		frame, err := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{{Labels: []prompb.Label{{Name: "a", Value: "b"}}}}}).Marshal()
		require.NoError(t, err)
		_, err = remote.NewChunkedWriter(w, flusher{}).Write(frame)
		require.NoError(t, err)
		_, _ = io.WriteString(w, "iterate chunk while re-encoding: detected unexpected counter reset in histogram\n")
	})
	_, err := c.Fetch(t.Context(), StreamedRead, request(t, Request{MinT: math.MinInt64, MaxT: math.MaxInt64}))
	require.Equal(t, ClassServer, ClassOf(err))
	require.True(t, CannotCut(err))
}

// A series that cannot be one is a failure that names the server.
func TestRead_ImpossibleLabels(t *testing.T) {
	c := served(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
		frame, err := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{{Labels: []prompb.Label{{Name: "a", Value: "b"}, {Name: "a", Value: "c"}}}}}).Marshal()
		require.NoError(t, err)
		_, err = remote.NewChunkedWriter(w, flusher{}).Write(frame)
		require.NoError(t, err)
	})
	_, err := c.Fetch(t.Context(), StreamedRead, request(t, Request{MinT: math.MinInt64, MaxT: math.MaxInt64}))
	require.Equal(t, ClassContent, ClassOf(err))
	require.ErrorContains(t, err, c.URL())
	require.ErrorContains(t, err, `label "a" twice in a series`)
}
