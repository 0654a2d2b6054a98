package survey

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/lookup"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// exemplarSeries is an element of a response of /api/v1/query_exemplars.
type exemplarSeries struct {
	SeriesLabels labels.Labels `json:"seriesLabels"`
	Exemplars    []struct {
		Labels    labels.Labels `json:"labels"`
		Value     quotedFloat   `json:"value"`
		Timestamp float64       `json:"timestamp"` // s
	} `json:"exemplars"`
}

// quotedFloat is a float as the API writes it: in quotes.
type quotedFloat float64

func (f *quotedFloat) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	if err != nil {
		return fmt.Errorf("value %s is not a number", b)
	}
	*f = quotedFloat(v)
	return nil
}

var _ json.Unmarshaler = (*quotedFloat)(nil)

// Exemplars returns the exemplars of all series that match one of the selectors,
// by series, in time order. An exemplar that several replicas hold is the one
// with the same labels and value; the earliest is kept.
func (s Servers) Exemplars(ctx context.Context, mint, maxt int64, selectors [][]*labels.Matcher) ([]exemplar.QueryResult, annotations.Annotations, error) {
	bySeries := map[string]*exemplar.QueryResult{}
	var ws annotations.Annotations
	for _, ms := range selectors {
		l := lookup.Lookup{Matchers: ms, MinT: mint, MaxT: maxt}
		list, w, err := lookup.Gather(ctx, s.view, l, compareExemplars, exemplarsOf)
		ws.Merge(w)
		if err != nil {
			return nil, ws, err
		}
		for _, one := range list {
			key := one.SeriesLabels.String()
			if bySeries[key] == nil {
				bySeries[key] = &exemplar.QueryResult{SeriesLabels: one.SeriesLabels}
			}
			bySeries[key].Exemplars = append(bySeries[key].Exemplars, one.Exemplars...)
		}
	}
	out := make([]exemplar.QueryResult, 0, len(bySeries))
	for _, r := range bySeries {
		r.Exemplars = uniqueExemplars(r.Exemplars)
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b exemplar.QueryResult) int { return labels.Compare(a.SeriesLabels, b.SeriesLabels) })
	return out, ws, nil
}

// compareExemplars orders results of one exemplar each.
func compareExemplars(a, b exemplar.QueryResult) int {
	return cmp.Or(
		labels.Compare(a.SeriesLabels, b.SeriesLabels),
		cmp.Compare(a.Exemplars[0].Ts, b.Exemplars[0].Ts),
		cmp.Compare(a.Exemplars[0].Value, b.Exemplars[0].Value),
		labels.Compare(a.Exemplars[0].Labels, b.Exemplars[0].Labels),
	)
}

// exemplarsOf asks one replica and returns one result for each exemplar.
func exemplarsOf(ctx context.Context, a *lookup.Asked, tl transport.Lookup) ([]exemplar.QueryResult, []string, error) {
	var data []exemplarSeries
	tl.Matchers = labelmap.Selectable(tl.Matchers)
	warnings, err := a.Client.Exemplars(ctx, tl, &data)
	if err != nil {
		return nil, nil, err
	}
	if doubt := replica.ClockDoubt(a.Client); doubt != "" {
		warnings = append(warnings, fmt.Sprintf("server group %q: %s: %s", a.Config.Name, a.Client.URL(), doubt))
	}
	raw := make([]labels.Labels, len(data))
	for i, s := range data {
		raw[i] = s.SeriesLabels
	}
	var out []exemplar.QueryResult
	warnings = append(warnings, a.Shown(raw, func(i int, shown labels.Labels, _ string) {
		for _, e := range data[i].Exemplars {
			out = append(out, exemplar.QueryResult{SeriesLabels: shown, Exemplars: []exemplar.Exemplar{{
				Labels: e.Labels, Value: float64(e.Value), Ts: int64(math.Round(e.Timestamp * 1000)), HasTs: true,
			}}})
		}
	})...)
	return out, warnings, nil
}

func uniqueExemplars(list []exemplar.Exemplar) []exemplar.Exemplar {
	slices.SortStableFunc(list, func(a, b exemplar.Exemplar) int { return cmp.Compare(a.Ts, b.Ts) })
	seen := map[string]bool{}
	return slices.DeleteFunc(list, func(e exemplar.Exemplar) bool {
		key := strconv.FormatFloat(e.Value, 'g', -1, 64) + e.Labels.String()
		duplicate := seen[key]
		seen[key] = true
		return duplicate
	})
}

// Metadata is the metadata that targets have of a metric.
type Metadata struct {
	Type string `json:"type"`
	Help string `json:"help"`
	Unit string `json:"unit"`
}

// Metadata returns the distinct entries of each metric in all groups; metric is "" for all metrics.
// There are none for restricted requests.
func (s Servers) Metadata(ctx context.Context, metric string) (map[string][]Metadata, annotations.Annotations, error) {
	type entry struct {
		metric string
		Metadata
	}
	compare := func(a, b entry) int {
		return cmp.Or(strings.Compare(a.metric, b.metric), strings.Compare(a.Type, b.Type), strings.Compare(a.Help, b.Help), strings.Compare(a.Unit, b.Unit))
	}
	if s.view.Request.Restricted {
		return map[string][]Metadata{}, nil, nil // metadata has no labels that would show whose it is
	}
	all := lookup.Lookup{MinT: math.MinInt64, MaxT: math.MaxInt64}
	list, ws, err := lookup.Gather(ctx, s.view, all, compare, func(ctx context.Context, a *lookup.Asked, tl transport.Lookup) ([]entry, []string, error) {
		var data map[string][]Metadata
		warnings, err := a.Client.Metadata(ctx, metric, tl.Charge, &data)
		var out []entry
		for name, entries := range data {
			for _, e := range entries {
				out = append(out, entry{name, e})
			}
		}
		return out, warnings, err
	})
	if err != nil {
		return nil, ws, err
	}
	out := map[string][]Metadata{}
	for _, e := range list {
		out[e.metric] = append(out[e.metric], e.Metadata)
	}
	return out, ws, nil
}
