package servergroup

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/views"
)

// This file restricts what a request is shown. It is done where matchers become those of
// a group, which is on the way of everything that is asked of a replica: what is asked
// in another way cannot forget it. The query is not touched, so that its answer is the
// one of a Prometheus that has the other series not at all; absent() of one has no
// labels that nobody wrote.

type onlyKey struct{}

// WithOnly has the views of a request see the series only that satisfy all of the
// matchers. Without any matcher they see no group at all.
func WithOnly(ctx context.Context, ms []*labels.Matcher) context.Context {
	return context.WithValue(ctx, onlyKey{}, ms)
}

// restrict leaves those groups in the view, and of each the series, that the request may
// be shown.
func (v *View) restrict(ctx context.Context) {
	only, restricted := ctx.Value(onlyKey{}).([]*labels.Matcher)
	if !restricted {
		return
	}
	v.only = only
	var seen []groupView
	for _, g := range v.groups {
		if len(only) > 0 && !labelmap.Excludes(g.cfg, only) {
			g.only, g.rank = only, len(seen)
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
	if len(g.only) == 0 {
		return ms
	}
	return slices.Concat(ms, g.only)
}

// restricted tells whether the request is not shown everything. Then it is not told,
// either, what replicas say in words of their own, which may be of what it is not shown.
func (g groupView) restricted() bool { return len(g.only) > 0 }

// seesLike tells whether two views are of requests that may be shown the same.
func (v *View) seesLike(o *View) bool {
	return (v.only == nil) == (o.only == nil) && slices.EqualFunc(v.only, o.only, func(a, b *labels.Matcher) bool { return a.String() == b.String() })
}

// withheld stands for words of a replica that the request is not told.
const withheld = "a server says more, which only administrators are shown"

// ShownRules are those of some rules that the request may be shown: by the labels of the
// rule, and of each of its alerts. What an evaluation failed with may tell of others.
func (v *View) ShownRules(groups []views.RuleGroup) []views.RuleGroup {
	if v.only == nil {
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
				r.LastError = withheld
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
	if v.only == nil || alerts == nil {
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
	if v.only == nil {
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
	return v.only == nil || len(v.only) > 0 && labelmap.MatchesAll(ls, v.only)
}
