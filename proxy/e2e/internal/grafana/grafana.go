// Package grafana emulates the back end of Grafana's Prometheus data source: it
// sends the requests that Grafana sends and accepts only what Grafana accepts.
// The real one can not be imported, so this is made from recorded requests.
package grafana

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// DataSource is one configured Prometheus data source.
type DataSource struct {
	URL    string
	Method string // GET or POST; POST if empty
	// Timeout is the query timeout parameter as text, not sent if empty.
	Timeout string
	// Custom are the custom query parameters; they go into the URL even of a POST.
	Custom url.Values
	// Stats asks for query statistics.
	Stats  bool
	Client *http.Client
}

// Health is what "Save & test" shows.
type Health struct {
	OK          bool
	Message     string
	Application string // Prometheus or Mimir; empty if buildinfo could not be read
}

// Check does what the button "Save & test" does.
func (d *DataSource) Check(ctx context.Context) (Health, error) {
	status, _, body, err := d.call(ctx, d.method(), "/api/v1/query", url.Values{"query": {"1+1"}, "time": {"4"}}, false)
	if err != nil {
		return Health{}, err
	}
	h := Health{Application: d.application(ctx)}
	if status != http.StatusOK {
		h.Message = fmt.Sprintf("%d %s - There was an error returned querying the Prometheus API.", status, http.StatusText(status))
		return h, nil
	}
	r, err := parse(body)
	if err != nil {
		return h, err
	}
	if r.Type != "scalar" && r.Type != "vector" {
		return h, fmt.Errorf("health query answered with a %s", r.Type)
	}
	h.OK, h.Message = true, "Successfully queried the Prometheus API."
	return h, nil
}

// application tells which product answers buildinfo: any feature means Mimir.
// A features map with values other than strings can not be read.
func (d *DataSource) application(ctx context.Context) string {
	status, _, body, err := d.call(ctx, http.MethodGet, "/api/v1/status/buildinfo", nil, false)
	if err != nil || status != http.StatusOK {
		return ""
	}
	var info struct {
		Data struct {
			Features map[string]string `json:"features"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &info) != nil {
		return ""
	}
	if len(info.Data.Features) > 0 {
		return "Mimir"
	}
	return "Prometheus"
}

// Range asks for a graph. The ends are aligned down to the step, as Grafana does
// for an observer in UTC.
func (d *DataSource) Range(ctx context.Context, expr string, from, to time.Time, step time.Duration) (Result, error) {
	return d.query(ctx, "/api/v1/query_range", url.Values{
		"query": {expr}, "step": {seconds(step.Seconds())},
		"start": {seconds(unix(align(from, step)))}, "end": {seconds(unix(align(to, step)))},
	})
}

// Instant asks for the value at a time, which is not aligned to anything.
func (d *DataSource) Instant(ctx context.Context, expr string, at time.Time) (Result, error) {
	return d.query(ctx, "/api/v1/query", url.Values{"query": {expr}, "time": {seconds(unix(at))}})
}

// Exemplars asks for the exemplars behind a graph.
func (d *DataSource) Exemplars(ctx context.Context, expr string, from, to time.Time, step time.Duration) (Result, error) {
	return d.query(ctx, "/api/v1/query_exemplars", url.Values{
		"query": {expr}, "start": {seconds(unix(align(from, step)))}, "end": {seconds(unix(align(to, step)))},
	})
}

// Panel asks the three questions of one target at once. Like Grafana it does not
// mind if there are no exemplars.
func (d *DataSource) Panel(ctx context.Context, expr string, from, to time.Time, step time.Duration) (graph, value Result, err error) {
	var errs [2]error
	var wg sync.WaitGroup
	wg.Go(func() { graph, errs[0] = d.Range(ctx, expr, from, to, step) })
	wg.Go(func() { value, errs[1] = d.Instant(ctx, expr, to) })
	wg.Go(func() { _, _ = d.Exemplars(ctx, expr, from, to, step) })
	wg.Wait()
	return graph, value, errors.Join(errs[:]...)
}

func (d *DataSource) query(ctx context.Context, path string, params url.Values) (Result, error) {
	if d.Timeout != "" {
		params.Set("timeout", d.Timeout)
	}
	status, _, body, err := d.call(ctx, d.method(), path, params, false)
	if err != nil {
		return Result{}, err
	}
	readable := status/100 == 2 || status == http.StatusBadRequest ||
		status == http.StatusUnprocessableEntity || status == http.StatusServiceUnavailable
	if !readable {
		return Result{}, fmt.Errorf("unexpected response with status code %d: %.1024s", status, body)
	}
	return parse(body)
}

func (d *DataSource) method() string {
	if d.Method == "" {
		return http.MethodPost
	}
	return d.Method
}

// call sends one request; the parameters go into the form of a POST or into the
// URL of a GET. For a browser's call the answer's encoding is not undone by the
// HTTP client, but here, and only as far as Grafana can.
func (d *DataSource) call(ctx context.Context, method, path string, params url.Values, browser bool) (status int, header http.Header, body []byte, err error) {
	inURL := url.Values{}
	maps.Copy(inURL, d.Custom)
	if d.Stats && (path == "/api/v1/query" || path == "/api/v1/query_range") {
		inURL.Set("stats", "all")
	}
	var form io.Reader
	if method == http.MethodPost && params != nil {
		form = strings.NewReader(params.Encode())
	} else {
		for k, v := range params {
			inURL[k] = append(inURL[k], v...)
		}
	}
	target := strings.TrimSuffix(d.URL, "/") + path
	if len(inURL) > 0 {
		target += "?" + inURL.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, form)
	if err != nil {
		return 0, nil, nil, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("X-Datasource-Uid", "ds1")
	req.Header.Set("X-Grafana-Org-Id", "1")
	if browser {
		req.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd")
	}
	resp, err := d.client().Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err = io.ReadAll(resp.Body); err == nil && browser {
		body, err = decode(body, resp.Header.Get("Content-Encoding"))
	}
	return resp.StatusCode, resp.Header, body, err
}

func (d *DataSource) client() *http.Client {
	if d.Client == nil {
		return http.DefaultClient
	}
	return d.Client
}

// decode undoes an encoding that Grafana knows. Its deflate is the raw one, so
// the zlib stream of Prometheus fails.
func decode(body []byte, encoding string) ([]byte, error) {
	switch encoding {
	case "":
		return body, nil
	case "gzip":
		r, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	case "deflate":
		return io.ReadAll(flate.NewReader(bytes.NewReader(body)))
	}
	return nil, fmt.Errorf("unsupported content encoding %q", encoding)
}

// align moves a time down to the step grid that begins at the epoch.
func align(t time.Time, step time.Duration) time.Time {
	n := t.UnixNano()
	return time.Unix(0, n-n%int64(step)).UTC()
}

func unix(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// seconds prints as Grafana does: the shortest digits, never an exponent.
func seconds(s float64) string { return strconv.FormatFloat(s, 'f', -1, 64) }
