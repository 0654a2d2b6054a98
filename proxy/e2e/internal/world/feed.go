package world

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
)

// batchSamples is how many samples one request of remote write carries at least.
const batchSamples = 20_000

// RunFed starts a server of a kind that is given series by remote write: each has the value 1 once a minute from from to to (unix ms).
func RunFed(tb testing.TB, kind Kind, series []labels.Labels, from, to int64) *Process {
	tb.Helper()
	s := &Server{Name: "fed", Kind: kind}
	s.Process = s.run(tb, Binary(tb, PrometheusPackage), tb.TempDir())
	s.giveOnes(tb, series, from, to)
	return s.Process
}

// giveOnes feeds the series of RunFed.
func (s *Server) giveOnes(tb testing.TB, series []labels.Labels, from, to int64) {
	tb.Helper()
	err := s.fill(tb.Context(), func(f *feeder) error {
		for _, ls := range series {
			ref := storage.SeriesRef(0)
			for t := from; t <= to; t += minute {
				var err error
				if ref, err = f.Append(ref, ls, 0, t, 1, nil, nil, storage.AppendV2Options{}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatalf("the data of a %s: %v", s.Kind, err)
	}
}

// Member is a Prometheus, of release 3 at first, that becomes another one at the same address: its release, its external labels and
// its data change.
type Member struct {
	*Process
	dir string
}

// RunMember starts a member with the series of RunFed.
func RunMember(tb testing.TB, series []labels.Labels, from, to int64) *Member {
	tb.Helper()
	m := &Member{Process: &Process{URL: "http://" + freeAddress(tb), ready: "/-/ready", exit: closed()}}
	tb.Cleanup(func() { m.Kill() })
	m.Become(tb, Prometheus, nil, true)
	m.Give(tb, series, from, to)
	return m
}

// closed is the exit of a process that is gone.
func closed() chan error {
	c := make(chan error)
	close(c)
	return c
}

// Become starts the member again, with what it has, or without any data.
func (m *Member) Become(tb testing.TB, kind Kind, external map[string]string, empty bool) {
	tb.Helper()
	m.Kill()
	if empty {
		m.dir = tb.TempDir()
	}
	s := &Server{Name: "member", Kind: kind, ExternalLabels: external}
	config := filepath.Join(m.dir, "member.yml")
	if err := os.WriteFile(config, []byte(s.config()), 0o644); err != nil {
		tb.Fatal(err)
	}
	if m.binary = debianPrometheus(tb); kind == Prometheus {
		m.binary = Binary(tb, PrometheusPackage)
	}
	m.args = []string{
		"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(m.dir, "data"), "--web.listen-address=" + strings.TrimPrefix(m.URL, "http://"),
		"--web.enable-remote-write-receiver", "--web.enable-admin-api", "--log.level=warn",
	}
	m.Restart(tb)
}

// Give gives the member the series of RunFed.
func (m *Member) Give(tb testing.TB, series []labels.Labels, from, to int64) {
	tb.Helper()
	(&Server{Process: m.Process}).giveOnes(tb, series, from, to)
}

// Delete deletes the series of a selector by the admin API.
func (m *Member) Delete(tb testing.TB, selector string) {
	tb.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	query := url.Values{"match[]": {selector}}.Encode()
	if err := post(tb.Context(), client, m.URL+"/api/v1/admin/tsdb/delete_series?"+query, "", nil); err != nil {
		tb.Fatal(err)
	}
}

// feed sends what the server scraped from Begin to end (unix ms) to its process, and has it ready for queries.
func (s *Server) feed(ctx context.Context, end int64) error {
	return s.fill(ctx, func(f *feeder) error {
		return s.write(ctx, Span{Begin, end}, func() storage.AppenderV2 { return f }, func(int64) error { return nil })
	})
}

// fill sends what write gives to a feeder to the server's process, and has it ready for queries.
func (s *Server) fill(ctx context.Context, write func(*feeder) error) error {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	post := func(path, contentType string, body []byte) error {
		return post(ctx, client, s.URL+path, contentType, body)
	}
	if s.Kind == InfluxDB {
		create := url.Values{"q": {"CREATE DATABASE " + influxDatabase}}.Encode()
		if err := post("/query", "application/x-www-form-urlencoded", []byte(create)); err != nil {
			return err
		}
	}
	f := &feeder{external: labels.FromMap(s.ExternalLabels), send: func(body []byte) error {
		return post(s.Kind.writePath(), "application/x-protobuf", body)
	}}
	if err := write(f); err != nil {
		return err
	}
	if err := f.flush(); err != nil {
		return err
	}
	if s.Kind == VictoriaMetrics { // it shows new data within seconds only, unless it is told to
		return post("/internal/force_flush", "", nil)
	}
	return nil
}

// post sends a body and wants to hear that all is well.
func post(ctx context.Context, client *http.Client, url, contentType string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	if strings.Contains(contentType, "protobuf") {
		req.Header.Set("Content-Encoding", "snappy")
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("POST %s: %s: %.300s", url, resp.Status, text)
	}
	return nil
}

// feeder is an appender that sends the floats which it is given by remote write, with the external labels that a Prometheus adds to them.
type feeder struct {
	external labels.Labels
	send     func(body []byte) error

	series  []prompb.TimeSeries // all so far, by reference; with the samples that are to be sent
	samples int                 // that are to be sent
}

func (f *feeder) Append(ref storage.SeriesRef, l labels.Labels, _, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram,
	_ storage.AppendV2Options,
) (storage.SeriesRef, error) {
	if h != nil || fh != nil {
		return 0, fmt.Errorf("a histogram for a server that stores none: %s", l)
	}
	if ref == 0 {
		b := labels.NewBuilder(l)
		f.external.Range(func(e labels.Label) {
			if !l.Has(e.Name) {
				b.Set(e.Name, e.Value)
			}
		})
		f.series = append(f.series, prompb.TimeSeries{Labels: prompb.FromLabels(b.Labels(), nil)})
		ref = storage.SeriesRef(len(f.series))
	}
	s := &f.series[ref-1]
	s.Samples = append(s.Samples, prompb.Sample{Timestamp: t, Value: v})
	f.samples++
	return ref, nil
}

// Commit sends what there is if that is worth a request.
func (f *feeder) Commit() error {
	if f.samples < batchSamples {
		return nil
	}
	return f.flush()
}

func (f *feeder) Rollback() error {
	return fmt.Errorf("what was sent cannot be taken back")
}

// flush sends all samples that are left.
func (f *feeder) flush() error {
	req := &prompb.WriteRequest{}
	for _, s := range f.series {
		if len(s.Samples) > 0 {
			req.Timeseries = append(req.Timeseries, s)
		}
	}
	body, err := req.Marshal()
	if err != nil {
		return err
	}
	for i := range f.series {
		f.series[i].Samples = f.series[i].Samples[:0]
	}
	f.samples = 0
	return f.send(snappy.Encode(nil, body))
}
