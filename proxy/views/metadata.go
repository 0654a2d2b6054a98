package views

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/promqlx/bounds"
	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup/survey"
)

// Groups are the server groups as one request sees them.
type Groups interface {
	// Exemplars finds exemplars between mint and maxt, in ms, inclusive.
	Exemplars(ctx context.Context, mint, maxt int64, selectors [][]*labels.Matcher) ([]exemplar.QueryResult, annotations.Annotations, error)
	// Metadata finds what is known of a metric, or of all if metric is empty.
	Metadata(ctx context.Context, metric string) (map[string][]survey.Metadata, annotations.Annotations, error)
}

var _ Groups = survey.Servers{}

// Lookups answer what upstream would answer from its own scraping.
type Lookups struct {
	Parser parser.Parser
	Groups func(context.Context) Groups
}

// Exemplars is /query_exemplars.
func (l Lookups) Exemplars(r *http.Request) (api.Result, error) {
	start, err := api.TimeParam(r, "start", v1.MinTime)
	if err != nil {
		return api.Result{}, err
	}
	end, err := api.TimeParam(r, "end", v1.MaxTime)
	if err != nil {
		return api.Result{}, err
	}
	if end.Before(start) {
		return api.Result{}, api.BadData(errors.New("end timestamp must not be before start timestamp"))
	}
	query := r.FormValue("query")
	if err := bounds.Check(query); err != nil {
		return api.Result{}, err
	}
	expr, err := l.Parser.ParseExpr(query)
	if err != nil {
		return api.Result{}, api.BadData(err)
	}
	selectors := parser.ExtractSelectors(expr)
	if len(selectors) == 0 {
		return api.Result{}, nil
	}
	found, warnings, err := l.Groups(r.Context()).Exemplars(r.Context(), timestamp.FromTime(start), timestamp.FromTime(end), selectors)
	if err != nil {
		return api.Result{}, err
	}
	if found == nil {
		found = []exemplar.QueryResult{}
	}
	return api.Result{Data: found, Warnings: warnings, Query: query}, nil
}

// Metadata is /metadata. Of more metrics than limit, the first in the order of
// their names are shown, so that asking twice gives the same.
func (l Lookups) Metadata(r *http.Request) (api.Result, error) {
	limit, err := api.NumberParam(r, "limit")
	if err != nil {
		return api.Result{}, err
	}
	perMetric, err := api.NumberParam(r, "limit_per_metric")
	if err != nil {
		return api.Result{}, err
	}
	all, warnings, err := l.Groups(r.Context()).Metadata(r.Context(), r.FormValue("metric"))
	if err != nil {
		return api.Result{}, err
	}
	shown := map[string][]survey.Metadata{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if limit >= 0 && len(shown) >= limit {
			break
		}
		list := all[name]
		if perMetric > 0 && len(list) > perMetric {
			list = list[:perMetric]
		}
		// Grafana breaks on an empty list.
		if len(list) > 0 {
			shown[name] = list
		}
	}
	return api.Result{Data: shown, Warnings: warnings}, nil
}
