package transport

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
)

// columns reads `t:v` pairs in seconds; `x` is a stale marker.
func columns(text string) *dedup.Samples {
	s := &dedup.Samples{}
	for pair := range strings.FieldsSeq(text) {
		var t int64
		var v string
		_, _ = fmt.Sscanf(strings.Replace(pair, ":", " ", 1), "%d %s", &t, &v)
		f := dedup.StaleNaN
		if v != "x" {
			_, _ = fmt.Sscanf(v, "%g", &f)
		}
		s.Append(0, t*1000, f)
	}
	return s
}

func text(s *dedup.Samples) string {
	var out []string
	for i, t := range s.T {
		if s.Stale(i) {
			out = append(out, fmt.Sprintf("%g:x", float64(t)/1000))
		} else {
			out = append(out, fmt.Sprintf("%g:%g", float64(t)/1000, s.F[i]))
		}
	}
	return strings.Join(out, " ")
}

func TestSamplesBehind_StepsBecomeTheSamplesThatTheyShow(t *testing.T) {
	steps := Steps{Start: 0, End: 600_000, Step: 60_000, Lookback: 300_000}
	f := func(values, times, want string) {
		t.Helper()
		require.Equal(t, want, text(samplesOfSteps(columns(values), columns(times), steps)))
	}
	// A sample that several steps see is one sample; the series ends when it is out of the lookback, without a marker.
	f("0:1 60:1 120:1 180:1 240:1", "0:0 60:0 120:0 180:0 240:0", "0:1")
	f("60:1 120:2", "60:55 120:115", "55:1 115:2 180:x")
	// Absent although the last sample is young: there was a stale marker.
	f("60:1 240:2 300:2 360:2 420:2 480:2 540:2 600:2", "60:55 240:230 300:230 360:230 420:230 480:230 540:230 600:230", "55:1 120:x 230:2")
	f("600:7", "600:590", "590:7")
	f("", "", "")
}

func TestMarkEnds_MarkersLieBetweenTheStepsThatProveThem(t *testing.T) {
	steps := Steps{Start: 0, End: 600_000, Step: 60_000, Lookback: 300_000}
	f := func(samples string, present []int64, want string) {
		t.Helper()
		for i := range present {
			present[i] *= 1000
		}
		require.Equal(t, want, text(markEnds(columns(samples), present, steps, math.MaxInt64)))
	}
	// Whole intervals after the last sample, where a scrape would have failed.
	f("0:1 15:1 30:1", []int64{0}, "0:1 15:1 30:1 45:x")
	f("0:1 15:1 30:1 45:1 60:1", []int64{0, 60}, "0:1 15:1 30:1 45:1 60:1 75:x")
	f("0:1 15:1 30:1 45:1 60:1", []int64{0, 60, 120, 180, 240, 300, 340}, "0:1 15:1 30:1 45:1 60:1")
	f("0:1 15:1 30:1 300:1 315:1", []int64{0, 60, 300, 360, 420, 480, 540, 600}, "0:1 15:1 30:1 75:x 300:1 315:1")
}

// served runs a client against a handler.
func served(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	return &Client{HTTP: s.Client(), Base: u, ReadPath: "/api/v1/read"}
}

func request(t *testing.T, r Request) Request {
	t.Helper()
	r.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}
	r.Labels = unchanged
	return r
}

// unchanged is Request.Labels for series that keep their labels.
func unchanged(raw []labels.Label) (labels.Labels, string) { return labels.New(raw...), "" }

const emptyMatrix = `{"status":"success","data":{"resultType":"matrix","result":[]}}`

func TestQuery_StepsAreSplitBelowTheLimitOfPoints(t *testing.T) {
	var mtx sync.Mutex
	var asked []string
	c := served(t, func(w http.ResponseWriter, r *http.Request) {
		mtx.Lock()
		defer mtx.Unlock()
		if r.FormValue("query") == `{__name__="m"}` {
			asked = append(asked, r.FormValue("start")+" "+r.FormValue("end")+" "+r.FormValue("step")+" "+r.FormValue("lookback_delta"))
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, emptyMatrix)
	})
	steps := &Steps{Start: -500, End: 24_999_500, Step: 1000, Lookback: 300_000}
	_, err := c.Fetch(t.Context(), QueryAPI, request(t, Request{MinT: -300_000, MaxT: 24_999_500, Steps: steps, SoleReplica: true}))
	require.NoError(t, err)
	require.Equal(t, []string{
		"-0.500 6249.500 1.000 300.000", "6250.500 12499.500 1.000 300.000", "12500.500 18749.500 1.000 300.000", "18750.500 24999.500 1.000 300.000",
	}, asked)
}

// A subquery that is shorter than its step may have no step at all.
func TestQuery_NoStepIsAskedNothing(t *testing.T) {
	c := served(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("asked for %s", r.URL) })
	for _, alone := range []bool{true, false} {
		steps := &Steps{Start: 90_000, End: 60_000, Step: 90_000, Lookback: 300_000}
		got, err := c.Fetch(t.Context(), QueryAPI, request(t, Request{MaxT: 60_000, Steps: steps, SoleReplica: alone}))
		require.NoError(t, err)
		require.Empty(t, got)
	}
}

func TestQuery_PostIsRefusedThenGet(t *testing.T) {
	c := served(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			http.Error(w, "no", http.StatusMethodNotAllowed)
			return
		}
		require.Equal(t, `{__name__="m"}[60000ms]`, r.URL.Query().Get("query"))
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, emptyMatrix)
	})
	_, err := c.Fetch(t.Context(), QueryAPI, request(t, Request{MinT: 1, MaxT: 60_000}))
	require.NoError(t, err)
}

func TestClient_ErrorClasses(t *testing.T) {
	f := func(status int, body string, class Class, want string) {
		t.Helper()
		c := served(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
		_, err := c.Fetch(t.Context(), QueryAPI, request(t, Request{MaxT: 1}))
		require.Equal(t, class, ClassOf(err), "%v", err)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, c.URL())
	}
	f(400, `{"status":"error","errorType":"bad_data","error":"no good"}`, ClassUser, "status 400 Bad Request: no good")
	f(422, `{"status":"error","errorType":"execution","error":"too many samples"}`, ClassUser, "too many samples")
	f(429, `{}`, ClassLoad, "status 429 Too Many Requests")
	f(503, `{"status":"error","errorType":"timeout","error":"slow"}`, ClassEvaluation, "slow")
	f(503, "<html>\nsecond line", ClassServer, "status 503 Service Unavailable: <html>")
	f(401, "\x1b[31mred\x07", ClassServer, "status 401 Unauthorized: [31mred")
	f(200, `{"status":"success"`, ClassTransport, "answer broke off")
	f(200, `[]`, ClassContent, "")
	f(200, `{"status":"error","error":"boo"}`, ClassContent, "boo")
	f(200, `{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}`, ClassContent, `result type "scalar" instead of matrix`)
}

func TestClient_SecretsAreNotInErrors(t *testing.T) {
	u, err := url.Parse("http://user:hunter2@127.0.0.1:1/")
	require.NoError(t, err)
	c := &Client{HTTP: &http.Client{}, Base: u, Params: url.Values{"token": {"s3cret"}}, Header: http.Header{"X-Key": {"k3y"}}}
	for _, err := range []error{
		func() error { _, err := c.Fetch(t.Context(), QueryAPI, request(t, Request{MaxT: 1})); return err }(),
		func() error { _, err := c.ProbeRead(t.Context()); return err }(),
		func() error { _, _, err := c.LabelNames(t.Context(), Lookup{}); return err }(),
	} {
		require.Error(t, err)
		for _, secret := range []string{"hunter2", "s3cret", "k3y"} {
			require.NotContains(t, err.Error(), secret)
		}
	}
}

func TestClient_DeadlineOfOursIsTransportAndCancellationIsNot(t *testing.T) {
	hung := make(chan struct{})
	c := served(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-hung:
		case <-r.Context().Done():
		}
	})
	defer close(hung)
	why := fmt.Errorf("no answer in time")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, why)
	defer cancel()
	_, err := c.Fetch(ctx, QueryAPI, request(t, Request{MaxT: 1}))
	require.Equal(t, ClassTransport, ClassOf(err))
	require.ErrorIs(t, err, why)

	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, err = c.Fetch(ctx, QueryAPI, request(t, Request{MaxT: 1}))
	require.Equal(t, ClassCanceled, ClassOf(err))
}
