package transport

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/transport/promjson"
)

// maxPoints is the most steps of a range query that Prometheus accepts.
const maxPoints = 11000

// query fetches by the query API, which does not return stale markers. If the selector is
// evaluated at steps, the steps show where series end: if a series is absent at a step in
// whose lookback it has a sample, a stale marker followed that sample.
func (c *Client) query(ctx context.Context, r Request) ([]Series, error) {
	// Two requests may be made at once.
	var mtx sync.Mutex
	labelsOf := r.Labels
	r.Labels = func(raw []labels.Label) (labels.Labels, string) {
		mtx.Lock()
		defer mtx.Unlock()
		return labelsOf(raw)
	}
	var list []Series
	var err error
	switch {
	case r.Steps == nil:
		return c.queryRaw(ctx, r)
	case r.Steps.End < r.Steps.Start:
		return nil, nil // a subquery shorter than its step may have no steps
	case r.SoleReplica && nameOf(r.Matchers) != "":
		list, err = c.querySteps(ctx, r)
	default:
		list, err = c.queryBoth(ctx, r)
	}
	for i := range list {
		list[i].Run = list[i].Run.(*dedup.Samples).Between(r.MinT, r.MaxT)
	}
	return slices.DeleteFunc(list, func(s Series) bool { return s.Run.(*dedup.Samples).Len() == 0 }), err
}

// nameOf returns the metric name that the matchers select, "" if they may select several.
func nameOf(ms []*labels.Matcher) string {
	for _, m := range ms {
		if m.Name == labels.MetricName && m.Type == labels.MatchEqual {
			return m.Value
		}
	}
	return ""
}

// queryRaw fetches `selector[window]`: every sample except stale markers.
func (c *Client) queryRaw(ctx context.Context, r Request) ([]Series, error) {
	return inHalves(ctx, r, c.queryRawOnce)
}

func (c *Client) queryRawOnce(ctx context.Context, r Request) ([]Series, error) {
	form := url.Values{
		"query": {fmt.Sprintf("%s[%dms]", c.selector(r.Matchers), r.MaxT-r.MinT+1)},
		"time":  {formatTime(r.MaxT)},
	}
	return c.ask(ctx, "/api/v1/query", form, r)
}

// queryBoth fetches every sample, and the steps, which show the stale markers.
func (c *Client) queryBoth(ctx context.Context, r Request) ([]Series, error) {
	var raw, steps []Series
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		defer guard.Recover(&err)
		raw, err = c.queryRaw(gctx, r)
		return err
	})
	g.Go(func() (err error) {
		defer guard.Recover(&err)
		steps, err = c.queryRange(gctx, c.selectorExpr(r), r)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	present := index(steps)
	for i := range raw {
		s := raw[i].Run.(*dedup.Samples)
		var at []int64
		if p, ok := present[keyOf(raw[i])]; ok {
			at = p.Run.(*dedup.Samples).T
		}
		raw[i].Run = markEnds(s, at, *r.Steps, r.MaxT)
	}
	return raw, nil
}

// querySteps fetches the value of an instant selector at each step, and the timestamp of the
// sample that it is of.
func (c *Client) querySteps(ctx context.Context, r Request) ([]Series, error) {
	var values, times []Series
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		defer guard.Recover(&err)
		values, err = c.queryRange(gctx, c.selectorExpr(r), r)
		return err
	})
	g.Go(func() (err error) {
		defer guard.Recover(&err)
		named := r
		named.Labels = withName(nameOf(r.Matchers), r.Labels)
		times, err = c.queryRange(gctx, func(offset int64) string { return "timestamp(" + c.selectorExpr(r)(offset) + ")" }, named)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	stamps := index(times)
	for i := range values {
		var ts *dedup.Samples
		if s, ok := stamps[keyOf(values[i])]; ok {
			ts = s.Run.(*dedup.Samples)
		}
		vs := values[i].Run.(*dedup.Samples)
		if ts == nil || len(ts.T) < len(vs.T) {
			// Some backends drop more labels than the name, and the second response may
			// have a later sample: then every sample is fetched.
			return c.queryBoth(ctx, r)
		}
		values[i].Run = samplesOfSteps(vs, ts, *r.Steps)
	}
	return values, nil
}

// withName puts back the metric name that timestamp() drops.
func withName(name string, f func([]labels.Label) (labels.Labels, string)) func([]labels.Label) (labels.Labels, string) {
	return func(raw []labels.Label) (labels.Labels, string) {
		return f(append([]labels.Label{{Name: labels.MetricName, Value: name}}, raw...))
	}
}

// seriesKey identifies a Series.
type seriesKey struct {
	labels  string
	replica string
}

func keyOf(s Series) seriesKey {
	return seriesKey{labels: string(s.Labels.Bytes(nil)), replica: s.Replica}
}

func index(list []Series) map[seriesKey]Series {
	m := make(map[seriesKey]Series, len(list))
	for _, s := range list {
		m[keyOf(s)] = s
	}
	return m
}

// samplesOfSteps turns the values and timestamps that a series has at the steps into its
// samples: one for each distinct timestamp, and a stale marker where a step has no value
// although the last sample is in its lookback.
func samplesOfSteps(values, times *dedup.Samples, steps Steps) *dedup.Samples {
	out := &dedup.Samples{}
	last := int64(0)
	next := 0
	for i, at := range values.T {
		if out.Len() > 0 && at > values.T[i-1]+steps.Step && values.T[i-1]+steps.Step-last < steps.Lookback {
			out.Append(0, max(last+1, values.T[i-1]+steps.Step), dedup.StaleNaN)
		}
		for next < len(times.T)-1 && times.T[next] < at {
			next++
		}
		t := int64(math.Round(times.F[next] * 1000))
		if n := out.Len(); n > 0 && t <= out.T[n-1] {
			continue
		}
		one := *values
		out.AppendFrom(&one, i)
		out.T[out.Len()-1] = t
		last = t
	}
	if n := len(values.T); n > 0 {
		if end := values.T[n-1] + steps.Step; end <= steps.End && end-last < steps.Lookback {
			out.Append(0, max(last+1, end), dedup.StaleNaN)
		}
	}
	return out
}

// markEnds adds the stale markers that are proven by the steps at which the series is present.
// Their exact times are unknown: a marker is put where a scrape would have missed the series,
// a multiple of the interval after the last sample, but between the steps that prove it and
// not after maxt (ms), the end of the window.
func markEnds(s *dedup.Samples, present []int64, steps Steps, maxt int64) *dedup.Samples {
	type mark struct {
		after int // index of the last sample before the marker
		t     int64
	}
	var marks []mark
	interval := dedup.Interval(s.T)
	p, i := 0, 0
	for at := steps.Start; at <= steps.End; at += steps.Step {
		for p < len(present) && present[p] < at {
			p++
		}
		for i < len(s.T) && s.T[i] <= at {
			i++
		}
		if i == 0 || at-s.T[i-1] >= steps.Lookback || p < len(present) && present[p] == at {
			continue
		}
		if n := len(marks); n > 0 && marks[n-1].after == i-1 {
			continue
		}
		lo := s.T[i-1] + 1
		if p > 0 {
			lo = max(lo, present[p-1]+1)
		}
		scrapes := max(1, (lo-s.T[i-1]+interval-1)/interval)
		marks = append(marks, mark{after: i - 1, t: max(lo, min(at, maxt, s.T[i-1]+scrapes*interval))})
	}
	if len(marks) == 0 {
		return s
	}
	out := &dedup.Samples{}
	for i := range s.T {
		out.AppendFrom(s, i)
		if len(marks) > 0 && marks[0].after == i {
			if i+1 == len(s.T) || marks[0].t < s.T[i+1] {
				out.Append(0, marks[0].t, dedup.StaleNaN)
			}
			marks = marks[1:]
		}
	}
	return out
}

// Evaluate returns the value of an expression at the steps, a series for each label set, in
// several requests if the backend refuses one as too large. Of r it uses Labels, Charge, Warn
// and Inform. The backend must not be Fronted, unless the steps are multiples of their distance.
func (c *Client) Evaluate(ctx context.Context, text string, st Steps, r Request) ([]Series, error) {
	r.Steps = &st
	return c.queryRange(ctx, func(int64) string { return text }, r)
}

// CountSeries returns one series, whose values are how many series a selector finds at the steps; it
// has none where that is 0. The steps must be multiples of their distance, so that a front end does
// not move them. charge is called with the bytes of the answer.
func (c *Client) CountSeries(ctx context.Context, ms []*labels.Matcher, st Steps, charge func(bytes int) error) ([]Series, error) {
	none := func([]labels.Label) (labels.Labels, string) { return labels.EmptyLabels(), "" }
	return c.Evaluate(ctx, "count("+c.selector(ms)+")", st, Request{Labels: none, Charge: charge})
}

// CountOwnStamps returns one series, whose values are how many series of a selector have last samples at
// other times than their targets have scrapes; it has none where that is 0. The backend fails if it
// cannot tell the targets apart. Steps and charge are as for CountSeries.
func (c *Client) CountOwnStamps(ctx context.Context, ms []*labels.Matcher, st Steps, charge func(bytes int) error) ([]Series, error) {
	none := func([]labels.Label) (labels.Labels, string) { return labels.EmptyLabels(), "" }
	return c.Evaluate(ctx, "count(timestamp("+c.selector(ms)+") != on (instance, job) group_left () timestamp(up))", st, Request{Labels: none, Charge: charge})
}

// queryRange evaluates an expression at the steps of r, in as many requests as the backend's
// limits demand. expr prints it with an offset (ms).
func (c *Client) queryRange(ctx context.Context, expr func(offset int64) string, r Request) ([]Series, error) {
	st := *r.Steps
	err := error(nil)
	if st.Count() <= maxPoints {
		var list []Series
		if list, err = c.queryRangeOnce(ctx, expr, r); !tooMuch(err) || st.Count() == 1 {
			return list, err
		}
	}
	early, late := st, st
	early.End = st.Start + (st.Count()-1)/2*st.Step
	late.Start = early.End + st.Step
	first, second := r, r
	first.Steps, second.Steps = &early, &late
	return join(ctx, first, second, func(ctx context.Context, r Request) ([]Series, error) {
		return c.queryRange(ctx, expr, r)
	})
}

// selectorExpr returns a function that prints the selector of r with an offset (ms).
func (c *Client) selectorExpr(r Request) func(offset int64) string {
	return func(offset int64) string {
		if offset == 0 {
			return c.selector(r.Matchers)
		}
		return fmt.Sprintf("%s offset %dms", c.selector(r.Matchers), offset)
	}
}

// queryRangeOnce makes one request. Front ends align start and end to multiples of the step, and
// some cut them to seconds: if there may be one, the request is aligned already, and an offset
// of the selector makes up for it.
func (c *Client) queryRangeOnce(ctx context.Context, expr func(offset int64) string, r Request) ([]Series, error) {
	st, offset := *r.Steps, int64(0)
	if c.dialect.Fronted {
		if st.Count() == 1 {
			st.Step = time.Second.Milliseconds()
		}
		offset = (st.Step - st.Start%st.Step) % st.Step
		st.Start += offset
		st.End = st.Start + (r.Steps.Count()-1)*st.Step
	}
	form := url.Values{
		"query": {expr(offset)},
		"start": {formatTime(st.Start)},
		"end":   {formatTime(st.End)},
		"step":  {formatDuration(st.Step)},

		cmp.Or(c.dialect.LookbackParam, "lookback_delta"): {formatDuration(st.Lookback)},
	}
	r.MinT, r.MaxT = math.MinInt64, math.MaxInt64
	list, err := c.ask(ctx, "/api/v1/query_range", form, r)
	for _, s := range list {
		ts := s.Run.(*dedup.Samples).T
		for i, t := range ts {
			if t < st.Start || t > st.End || (t-st.Start)%st.Step != 0 {
				return nil, c.contentError(fmt.Errorf("a value at %s, which is none of the steps that were asked for", formatTime(t)))
			}
			ts[i] = t - offset
		}
	}
	return list, err
}

// ask sends a query and returns its series with the samples in the window of r.
func (c *Client) ask(ctx context.Context, path string, form url.Values, r Request) ([]Series, error) {
	timeoutParam(ctx, form)
	resp, err := c.form(ctx, path, form)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	res, err := promjson.Decode(watchedBody{resp.Body}, promjson.Options{Charge: r.Charge})
	if err != nil {
		return nil, c.decodeError(ctx, err)
	}
	if res.Status != "success" {
		return nil, c.contentError(fmt.Errorf("status %q in a 200 answer: %s", clip(res.Status), clip(res.Error)))
	}
	if res.ResultType != "matrix" {
		return nil, c.contentError(fmt.Errorf("data of result type %q instead of matrix", clip(res.ResultType)))
	}
	if r.Warn != nil {
		for _, w := range clipped(res.Warnings) {
			r.Warn(w)
		}
		if res.IsPartial {
			r.Warn(partialText)
		}
	}
	if r.Inform != nil {
		for _, text := range clipped(res.Infos) {
			r.Inform(text)
		}
	}
	out := make([]Series, 0, len(res.Series))
	var raw []labels.Label
	for i := range res.Series {
		s := &res.Series[i]
		run := s.Samples.Between(r.MinT, r.MaxT)
		if run.Len() == 0 {
			continue
		}
		raw = raw[:0]
		s.Labels.Range(func(l labels.Label) { raw = append(raw, l) })
		l, replica := r.Labels(raw)
		out = append(out, Series{Labels: l, Replica: replica, Run: run})
	}
	return out, nil
}
