package backendtest

import (
	"bytes"
	"io"
	"net/http"

	"github.com/golang/snappy"
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
