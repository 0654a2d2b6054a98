// Package views serves what a Prometheus says of itself: rules, alerts, targets, metadata,
// the TSDB, features. It asks oneprom's own API first (SelfAPI), whose words are those of what
// is wrong with a request, then the servers behind it, and merges the answers as if they were
// those of one. Noop is the part of a Prometheus that a proxy does not have.
package views

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

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup/survey"
	"github.com/oneprom/oneprom/servergroup/view"
	"github.com/oneprom/oneprom/servergroup/views"
)

// Merged serves what a Prometheus says of itself, from what oneprom and the servers behind
// it say, as if they were one. A group that does not answer is a warning. What is
// wrong with a request, upstream's own handler says: it is always asked first.
type Merged struct {
	Self   SelfAPI
	Groups func(context.Context) *view.View // as one request sees them
	Parser parser.Parser
}

// servers are those of the groups that a request sees.
func (m Merged) servers(r *http.Request) survey.Servers { return survey.Of(m.Groups(r.Context())) }

// Alerts is /alerts: merged as views.MergeAlerts says, oneprom's own with those of the
// servers.
func (m Merged) Alerts(r *http.Request) (api.Result, error) {
	var self v1.AlertDiscovery
	if err := m.Self.ask(r, "/alerts", r.URL.RawQuery, &self); err != nil {
		return api.Result{}, err
	}
	servers := m.servers(r)
	theirs, ws, err := servers.Alerts(r.Context())
	return api.Result{Data: v1.AlertDiscovery{Alerts: views.MergeAlerts(servers.ShownAlerts(self.Alerts), theirs)}, Warnings: ws}, err
}

// Targets is /targets: one for each scrape pool and set of labels over all replicas and
// groups, the healthiest and then the latest that a server knows, sorted by these.
// droppedTargetCounts are the highest among the replicas of a group, summed over groups.
func (m Merged) Targets(r *http.Request) (api.Result, error) {
	var self v1.TargetDiscovery
	if err := m.Self.ask(r, "/targets", r.URL.RawQuery, &self); err != nil {
		return api.Result{}, err
	}
	params := r.URL.Query()
	theirs, ws, err := m.servers(r).Targets(r.Context(), params.Get("state"), params.Get("scrapePool"))
	return api.Result{Data: views.JoinTargets(self, theirs), Warnings: ws}, err
}

// TargetMetadata is /targets/metadata: the union of what all servers say, sorted by target
// and metric, of which the first `limit` are shown. match_target means the labels as they
// are shown.
func (m Merged) TargetMetadata(r *http.Request) (api.Result, error) {
	var self []views.TargetMetadata // empty: oneprom scrapes nothing
	if err := m.Self.ask(r, "/targets/metadata", r.URL.RawQuery, &self); err != nil {
		return api.Result{}, err
	}
	limit, err := api.NumberParam(r, "limit")
	if err != nil {
		return api.Result{}, err
	}
	var ms []*labels.Matcher
	if text := r.FormValue("match_target"); text != "" {
		if ms, err = m.Parser.ParseMetricSelector(text); err != nil {
			return api.Result{}, api.BadParameter("match_target", err)
		}
	}
	all, ws, err := m.servers(r).TargetMetadata(r.Context(), ms, r.FormValue("metric"))
	if limit >= 0 {
		all = all[:min(limit, len(all))]
	}
	return api.Result{Data: all, Warnings: ws}, err
}

// ScrapePools is /scrape_pools: the union of the names.
func (m Merged) ScrapePools(r *http.Request) (api.Result, error) {
	var self v1.ScrapePoolsDiscovery
	if err := m.Self.ask(r, "/scrape_pools", r.URL.RawQuery, &self); err != nil {
		return api.Result{}, err
	}
	theirs, ws, err := m.servers(r).ScrapePools(r.Context())
	return api.Result{Data: v1.ScrapePoolsDiscovery{ScrapePools: views.MergePools(self.ScrapePools, theirs)}, Warnings: ws}, err
}

// OfScrapePool is /scrape_pools/config and /targets/relabel_steps: the answer of the first
// server, in the order of the configuration, that has a scrape pool of this name. If other
// groups have one that differs, a warning names them. If nobody has it, the error is
// upstream's, with the groups that were not asked.
func (m Merged) OfScrapePool(path string) api.Handler {
	return func(r *http.Request) (api.Result, error) {
		var self json.RawMessage
		notSelf := m.Self.ask(r, path, r.URL.RawQuery, &self)
		params := url.Values{"scrapePool": {r.FormValue("scrapePool")}}
		if text := r.FormValue("labels"); text != "" {
			params.Set("labels", text)
		}
		known := notSelf == nil || strings.Contains(notSelf.Error(), "error retrieving scrape config")
		if !known { // something else is wrong with the request
			return api.Result{}, notSelf
		}
		if notSelf == nil {
			return api.Result{Data: self}, nil
		}
		groups := m.Groups(r.Context())
		theirs, ws, err := survey.Of(groups).OfScrapePool(r.Context(), path, params)
		if err == nil && theirs == nil {
			e := *api.Classify(notSelf)
			for _, gap := range groups.Ledger.Gaps() {
				e.Err = fmt.Errorf("%w; %s", e.Err, gap.Reason)
			}
			err = &e
		}
		return api.Result{Data: theirs, Warnings: ws}, err
	}
}

// Alertmanagers is /alertmanagers: the union by URL, those that are active and those that
// were dropped each.
func (m Merged) Alertmanagers(r *http.Request) (api.Result, error) {
	var self v1.AlertmanagerDiscovery
	if err := m.Self.ask(r, "/alertmanagers", r.URL.RawQuery, &self); err != nil {
		return api.Result{}, err
	}
	theirs, ws, err := m.servers(r).Alertmanagers(r.Context())
	return api.Result{Data: views.MergeAlertmanagers(self, theirs), Warnings: ws}, err
}

const (
	// tsdbLimit and mostTSDB are the default and the bound of the parameter limit of
	// /status/tsdb.
	tsdbLimit, mostTSDB = 10, 10_000
	// tsdbMargin is how many times as many names a server is asked for: one that is not
	// among its own first may be among the first of all.
	tsdbMargin = 10
)

// TSDBStatus is /status/tsdb: of each number the highest among the replicas of a group,
// summed over groups; of each list the first `limit` of what is then the order.
func (m Merged) TSDBStatus(r *http.Request) (api.Result, error) {
	var self views.TSDBStatus
	if err := m.Self.ask(r, "/status/tsdb", r.URL.RawQuery, &self); err != nil {
		return api.Result{}, err
	}
	limit, err := strconv.Atoi(cmp.Or(r.FormValue("limit"), strconv.Itoa(tsdbLimit)))
	if err != nil {
		return api.Result{}, api.BadParameter("limit", err)
	}
	theirs, ws, err := m.servers(r).TSDBStatus(r.Context(), min(limit*tsdbMargin, mostTSDB))
	all := views.JoinTSDB(self, theirs)
	all.Cut(limit)
	return api.Result{Data: all, Warnings: ws}, err
}

// TSDBBlocks is /status/tsdb/blocks: the blocks of all servers, also of replicas, whose
// blocks are not the same ones.
func (m Merged) TSDBBlocks(r *http.Request) (api.Result, error) {
	theirs, ws, err := m.servers(r).TSDBBlocks(r.Context())
	return api.Result{Data: map[string][]tsdb.BlockMeta{"blocks": theirs}, Warnings: ws}, err
}

// Features is /features: what oneprom can do of what it does itself (the API, PromQL), and
// of what servers do behind it (scraping, storing), what some of them can.
func (m Merged) Features(r *http.Request) (api.Result, error) {
	var self map[string]map[string]bool
	if err := m.Self.ask(r, "/features", r.URL.RawQuery, &self); err != nil {
		return api.Result{}, err
	}
	theirs, ws, err := m.servers(r).Features(r.Context())
	return api.Result{Data: views.MergeFeatures(self, theirs...), Warnings: ws}, err
}

// Notifications is /notifications: oneprom's own, and then those of the servers, with their
// names before the texts.
func (m Merged) Notifications(r *http.Request) (api.Result, error) {
	var self []notifications.Notification
	if err := m.Self.ask(r, "/notifications", r.URL.RawQuery, &self); err != nil {
		return api.Result{}, err
	}
	theirs, ws, err := m.servers(r).Notifications(r.Context())
	return api.Result{Data: append(append([]notifications.Notification{}, self...), theirs...), Warnings: ws}, err
}
