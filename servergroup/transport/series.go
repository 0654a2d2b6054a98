package transport

import (
	"context"
	"net/url"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// Lookup selects series for the endpoints that return labels, series, exemplars or metadata
// (https://prometheus.io/docs/prometheus/latest/querying/api/#querying-metadata).
type Lookup struct {
	Matchers []*labels.Matcher
	// MinT and MaxT are the window (ms, inclusive).
	MinT, MaxT int64
	// Limit is the most results wanted, 0 for all. Older backends ignore it.
	Limit int
	// Charge is called with the number of bytes read; its error ends the lookup.
	Charge func(bytes int) error
}

func (c *Client) lookupForm(l Lookup) url.Values {
	form := url.Values{}
	c.window(l, form)
	if len(l.Matchers) > 0 {
		form.Set("match[]", c.selector(l.Matchers))
	}
	if l.Limit > 0 {
		form.Set("limit", strconv.Itoa(l.Limit))
	}
	return form
}

// window sets start and end. It omits bounds that are so far away that they mean none: not
// every backend can parse those.
func (c *Client) window(l Lookup, form url.Values) {
	const far = 1 << 53
	switch {
	case l.MinT > -far:
		form.Set("start", formatTime(l.MinT))
	case c.dialect.NeedsStart:
		form.Set("start", "0")
	}
	if l.MaxT < far {
		form.Set("end", formatTime(l.MaxT))
	}
}

// LabelNames returns /api/v1/labels and its warnings.
func (c *Client) LabelNames(ctx context.Context, l Lookup) ([]string, []string, error) {
	if c.dialect.ReadOnly {
		return c.namesByRead(ctx, l)
	}
	var names []string
	warnings, err := c.formText(ctx, "/api/v1/labels", c.lookupForm(l), l.Charge, &names)
	return names, warnings, err
}

// LabelValues returns /api/v1/label/<name>/values and its warnings.
func (c *Client) LabelValues(ctx context.Context, name string, l Lookup) ([]string, []string, error) {
	if c.dialect.ReadOnly {
		return c.valuesByRead(ctx, name, l)
	}
	var values []string
	resp, err := c.get(ctx, "/api/v1/label/"+escapeLabel(name)+"/values", c.lookupForm(l))
	if err != nil {
		return nil, nil, err
	}
	warnings, err := c.text(resp, l.Charge, &values)
	return values, warnings, err
}

// Series returns /api/v1/series and its warnings.
func (c *Client) Series(ctx context.Context, l Lookup) ([]labels.Labels, []string, error) {
	if c.dialect.ReadOnly {
		series, err := c.seriesByRead(ctx, l)
		return series, nil, err
	}
	var series []labels.Labels
	warnings, err := c.formText(ctx, "/api/v1/series", c.lookupForm(l), l.Charge, &series)
	return series, warnings, err
}

// Exemplars decodes the data of /api/v1/query_exemplars into data and returns its warnings. It
// leaves data alone if the backend has no such endpoint.
func (c *Client) Exemplars(ctx context.Context, query string, l Lookup, data any) ([]string, error) {
	if c.dialect.ReadOnly {
		return nil, nil
	}
	form := url.Values{"query": {query}}
	c.window(l, form)
	warnings, err := c.formText(ctx, "/api/v1/query_exemplars", form, l.Charge, data)
	if unsupported(err) {
		err = nil
	}
	return warnings, err
}

// Metadata decodes the data of /api/v1/metadata into data and returns its warnings. It leaves
// data alone if the backend has no such endpoint. metric is "" for all.
func (c *Client) Metadata(ctx context.Context, metric string, charge func(int) error, data any) ([]string, error) {
	params := url.Values{}
	if metric != "" {
		params.Set("metric", metric)
	}
	_, warnings, err := c.GetOptional(ctx, "/api/v1/metadata", params, charge, data)
	return warnings, err
}

// Status decodes the data of /api/v1/status/<what> into data.
func (c *Client) Status(ctx context.Context, what string, data any) error {
	resp, err := c.get(ctx, "/api/v1/status/"+what, nil)
	if err != nil {
		return err
	}
	_, err = c.text(resp, nil, data)
	return err
}

func (c *Client) formText(ctx context.Context, path string, form url.Values, charge func(int) error, data any) ([]string, error) {
	resp, err := c.form(ctx, path, form)
	if err != nil {
		return nil, err
	}
	return c.text(resp, charge, data)
}

// escapeLabel escapes a label name for a path, as upstream does with names that are not of the
// legacy character set (https://prometheus.io/docs/prometheus/latest/querying/api/#querying-label-values).
func escapeLabel(name string) string {
	if model.LegacyValidation.IsValidLabelName(name) {
		return name
	}
	return model.EscapeName(name, model.ValueEncodingEscaping)
}

// UpSeries returns the labels of one series `up` that exists at t (ms), none if there is none.
func (c *Client) UpSeries(ctx context.Context, t int64) ([]labels.Labels, error) {
	form := url.Values{"query": {"topk(1, up)"}, "time": {formatTime(t)}}
	resp, err := c.form(ctx, "/api/v1/query", form)
	if err != nil {
		return nil, err
	}
	var data struct {
		Result []struct {
			Metric labels.Labels `json:"metric"`
		} `json:"result"`
	}
	if _, err := c.text(resp, nil, &data); err != nil {
		return nil, err
	}
	var out []labels.Labels
	for _, r := range data.Result {
		out = append(out, r.Metric)
	}
	return out, nil
}
