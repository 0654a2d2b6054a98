package proxy

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/views"
)

// mergedViews answers what a Prometheus tells of itself with what oneprom and the servers
// behind it tell, as if they were one. A group that does not answer is a warning. What is
// wrong with a request, upstream's own handler says: it is always asked first.
type mergedViews struct {
	own    ownAPI
	view   func(context.Context) *servergroup.View
	parser parser.Parser
}

// alerts is /alerts: merged as views.MergeAlerts says, oneprom's own with those of the
// servers.
func (m mergedViews) alerts(r *http.Request) (answer, error) {
	var own v1.AlertDiscovery
	if err := m.own.ask(r, "/alerts", r.URL.RawQuery, &own); err != nil {
		return answer{}, err
	}
	view := m.view(r.Context())
	theirs, ws, err := view.Alerts(r.Context())
	return answer{data: v1.AlertDiscovery{Alerts: views.MergeAlerts(view.ShownAlerts(own.Alerts), theirs)}, warnings: ws}, err
}

// targets is /targets: one for each scrape pool and set of labels over all replicas and
// groups, the healthiest and then the latest that a server tells of, sorted by these.
// droppedTargetCounts are the highest among the replicas of a group, summed over groups.
func (m mergedViews) targets(r *http.Request) (answer, error) {
	var own v1.TargetDiscovery
	if err := m.own.ask(r, "/targets", r.URL.RawQuery, &own); err != nil {
		return answer{}, err
	}
	params := r.URL.Query()
	theirs, ws, err := m.view(r.Context()).Targets(r.Context(), params.Get("state"), params.Get("scrapePool"))
	return answer{data: views.JoinTargets(own, theirs), warnings: ws}, err
}

// targetMetadata is /targets/metadata: the union of what all servers tell, sorted by target
// and metric, of which the first `limit` are shown. match_target means the labels as they
// are shown.
func (m mergedViews) targetMetadata(r *http.Request) (answer, error) {
	var own []views.TargetMetadata // empty: oneprom scrapes nothing
	if err := m.own.ask(r, "/targets/metadata", r.URL.RawQuery, &own); err != nil {
		return answer{}, err
	}
	limit, err := numberParam(r, "limit")
	if err != nil {
		return answer{}, err
	}
	var ms []*labels.Matcher
	if text := r.FormValue("match_target"); text != "" {
		if ms, err = m.parser.ParseMetricSelector(text); err != nil {
			return answer{}, badParameter("match_target", err)
		}
	}
	all, ws, err := m.view(r.Context()).TargetMetadata(r.Context(), ms, r.FormValue("metric"))
	if limit >= 0 {
		all = all[:min(limit, len(all))]
	}
	return answer{data: all, warnings: ws}, err
}

// scrapePools is /scrape_pools: the union of the names.
func (m mergedViews) scrapePools(r *http.Request) (answer, error) {
	var own v1.ScrapePoolsDiscovery
	if err := m.own.ask(r, "/scrape_pools", r.URL.RawQuery, &own); err != nil {
		return answer{}, err
	}
	theirs, ws, err := m.view(r.Context()).ScrapePools(r.Context())
	return answer{data: v1.ScrapePoolsDiscovery{ScrapePools: views.MergePools(own.ScrapePools, theirs)}, warnings: ws}, err
}

// ofScrapePool is /scrape_pools/config and /targets/relabel_steps: the answer of the first
// server, in the order of the configuration, that has a scrape pool of this name. If other
// groups have one that differs, a warning names them. If nobody has it, the error is
// upstream's, with the groups that were not asked.
func (m mergedViews) ofScrapePool(path string) apiHandler {
	return func(r *http.Request) (answer, error) {
		var own json.RawMessage
		notOwn := m.own.ask(r, path, r.URL.RawQuery, &own)
		params := url.Values{"scrapePool": {r.FormValue("scrapePool")}}
		if text := r.FormValue("labels"); text != "" {
			params.Set("labels", text)
		}
		known := notOwn == nil || strings.Contains(notOwn.Error(), "error retrieving scrape config")
		if !known { // something else is wrong with the request
			return answer{}, notOwn
		}
		if notOwn == nil {
			return answer{data: own}, nil
		}
		view := m.view(r.Context())
		theirs, ws, err := view.OfScrapePool(r.Context(), path, params)
		if err == nil && theirs == nil {
			e := *classify(notOwn)
			for _, gap := range view.Ledger.Gaps() {
				e.err = fmt.Errorf("%w; %s", e.err, gap.Reason)
			}
			err = &e
		}
		return answer{data: theirs, warnings: ws}, err
	}
}

// alertmanagers is /alertmanagers: the union by URL, those that are active and those that
// were dropped each.
func (m mergedViews) alertmanagers(r *http.Request) (answer, error) {
	var own v1.AlertmanagerDiscovery
	if err := m.own.ask(r, "/alertmanagers", r.URL.RawQuery, &own); err != nil {
		return answer{}, err
	}
	theirs, ws, err := m.view(r.Context()).Alertmanagers(r.Context())
	return answer{data: views.MergeAlertmanagers(own, theirs), warnings: ws}, err
}

const (
	// tsdbLimit and mostTSDB are the default and the bound of the parameter limit of
	// /status/tsdb.
	tsdbLimit, mostTSDB = 10, 10_000
	// tsdbMargin is how many times as many names a server is asked for: one that is not
	// among its own first may be among the first of all.
	tsdbMargin = 10
)

// tsdbStatus is /status/tsdb: of each number the highest among the replicas of a group,
// summed over groups; of each list the first `limit` of what is then the order.
func (m mergedViews) tsdbStatus(r *http.Request) (answer, error) {
	var own views.TSDBStatus
	if err := m.own.ask(r, "/status/tsdb", r.URL.RawQuery, &own); err != nil {
		return answer{}, err
	}
	limit, err := strconv.Atoi(cmp.Or(r.FormValue("limit"), strconv.Itoa(tsdbLimit)))
	if err != nil {
		return answer{}, badParameter("limit", err)
	}
	theirs, ws, err := m.view(r.Context()).TSDBStatus(r.Context(), min(limit*tsdbMargin, mostTSDB))
	all := views.JoinTSDB(own, theirs)
	all.Cut(limit)
	return answer{data: all, warnings: ws}, err
}

// tsdbBlocks is /status/tsdb/blocks: the blocks of all servers, also of replicas, whose
// blocks are not the same ones.
func (m mergedViews) tsdbBlocks(r *http.Request) (answer, error) {
	theirs, ws, err := m.view(r.Context()).TSDBBlocks(r.Context())
	return answer{data: map[string][]tsdb.BlockMeta{"blocks": theirs}, warnings: ws}, err
}

// features is /features: what oneprom can do of what it does itself (the API, PromQL), and
// of what servers do behind it (scraping, storing), what some of them can.
func (m mergedViews) features(r *http.Request) (answer, error) {
	var own map[string]map[string]bool
	if err := m.own.ask(r, "/features", r.URL.RawQuery, &own); err != nil {
		return answer{}, err
	}
	theirs, ws, err := m.view(r.Context()).Features(r.Context())
	return answer{data: views.MergeFeatures(own, theirs...), warnings: ws}, err
}

// notifications is /notifications: oneprom's own, and then those of the servers, with their
// names before the texts.
func (m mergedViews) notifications(r *http.Request) (answer, error) {
	var own []notifications.Notification
	if err := m.own.ask(r, "/notifications", r.URL.RawQuery, &own); err != nil {
		return answer{}, err
	}
	theirs, ws, err := m.view(r.Context()).Notifications(r.Context())
	return answer{data: append(append([]notifications.Notification{}, own...), theirs...), warnings: ws}, err
}
