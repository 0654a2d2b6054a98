package proxy

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

	"github.com/oneprom/oneprom/servergroup/survey"
)

// groupView is the server groups as one request sees them.
type groupView interface {
	// Exemplars finds exemplars between mint and maxt, in ms, inclusive.
	Exemplars(ctx context.Context, mint, maxt int64, selectors [][]*labels.Matcher) ([]exemplar.QueryResult, annotations.Annotations, error)
	// Metadata finds what is known of a metric, or of all if metric is empty.
	Metadata(ctx context.Context, metric string) (map[string][]survey.Metadata, annotations.Annotations, error)
}

var _ groupView = survey.Servers{}

// lookups answers what upstream would answer from its own scraping.
type lookups struct {
	parser parser.Parser
	view   func(context.Context) groupView
}

// exemplars is /query_exemplars.
func (l lookups) exemplars(r *http.Request) (answer, error) {
	start, err := timeParam(r, "start", v1.MinTime)
	if err != nil {
		return answer{}, err
	}
	end, err := timeParam(r, "end", v1.MaxTime)
	if err != nil {
		return answer{}, err
	}
	if end.Before(start) {
		return answer{}, badData(errors.New("end timestamp must not be before start timestamp"))
	}
	query := r.FormValue("query")
	expr, err := l.parser.ParseExpr(query)
	if err != nil {
		return answer{}, badData(err)
	}
	selectors := parser.ExtractSelectors(expr)
	if len(selectors) == 0 {
		return answer{}, nil
	}
	found, warnings, err := l.view(r.Context()).Exemplars(r.Context(), timestamp.FromTime(start), timestamp.FromTime(end), selectors)
	if err != nil {
		return answer{}, err
	}
	if found == nil {
		found = []exemplar.QueryResult{}
	}
	return answer{data: found, warnings: warnings, query: query}, nil
}

// metadata is /metadata. Of more metrics than limit, the first in the order of
// their names are shown, so that asking twice gives the same.
func (l lookups) metadata(r *http.Request) (answer, error) {
	limit, err := numberParam(r, "limit")
	if err != nil {
		return answer{}, err
	}
	perMetric, err := numberParam(r, "limit_per_metric")
	if err != nil {
		return answer{}, err
	}
	all, warnings, err := l.view(r.Context()).Metadata(r.Context(), r.FormValue("metric"))
	if err != nil {
		return answer{}, err
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
	return answer{data: shown, warnings: warnings}, nil
}
