package views

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// RelabelRules gives rules and their alerts the labels that are shown of a server's. A
// recording rule gets those that the series have which it makes.
func RelabelRules(groups []RuleGroup, show func(labels.Labels) labels.Labels) {
	for _, g := range groups {
		for i := range g.Rules {
			r := &g.Rules[i]
			r.Labels = show(r.Labels)
			r.Alerts = RelabelAlerts(r.Alerts, show)
		}
	}
}

// RelabelAlerts gives alerts the labels that are shown of a server's. It leaves out what
// is no alert.
func RelabelAlerts(alerts []*v1.Alert, show func(labels.Labels) labels.Labels) []*v1.Alert {
	alerts = slices.DeleteFunc(alerts, func(a *v1.Alert) bool { return a == nil })
	for _, a := range alerts {
		a.Labels = show(a.Labels)
	}
	return alerts
}

// RelabelTargets gives active targets the labels that are shown of a server's. What was
// discovered stays as the server has discovered it.
func RelabelTargets(targets []*v1.Target, show func(labels.Labels) labels.Labels) {
	for _, t := range targets {
		if t != nil {
			t.Labels = show(t.Labels)
		}
	}
}
