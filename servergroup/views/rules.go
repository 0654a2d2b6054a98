// Package views merges the answers of several servers about rules, alerts, targets and statistics
// into one. Its functions are pure. Labels must already be those to show: without replica labels,
// and with those that the group injects.
package views

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/rules"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// RuleGroup is a group of /rules. Its rules are of one type: what a recording rule lacks
// is empty in it.
type RuleGroup struct {
	v1.RuleGroup
	Rules []v1.AlertingRule `json:"rules"`
}

// The types of rules.
const (
	alerting  = "alerting"
	recording = "recording"
)

// MergeRules unites the rule groups of several servers, replicas of each other or not.
//
// Groups of one file and name are one group, wherever they are: that is how clients know
// them, who ask for files and names, and page by them. Rules of different server groups
// are distinguished in it by their labels. Rules with the same type, name, query, labels and
// durations are one rule:
//
//   - the state, the annotations and the times are those of the firing one, or else of a
//     pending one, or else of the one that was evaluated last: an alert that one replica
//     has raised is raised;
//   - the alerts are united as MergeAlerts does;
//   - the health is the worst, with its error: who reads it looks for rules that fail, and
//     one that fails at one of two replicas is about to be lost. One that has not been
//     evaluated yet is not worse than one that is well.
//
// The rules stand in the order of the first server that has the group. Interval and limit
// of a group are the first server's, its evaluation took as long as the longest, and was
// when the latest was. Groups are sorted by file and name, as upstream sorts them.
func MergeRules(servers ...[]RuleGroup) []RuleGroup {
	type key struct{ file, name string }
	merged := map[key]*mergedGroup{}
	for _, groups := range servers {
		for _, g := range groups {
			k := key{g.File, g.Name}
			if merged[k] == nil {
				merged[k] = &mergedGroup{group: g.RuleGroup, at: map[string]int{}}
			}
			merged[k].add(g)
		}
	}
	out := make([]RuleGroup, 0, len(merged))
	for _, m := range merged {
		out = append(out, RuleGroup{RuleGroup: m.group, Rules: m.rules})
	}
	slices.SortFunc(out, func(a, b RuleGroup) int {
		return cmp.Or(strings.Compare(a.File, b.File), strings.Compare(a.Name, b.Name))
	})
	return out
}

// mergedGroup is a rule group in the making.
type mergedGroup struct {
	group v1.RuleGroup
	rules []v1.AlertingRule
	at    map[string]int // the places of the rules
}

func (m *mergedGroup) add(g RuleGroup) {
	m.group.EvaluationTime = max(m.group.EvaluationTime, g.EvaluationTime)
	m.group.LastEvaluation = latest(m.group.LastEvaluation, g.LastEvaluation)
	times := map[string]int{} // a server may have a rule twice
	for _, r := range g.Rules {
		if r.Type != alerting && r.Type != recording {
			continue
		}
		id := identity(r)
		times[id]++
		id = fmt.Sprint(times[id], id)
		if i, known := m.at[id]; known {
			m.rules[i] = mergeRule(m.rules[i], r)
			continue
		}
		m.at[id] = len(m.rules)
		m.rules = append(m.rules, r)
	}
}

// identity is equal for rules that are the same.
func identity(r v1.AlertingRule) string {
	return fmt.Sprintf("%s %q %q %s %g %g", r.Type, r.Name, r.Query, r.Labels, r.Duration, r.KeepFiringFor)
}

func mergeRule(a, b v1.AlertingRule) v1.AlertingRule {
	out := a
	if cmp.Or(cmp.Compare(urgency(b.State), urgency(a.State)), b.LastEvaluation.Compare(a.LastEvaluation)) > 0 {
		out = b
	}
	out.LastEvaluation = latest(a.LastEvaluation, b.LastEvaluation)
	out.Health, out.LastError = a.Health, a.LastError
	if badness(b.Health) > badness(a.Health) {
		out.Health, out.LastError = b.Health, b.LastError
	}
	out.Alerts = MergeAlerts(a.Alerts, b.Alerts)
	return out
}

// urgency orders the states of rules and alerts.
func urgency(state string) int {
	return slices.Index([]string{rules.StateInactive.String(), rules.StatePending.String(), rules.StateFiring.String()}, state)
}

func badness(h rules.RuleHealth) int {
	return slices.Index([]rules.RuleHealth{rules.HealthUnknown, rules.HealthGood, rules.HealthBad}, h)
}

// MergeAlerts unites the alerts of several servers. Those with the same labels are one
// alert, as they are for Alertmanager: a firing one wins over a pending one, and it is
// active since the first of them has been. They are sorted by their labels.
func MergeAlerts(servers ...[]*v1.Alert) []*v1.Alert {
	merged := map[string]*v1.Alert{}
	for _, alerts := range servers {
		for _, a := range alerts {
			if a == nil {
				continue
			}
			key := a.Labels.String()
			if known := merged[key]; known != nil {
				a = mergeAlert(known, a)
			}
			merged[key] = a
		}
	}
	return sortedByKey(merged)
}

func mergeAlert(a, b *v1.Alert) *v1.Alert {
	out := *a
	if urgency(b.State) > urgency(a.State) {
		out = *b
	}
	out.ActiveAt = earliest(a.ActiveAt, b.ActiveAt)
	return &out
}

// latest returns the later of two times.
func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// earliest returns the earlier of two times, of which either may not be known.
func earliest(a, b *time.Time) *time.Time {
	if a == nil || b != nil && b.Before(*a) {
		return b
	}
	return a
}
