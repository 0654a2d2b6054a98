package survey

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
	"github.com/oneprom/oneprom/servergroup/views"
)

// Rules returns the rule groups of all servers, merged as views.MergeRules says.
func (s Servers) Rules(ctx context.Context, withoutAlerts bool) ([]views.RuleGroup, annotations.Annotations, error) {
	params := url.Values{}
	if withoutAlerts {
		params.Set("exclude_alerts", "true")
	}
	type data struct {
		Groups []views.RuleGroup `json:"groups"`
	}
	groups, ws, err := surveyByLabels[data](ctx, s.view, "/api/v1/rules", nil, sending(params))
	var lists [][]views.RuleGroup
	for _, g := range groups {
		for _, one := range g.data {
			views.RelabelRules(one.Groups, g.show())
			lists = append(lists, one.Groups)
		}
	}
	return s.ShownRules(views.MergeRules(lists...)), ws, err
}

// Alerts returns the alerts of all servers, merged as views.MergeAlerts says.
func (s Servers) Alerts(ctx context.Context) ([]*v1.Alert, annotations.Annotations, error) {
	groups, ws, err := surveyByLabels[v1.AlertDiscovery](ctx, s.view, "/api/v1/alerts", nil, sending(nil))
	var lists [][]*v1.Alert
	for _, g := range groups {
		for _, one := range g.data {
			lists = append(lists, views.RelabelAlerts(one.Alerts, g.show()))
		}
	}
	return s.ShownAlerts(views.MergeAlerts(lists...)), ws, err
}

// Targets returns the targets of all servers, merged as views.FoldTargets and
// views.JoinTargets say. state and pool are parameters of /targets, "" for all.
func (s Servers) Targets(ctx context.Context, state, pool string) (v1.TargetDiscovery, annotations.Annotations, error) {
	params := url.Values{}
	for name, value := range map[string]string{"state": state, "scrapePool": pool} {
		if value != "" {
			params.Set(name, value)
		}
	}
	groups, ws, err := surveyByLabels[v1.TargetDiscovery](ctx, s.view, "/api/v1/targets", nil, sending(params))
	var folded []v1.TargetDiscovery
	for _, g := range groups {
		for _, one := range g.data {
			views.RelabelTargets(one.ActiveTargets, g.show())
		}
		folded = append(folded, views.FoldTargets(g.data...))
	}
	return s.shownTargets(views.JoinTargets(folded...)), ws, err
}

// TargetMetadata returns the metadata that the targets that match have of a metric, or of all
// metrics if it is "", sorted and without duplicates.
func (s Servers) TargetMetadata(ctx context.Context, ms []*labels.Matcher, metric string) ([]views.TargetMetadata, annotations.Annotations, error) {
	groups, ws, err := surveyByLabels[[]views.TargetMetadata](ctx, s.view, "/api/v1/targets/metadata", ms, func(t *view.RoutedGroup) url.Values {
		params := url.Values{}
		if metric != "" {
			params.Set("metric", metric)
		}
		if send := plain(t.Route.Resolved.Send); len(send) > 0 {
			params.Set("match_target", transport.Selector(send))
		}
		return params
	})
	all := []views.TargetMetadata{}
	for _, g := range groups {
		show := g.show()
		for _, list := range g.data {
			for _, m := range list {
				if m.Target = show(m.Target); labelmap.MatchesAll(m.Target, ms) && s.view.Shows(m.Target) {
					all = append(all, m)
				}
			}
		}
	}
	slices.SortFunc(all, views.CompareTargetMetadata)
	return slices.CompactFunc(all, func(a, b views.TargetMetadata) bool { return views.CompareTargetMetadata(a, b) == 0 }), ws, err
}

// plain returns those matchers that mean the same to any server: they demand a value of a label with
// a legacy name. The others are checked here.
func plain(ms []*labels.Matcher) []*labels.Matcher {
	return slices.DeleteFunc(slices.Clone(ms), func(m *labels.Matcher) bool {
		return m.Type != labels.MatchEqual || m.Value == "" || !model.LegacyValidation.IsValidLabelName(m.Name)
	})
}

// ScrapePools returns the names of the scrape pools of all servers.
func (s Servers) ScrapePools(ctx context.Context) ([]string, annotations.Annotations, error) {
	groups, ws, err := survey[v1.ScrapePoolsDiscovery](ctx, s.view, "/api/v1/scrape_pools", nil, sending(nil))
	var lists [][]string
	for _, g := range groups {
		for _, one := range g.data {
			lists = append(lists, one.ScrapePools)
		}
	}
	return views.MergePools(lists...), ws, err
}

// OfScrapePool returns the answer about a scrape pool of the first server that has one of this
// name; nil if there is none. There is a warning for each other group that has a different one.
// path and params are those of the API.
func (s Servers) OfScrapePool(ctx context.Context, path string, params url.Values) (map[string]json.RawMessage, annotations.Annotations, error) {
	groups, ws, err := survey[map[string]json.RawMessage](ctx, s.view, "/api/v1"+path, nil, sending(params))
	var first map[string]json.RawMessage
	var owner string
	for _, g := range groups {
		switch {
		case len(g.data) == 0:
		case first == nil:
			first, owner = g.data[0], g.Config.Name
		case !maps.EqualFunc(first, g.data[0], func(a, b json.RawMessage) bool { return string(a) == string(b) }):
			ws.Add(fmt.Errorf("server group %q has another scrape pool of this name than server group %q, which this is of", g.Config.Name, owner))
		}
	}
	return first, ws, err
}

// Alertmanagers returns the Alertmanagers that the servers send alerts to.
func (s Servers) Alertmanagers(ctx context.Context) (v1.AlertmanagerDiscovery, annotations.Annotations, error) {
	groups, ws, err := survey[v1.AlertmanagerDiscovery](ctx, s.view, "/api/v1/alertmanagers", nil, sending(nil))
	var all []v1.AlertmanagerDiscovery
	for _, g := range groups {
		all = append(all, g.data...)
	}
	return views.MergeAlertmanagers(all...), ws, err
}

// TSDBStatus returns the statistics of all servers' heads, merged as views.FoldTSDB and
// views.JoinTSDB say. Each server is asked for the first `most` elements of each list; others are
// not counted.
func (s Servers) TSDBStatus(ctx context.Context, most int) (views.TSDBStatus, annotations.Annotations, error) {
	groups, ws, err := survey[views.TSDBStatus](ctx, s.view, "/api/v1/status/tsdb", nil, sending(url.Values{"limit": {strconv.Itoa(most)}}))
	var folded []views.TSDBStatus
	for _, g := range groups {
		one := views.FoldTSDB(g.data...)
		one.Without(g.Config.ReplicaLabels)
		folded = append(folded, one)
	}
	return views.JoinTSDB(folded...), ws, err
}

// TSDBBlocks returns the blocks of all servers.
func (s Servers) TSDBBlocks(ctx context.Context) ([]tsdb.BlockMeta, annotations.Annotations, error) {
	type data struct {
		Blocks []tsdb.BlockMeta `json:"blocks"`
	}
	groups, ws, err := survey[data](ctx, s.view, "/api/v1/status/tsdb/blocks", nil, sending(nil))
	var lists [][]tsdb.BlockMeta
	for _, g := range groups {
		for _, one := range g.data {
			lists = append(lists, one.Blocks)
		}
	}
	return views.MergeBlocks(lists...), ws, err
}

// Features returns, for each server that lists them, which features it has, by category.
func (s Servers) Features(ctx context.Context) ([]map[string]map[string]bool, annotations.Annotations, error) {
	groups, ws, err := survey[map[string]map[string]bool](ctx, s.view, "/api/v1/features", nil, sending(nil))
	var all []map[string]map[string]bool
	for _, g := range groups {
		all = append(all, g.data...)
	}
	return all, ws, err
}

// Notifications returns the notifications of all servers, in the order of the configuration. Their
// texts begin with the group and the URL of the server.
func (s Servers) Notifications(ctx context.Context) ([]notifications.Notification, annotations.Annotations, error) {
	groups, ws, err := survey[[]notifications.Notification](ctx, s.view, "/api/v1/notifications", nil, sending(nil))
	all := []notifications.Notification{}
	for _, g := range groups {
		for i, list := range g.data {
			for _, n := range list {
				n.Text = fmt.Sprintf("server group %q: %s: %s", g.Config.Name, g.by[i].URL(), n.Text)
				all = append(all, n)
			}
		}
	}
	return all, ws, err
}
