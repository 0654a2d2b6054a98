package transport

import (
	"context"
	"net/url"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// Lookup selects series for the endpoints that tell of series and not of
// samples.
type Lookup struct {
	Matchers   []*labels.Matcher
	MinT, MaxT int64
	// Limit is the most results wanted, 0 for all. Older backends ignore it.
	Limit  int
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

// window sets start and end. Bounds so far off that they mean none are left out:
// not every backend can parse them.
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

// Exemplars decodes /api/v1/query_exemplars into data, if the backend has that.
func (c *Client) Exemplars(ctx context.Context, query string, l Lookup, data any) ([]string, error) {
	if c.dialect.ReadOnly {
		return nil, nil
	}
	form := url.Values{"query": {query}}
	c.window(l, form)
	warnings, err := c.formText(ctx, "/api/v1/query_exemplars", form, l.Charge, data)
	if without(err) {
		err = nil
	}
	return warnings, err
}

// Metadata decodes /api/v1/metadata into data, if the backend has that. metric is "" for
// all.
func (c *Client) Metadata(ctx context.Context, metric string, charge func(int) error, data any) ([]string, error) {
	params := url.Values{}
	if metric != "" {
		params.Set("metric", metric)
	}
	_, warnings, err := c.Tell(ctx, "/api/v1/metadata", params, charge, data)
	return warnings, err
}

// Status decodes /api/v1/status/<what> into data.
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

// escapeLabel makes a label name fit for a path: as upstream escapes names that
// are not of the old character set.
func escapeLabel(name string) string {
	if model.LegacyValidation.IsValidLabelName(name) {
		return name
	}
	return model.EscapeName(name, model.ValueEncodingEscaping)
}

// Sample returns the labels of one series that exists at t (ms), or nothing if
// the backend has no series `up`.
func (c *Client) Sample(ctx context.Context, t int64) ([]labels.Labels, error) {
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
