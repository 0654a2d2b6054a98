package transport

import (
	"context"
	"net/url"
	"slices"
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
	return lookUpReadable(ctx, c, l, func(l Lookup) (names, warnings []string, err error) {
		resp, err := c.getOrForm(ctx, "/api/v1/labels", c.lookupForm(l))
		if err != nil {
			return nil, nil, err
		}
		warnings, err = c.text(resp, l.Charge, &names)
		if err == nil && c.dialect.NamesNone && slices.Equal(names, []string{labels.MetricName}) {
			l.Limit = 1
			if metrics, more, err := c.LabelValues(ctx, labels.MetricName, l); err != nil || len(metrics) == 0 {
				return nil, more, err
			}
		}
		return names, warnings, err
	}, namesIn)
}

// LabelValues returns /api/v1/label/<name>/values and its warnings.
func (c *Client) LabelValues(ctx context.Context, name string, l Lookup) ([]string, []string, error) {
	if c.dialect.ReadOnly {
		return c.valuesByRead(ctx, name, l)
	}
	of := func(series []labels.Labels) []string { return valuesIn(series, name) }
	values, warnings, err := lookUpReadable(ctx, c, l, func(l Lookup) (values, warnings []string, err error) {
		resp, err := c.get(ctx, "/api/v1/label/"+c.labelPath(name)+"/values", c.lookupForm(l))
		if err != nil {
			return nil, nil, err
		}
		warnings, err = c.text(resp, l.Charge, &values)
		return values, warnings, err
	}, of)
	if !c.dialect.mayBeUnreadable(name) || len(values) > 0 || err != nil && !Refused(err) {
		return values, warnings, err
	}
	// The backend may have taken the escaped name for another one.
	l.Limit = 0
	names, warnings, err := c.LabelNames(ctx, l)
	if err != nil || !slices.Contains(names, name) {
		return nil, warnings, err
	}
	l.Matchers = append(slices.Clip(l.Matchers), labels.MustNewMatcher(labels.MatchNotEqual, name, ""))
	series, warnings, err := c.Series(ctx, l)
	return of(series), warnings, err
}

// Series returns /api/v1/series and its warnings.
func (c *Client) Series(ctx context.Context, l Lookup) ([]labels.Labels, []string, error) {
	if c.dialect.ReadOnly {
		series, err := c.seriesByRead(ctx, l)
		return series, nil, err
	}
	return lookUpReadable(ctx, c, l, func(l Lookup) (series []labels.Labels, warnings []string, err error) {
		warnings, err = c.formText(ctx, "/api/v1/series", c.lookupForm(l), l.Charge, &series)
		return series, warnings, err
	}, func(series []labels.Labels) []labels.Labels { return series })
}

// Exemplars decodes the data of /api/v1/query_exemplars into data and returns its warnings. It
// leaves data alone if the backend has no such endpoint.
func (c *Client) Exemplars(ctx context.Context, l Lookup, data any) ([]string, error) {
	if c.dialect.ReadOnly {
		return nil, nil
	}
	warnings, err := c.exemplars(ctx, l, data)
	if !c.cannotRead(l.Matchers, err) {
		return warnings, err
	}
	left, readErr := c.asReadable(ctx, l, err)
	switch {
	case readErr != nil || left.empty:
		return nil, readErr
	case len(left.check) > 0:
		return nil, err
	}
	l.Matchers = left.send
	return c.exemplars(ctx, l, data)
}

func (c *Client) exemplars(ctx context.Context, l Lookup, data any) ([]string, error) {
	form := url.Values{"query": {c.selector(l.Matchers)}}
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

// labelPath writes a label name in a path. Upstream escapes names that are not legacy names
// (https://prometheus.io/docs/prometheus/latest/querying/api/#querying-label-values).
func (c *Client) labelPath(name string) string {
	if c.dialect.EscapedNames || model.LegacyValidation.IsValidLabelName(name) {
		return name
	}
	return model.EscapeName(name, model.ValueEncodingEscaping)
}

// UpSeries returns the labels of one series `up` that exists at t (ms), none if there is none.
func (c *Client) UpSeries(ctx context.Context, t int64) ([]labels.Labels, error) {
	return c.LabelsOf(ctx, "topk(1, up)", t)
}

// LabelsOf returns the labels of the result of a query at t (ms).
func (c *Client) LabelsOf(ctx context.Context, query string, t int64) ([]labels.Labels, error) {
	form := url.Values{"query": {query}, "time": {formatTime(t)}}
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
