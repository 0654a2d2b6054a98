package servergroup

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/views"
)

// restrict leaves those groups in the view, and of each the series, that the request may
// be shown. That is done where matchers become those of a group, which is on the way of
// everything that is asked of a replica: what is asked in another way cannot forget it. The
// query is not touched, so that its answer is the one of a Prometheus that does not have the
// other series at all; absent() of one has no labels that nobody wrote.
func (v *View) restrict() {
	if !v.request.Restricted {
		return
	}
	var seen []groupView
	for _, g := range v.groups {
		if len(v.request.Shown) > 0 && !labelmap.Excludes(g.cfg, v.request.Shown) {
			g.shown, g.rank = v.request.Shown, len(seen)
			seen = append(seen, g)
		}
	}
	v.groups = seen
}

// resolve decides what a selector is for the group's replicas, of what the request may
// be shown.
func (g groupView) resolve(ms []*labels.Matcher) labelmap.Resolved {
	return labelmap.Resolve(g.cfg, g.with(ms))
}

// with adds the matchers that restrict the request.
func (g groupView) with(ms []*labels.Matcher) []*labels.Matcher {
	if len(g.shown) == 0 {
		return ms
	}
	return slices.Concat(ms, g.shown)
}

// restricted tells whether the request is not shown everything. Then it is not told,
// either, what replicas say in words of their own, which may be of what it is not shown.
func (g groupView) restricted() bool { return len(g.shown) > 0 }

// ShownRules are those of some rules that the request may be shown: by the labels of the
// rule, and of each of its alerts. What an evaluation failed with may tell of others.
func (v *View) ShownRules(groups []views.RuleGroup) []views.RuleGroup {
	if !v.request.Restricted {
		return groups
	}
	shown := []views.RuleGroup{}
	for _, g := range groups {
		rules := []v1.AlertingRule{}
		for _, r := range g.Rules {
			if !v.shows(r.Labels) {
				continue
			}
			r.Alerts = v.ShownAlerts(r.Alerts)
			if r.LastError != "" {
				r.LastError = completeness.Withheld
			}
			rules = append(rules, r)
		}
		if g.Rules = rules; len(rules) > 0 {
			shown = append(shown, g)
		}
	}
	return shown
}

// ShownAlerts are those of some alerts that the request may be shown.
func (v *View) ShownAlerts(alerts []*v1.Alert) []*v1.Alert {
	if !v.request.Restricted || alerts == nil {
		return alerts
	}
	shown := []*v1.Alert{}
	for _, a := range alerts {
		if a != nil && v.shows(a.Labels) {
			shown = append(shown, a)
		}
	}
	return shown
}

// shownTargets are those of some targets that the request may be shown. What was dropped
// has no labels yet by which that could be told.
func (v *View) shownTargets(all v1.TargetDiscovery) v1.TargetDiscovery {
	if !v.request.Restricted {
		return all
	}
	shown := v1.TargetDiscovery{ActiveTargets: []*v1.Target{}, DroppedTargets: []*v1.DroppedTarget{}, DroppedTargetCounts: map[string]int{}}
	for _, t := range all.ActiveTargets {
		if t != nil && v.shows(t.Labels) {
			shown.ActiveTargets = append(shown.ActiveTargets, t)
		}
	}
	return shown
}

// shows tells whether the request may be shown what has these labels.
func (v *View) shows(ls labels.Labels) bool {
	return !v.request.Restricted || len(v.request.Shown) > 0 && labelmap.MatchesAll(ls, v.request.Shown)
}
