package survey

import (
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/views"
)

// ShownRules returns the rules that the request may see, by the labels of the rule and of each of
// its alerts. Errors of evaluations are hidden from restricted requests, as they may name other
// series.
func (s Servers) ShownRules(groups []views.RuleGroup) []views.RuleGroup {
	if !s.view.Request.Restricted {
		return groups
	}
	shown := []views.RuleGroup{}
	for _, g := range groups {
		rules := []v1.AlertingRule{}
		for _, r := range g.Rules {
			if !s.view.Shows(r.Labels) {
				continue
			}
			r.Alerts = s.ShownAlerts(r.Alerts)
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

// ShownAlerts returns the alerts that the request may see.
func (s Servers) ShownAlerts(alerts []*v1.Alert) []*v1.Alert {
	if !s.view.Request.Restricted || alerts == nil {
		return alerts
	}
	shown := []*v1.Alert{}
	for _, a := range alerts {
		if a != nil && s.view.Shows(a.Labels) {
			shown = append(shown, a)
		}
	}
	return shown
}

// shownTargets returns the targets that the request may see. Dropped targets are left out, as they
// do not have their final labels.
func (s Servers) shownTargets(all v1.TargetDiscovery) v1.TargetDiscovery {
	if !s.view.Request.Restricted {
		return all
	}
	shown := v1.TargetDiscovery{ActiveTargets: []*v1.Target{}, DroppedTargets: []*v1.DroppedTarget{}, DroppedTargetCounts: map[string]int{}}
	for _, t := range all.ActiveTargets {
		if t != nil && s.view.Shows(t.Labels) {
			shown.ActiveTargets = append(shown.ActiveTargets, t)
		}
	}
	return shown
}
