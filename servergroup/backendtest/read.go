package backendtest

import (
	"bytes"
	"io"
	"net/http"
	"strings"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
)

// RemoteRead is how a backend answers /api/v1/read.
type RemoteRead int

const (
	// Streamed answers in whichever form the client accepts, as Prometheus does.
	Streamed RemoteRead = iota
	// SamplesOnly ignores the accepted types and sends samples, as Cortex and InfluxDB do.
	SamplesOnly
	// NoRemoteRead answers 404, as Thanos Query and VictoriaMetrics do.
	NoRemoteRead
)

// restrict returns the handler of /api/v1/read; full is the one that Prometheus would have.
func (m RemoteRead) restrict(full http.Handler) http.Handler {
	switch m {
	case SamplesOnly:
		return samplesOnly(full)
	case NoRemoteRead:
		return http.NotFoundHandler()
	default:
		return full
	}
}

// ReadQueries returns the queries of a request for remote read; none if it is another one, or broken. The body
// of the request can be read again.
func ReadQueries(r *http.Request) []*prompb.Query {
	if !strings.HasSuffix(r.URL.Path, "/read") {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return nil
	}
	raw, err := snappy.Decode(nil, body)
	var req prompb.ReadRequest
	if err != nil || req.Unmarshal(raw) != nil {
		return nil
	}
	return req.Queries
}

// samplesOnly takes the accepted response types out of the request, which leaves the oldest: samples.
func samplesOnly(full http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := remote.DecodeReadRequest(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		req.AcceptedResponseTypes = nil
		raw, err := req.Marshal()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		body := snappy.Encode(nil, raw)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		full.ServeHTTP(w, r)
	})
}
