package grafana

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// startLimit is how many names Grafana asks for when a page opens.
const startLimit = "40000"

// Resource passes a call of the browser through: path and parameters as given,
// with the data source's method unless the call is a GET. The browser tries
// again with GET when it hears 400 or 405. Any other status than 200, or a body
// that is not the envelope with data, is an error. The data is returned.
func (d *DataSource) Resource(ctx context.Context, method, path string, params url.Values) (json.RawMessage, error) {
	if method != http.MethodGet {
		method = d.method()
	}
	status, _, body, err := d.call(ctx, method, path, params, true)
	if err == nil && method != http.MethodGet && (status == http.StatusBadRequest || status == http.StatusMethodNotAllowed) {
		status, _, body, err = d.call(ctx, http.MethodGet, path, params, true)
	}
	return d.data(path, status, body, err)
}

// Suggestions are the values of a label for the ad-hoc filters. They are asked
// with the data source's method, its parameters in the URL, and no second try.
func (d *DataSource) Suggestions(ctx context.Context, label string, matches []string, limit int) ([]string, error) {
	query := url.Values{"match[]": matches, "limit": {strconv.Itoa(limit)}}
	path := "/api/v1/label/" + Escape(label) + "/values"
	asURL := *d
	asURL.Custom = url.Values{}
	for _, from := range []url.Values{d.Custom, query} {
		for k, v := range from {
			asURL.Custom[k] = append(asURL.Custom[k], v...)
		}
	}
	status, _, body, err := asURL.call(ctx, d.method(), path, nil, true)
	data, err := d.data(path, status, body, err)
	return names(data, err)
}

func (d *DataSource) data(path string, status int, body []byte, err error) (json.RawMessage, error) {
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d: %.200s", path, status, body)
	}
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if string(e.Status) != `"success"` || e.Data == nil {
		return nil, fmt.Errorf("%s: not a success: %.200s", path, body)
	}
	return e.Data, nil
}

// names reads a list of strings; null is not one, the browser would call map on it.
func names(data json.RawMessage, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	if list == nil {
		return nil, errors.New("a list is null")
	}
	return list, nil
}

// LabelNames asks for the names of the labels of the matching series.
func (d *DataSource) LabelNames(ctx context.Context, matches []string, from, to time.Time) ([]string, error) {
	return names(d.Resource(ctx, http.MethodPost, "/api/v1/labels", window(from, to, matches)))
}

// LabelValues asks, with GET, for the values of one label.
func (d *DataSource) LabelValues(ctx context.Context, label string, matches []string, from, to time.Time) ([]string, error) {
	return names(d.Resource(ctx, http.MethodGet, "/api/v1/label/"+Escape(label)+"/values", window(from, to, matches)))
}

// Series asks for the label sets of the matching series.
func (d *DataSource) Series(ctx context.Context, matches []string, from, to time.Time) ([]map[string]string, error) {
	data, err := d.Resource(ctx, http.MethodPost, "/api/v1/series", window(from, to, matches))
	if err != nil {
		return nil, err
	}
	var list []map[string]string
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	if list == nil {
		return nil, errors.New("a list is null")
	}
	return list, nil
}

// Metadata asks for the types of the metrics and returns them in upper case. The
// page takes the first entry of each list and its type, so an empty list or a
// null type is an error.
func (d *DataSource) Metadata(ctx context.Context) (map[string]string, error) {
	data, err := d.Resource(ctx, http.MethodGet, "/api/v1/metadata", url.Values{"limit": {startLimit}})
	if err != nil {
		return nil, err
	}
	var metrics map[string][]struct {
		Type *string `json:"type"`
	}
	if err := json.Unmarshal(data, &metrics); err != nil {
		return nil, err
	}
	types := map[string]string{}
	for name, list := range metrics {
		if len(list) == 0 || list[0].Type == nil {
			return nil, fmt.Errorf("metadata of %s: no entry with a type", name)
		}
		types[name] = strings.ToUpper(*list[0].Type)
	}
	return types, nil
}

// Started is what the page learns when it opens.
type Started struct {
	Exemplars bool // whether exemplars are offered
	Metrics   []string
	Labels    []string
	Types     map[string]string
}

// Start does what the query editor does when it opens. The probe for exemplars
// has its times in ms where seconds are expected, as Grafana sends it.
func (d *DataSource) Start(ctx context.Context, from, to time.Time) (Started, error) {
	if _, err := d.Resource(ctx, http.MethodGet, "/api/v1/rules", nil); err != nil {
		return Started{}, err
	}
	var s Started
	_, err := d.Resource(ctx, http.MethodGet, "/api/v1/query_exemplars", url.Values{
		"query": {"test"},
		"start": {strconv.FormatInt(from.UnixMilli(), 10)}, "end": {strconv.FormatInt(to.UnixMilli(), 10)},
	})
	s.Exemplars = err == nil
	if s.Metrics, err = d.LabelValues(ctx, "__name__", nil, from, to); err != nil {
		return s, err
	}
	if s.Labels, err = d.LabelNames(ctx, nil, from, to); err != nil {
		return s, err
	}
	s.Types, err = d.Metadata(ctx)
	return s, err
}

// window snaps the ends outwards to the minute, so that repeated calls are equal.
func window(from, to time.Time, matches []string) url.Values {
	v := url.Values{
		"limit": {startLimit},
		"start": {strconv.FormatInt(from.Truncate(time.Minute).Unix(), 10)},
		"end":   {strconv.FormatInt(to.Truncate(time.Minute).Add(time.Minute).Unix(), 10)},
	}
	if matches != nil {
		v["match[]"] = matches
	}
	return v
}

// Escape writes a label name for a URL path: U__ and _hex_ for what a classic
// name can not hold.
func Escape(name string) string {
	classic := func(i int, r rune) bool {
		return r == '_' || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') || (i > 0 && r >= '0' && r <= '9')
	}
	var b strings.Builder
	ok := true
	for i, r := range name {
		switch {
		case r == '_':
			b.WriteString("__")
		case classic(i, r):
			b.WriteRune(r)
		default:
			ok = false
			fmt.Fprintf(&b, "_%x_", r)
		}
	}
	if ok {
		return name
	}
	return "U__" + b.String()
}
