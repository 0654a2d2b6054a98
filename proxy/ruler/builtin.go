package ruler

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"

	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/recorder"
)

// Rules that could not be evaluated have an alert: an alert that cannot be judged does not
// fire, and somebody has to know. So have targets of remote_write that take nothing: nobody sees
// what they lack. These alerts are rules like all others, of a file that does not exist and over
// metrics that nobody scrapes, so that pending, firing, sending and resolving them is upstream's
// business.
const (
	// builtIn names the file and the group of the built-in rules.
	builtIn      = "oneprom"
	notEvaluated = "OnepromRuleNotEvaluated"
	stalled      = "OnepromRemoteWriteStalled"
)

// builtInRules are the rules that are there of themselves.
func builtInRules(c *config.Config) *rulefmt.RuleGroups {
	return &rulefmt.RuleGroups{Groups: []rulefmt.RuleGroup{{
		Name: builtIn,
		Rules: []rulefmt.Rule{{
			Alert: notEvaluated,
			Expr:  "oneprom_rule_not_evaluated == 1",
			For:   c.Global.EvaluationInterval,
			// The reason changes, and is for the annotations only: an empty label is none.
			Labels: map[string]string{"severity": "warning", "reason": "", "without": ""},
			Annotations: map[string]string{
				"summary":     "Rule {{ $labels.rule }} cannot be evaluated{{ with $labels.without }} for {{ . }}{{ end }}.",
				"description": "Rule {{ $labels.rule }} of group {{ $labels.rule_group }} ({{ $labels.rule_file }}) cannot be evaluated{{ with $labels.without }} for {{ . }}{{ end }}, so that nobody knows whether it holds{{ if $labels.without }} there{{ end }}: {{ $labels.reason }}",
			},
		}, {
			Alert:  stalled,
			Expr:   "oneprom_remote_write_behind_seconds > 0",
			Labels: map[string]string{"severity": "warning"},
			Annotations: map[string]string{
				"summary":     "remote_write {{ $labels.remote_name }} has stalled.",
				"description": "What rules recorded more than " + model.Duration(recorder.Patience).String() + " ago is not written to {{ $labels.url }} ({{ $labels.remote_name }}), which is {{ $value | humanizeDuration }} behind: the receiver does not answer or is too slow, or the log in --storage.agent.path cannot be written or read. The log of oneprom says which.",
			},
		}},
	}}}
}

// builtInVector is the value of the expression of a built-in rule.
func (r *Ruler) builtInVector(rule string, at time.Time) promql.Vector {
	if rule == stalled {
		return stalledVector(r.recorder.Stalled(at), at)
	}
	return r.failures.vector(at)
}

// vector is the failures as the value of an expression.
func (f *failures) vector(at time.Time) promql.Vector {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	var v promql.Vector
	for _, reasons := range f.reasons {
		for name, f := range reasons {
			v = append(v, promql.Sample{T: at.UnixMilli(), F: 1, Metric: labels.FromStrings(
				labels.MetricName, "oneprom_rule_not_evaluated",
				"rule", name.rule, "rule_group", name.group, "rule_file", name.file, "without", f.without, "reason", f.reason,
			)})
		}
	}
	slices.SortFunc(v, func(a, b promql.Sample) int { return cmp.Compare(a.Metric.String(), b.Metric.String()) })
	return v
}

// stalledVector is targets that have stalled as the value of an expression.
func stalledVector(list []recorder.Stalled, at time.Time) (v promql.Vector) {
	for _, s := range list {
		v = append(v, promql.Sample{T: at.UnixMilli(), F: s.Behind.Seconds(), Metric: labels.FromStrings(
			labels.MetricName, "oneprom_remote_write_behind_seconds", "remote_name", s.Name, "url", s.URL,
		)})
	}
	return v
}
