package transport

import (
	"context"
	"maps"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// seriesByRead finds series by reading their samples, for backends that have remote read and
// nothing else of the API (Dialect.ReadOnly).
func (c *Client) seriesByRead(ctx context.Context, l Lookup) ([]labels.Labels, error) {
	const far = math.MaxInt64 / 1_000_000 // ms that are still ns, as InfluxDB counts
	var builder labels.ScratchBuilder
	r := Request{
		Matchers: l.Matchers, MinT: max(l.MinT, -far), MaxT: min(l.MaxT, far), Charge: l.Charge,
		Labels: func(raw []labels.Label) (labels.Labels, string) {
			builder.Reset()
			for _, l := range raw {
				builder.Add(l.Name, l.Value)
			}
			builder.Sort()
			return builder.Labels(), ""
		},
	}
	if len(r.Matchers) == 0 { // InfluxDB demands one
		r.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, labels.MetricName, "")}
	}
	list, err := c.Fetch(ctx, SamplesRead, r)
	series := make([]labels.Labels, len(list))
	for i, s := range list {
		series[i] = s.Labels
	}
	return series, err
}

func (c *Client) namesByRead(ctx context.Context, l Lookup) ([]string, []string, error) {
	series, err := c.seriesByRead(ctx, l)
	return namesIn(series), nil, err
}

func (c *Client) valuesByRead(ctx context.Context, name string, l Lookup) ([]string, []string, error) {
	series, err := c.seriesByRead(ctx, l)
	return valuesIn(series, name), nil, err
}

// namesIn returns the sorted label names of series.
func namesIn(series []labels.Labels) []string {
	seen := map[string]struct{}{}
	for _, s := range series {
		s.Range(func(l labels.Label) { seen[l.Name] = struct{}{} })
	}
	return slices.Sorted(maps.Keys(seen))
}

// valuesIn returns the sorted values that a label has in series.
func valuesIn(series []labels.Labels, name string) []string {
	seen := map[string]struct{}{}
	for _, s := range series {
		if v := s.Get(name); v != "" {
			seen[v] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
