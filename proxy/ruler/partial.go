package ruler

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/proxy/readback"
	"github.com/oneprom/oneprom/servergroup/completeness"
)

// If each series of a rule is made of one partition of the server groups, the rule is evaluated for
// the partitions that answer. What it says of the others stays as it was: their alerts go on, and the
// series that it records of them do not end.

// ruleKey is a rule of a group, as the context of its queries describes it. Equal rules are one.
type ruleKey struct{ name, expr, labels string }

func ruleKeyOf(d rules.RuleDetail) ruleKey { return ruleKey{d.Name, d.Query, d.Labels.String()} }

// evaluation is what the last evaluation of a rule came to.
type evaluation struct {
	at time.Time
	// gaps are what the answer lacks.
	gaps []completeness.Gap
	// vector is the answer, with what had to be kept of the one before. Only alerts need it.
	vector promql.Vector
}

// evaluations are the last ones of all rules that have succeeded.
type evaluations struct {
	mtx     sync.Mutex
	byGroup map[string]map[ruleKey]evaluation // by key of the group
}

func newEvaluations() *evaluations {
	return &evaluations{byGroup: map[string]map[ruleKey]evaluation{}}
}

func (e *evaluations) get(g *rules.Group, key ruleKey) (evaluation, bool) {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	last, ok := e.byGroup[rules.GroupKey(g.File(), g.Name())][key]
	return last, ok
}

func (e *evaluations) set(g *rules.Group, key ruleKey, now evaluation) {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	of := rules.GroupKey(g.File(), g.Name())
	if e.byGroup[of] == nil {
		e.byGroup[of] = map[ruleKey]evaluation{}
	}
	e.byGroup[of][key] = now
}

// keep forgets the rules that are not there any more.
func (e *evaluations) keep(groups []*rules.Group) {
	there := map[string]map[ruleKey]bool{}
	for _, g := range groups {
		list := map[ruleKey]bool{}
		for _, rule := range g.Rules() {
			list[ruleKeyOf(rules.NewRuleDetail(rule))] = true
		}
		there[rules.GroupKey(g.File(), g.Name())] = list
	}
	e.mtx.Lock()
	defer e.mtx.Unlock()
	for of, list := range e.byGroup {
		maps.DeleteFunc(list, func(key ruleKey, _ evaluation) bool { return !there[of][key] })
	}
	maps.DeleteFunc(e.byGroup, func(_ string, list map[ruleKey]evaluation) bool { return len(list) == 0 })
}

// lacks returns the gaps of the last evaluation of a rule.
func (e *evaluations) lacks(g *rules.Group, rule rules.Rule) []completeness.Gap {
	last, _ := e.get(g, ruleKeyOf(rules.NewRuleDetail(rule)))
	return last.gaps
}

// allLack returns the gaps of the last evaluations of all rules of a group.
func (e *evaluations) allLack(g *rules.Group) (gaps []completeness.Gap) {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	for _, last := range e.byGroup[rules.GroupKey(g.File(), g.Name())] {
		gaps = append(gaps, last.gaps...)
	}
	return gaps
}

// complete adds to the answer to a rule's expression what has to be kept of the answer before.
func (e *evaluations) complete(g *rules.Group, d rules.RuleDetail, at time.Time, v promql.Vector, gaps []completeness.Gap) promql.Vector {
	key := ruleKeyOf(d)
	last, known := e.get(g, key)
	now := evaluation{at: at, gaps: gaps}
	if d.Kind == rules.KindAlerting {
		if len(gaps) > 0 {
			if !known {
				last = evaluation{at: at, vector: activeOf(g, d)}
			}
			v = append(v, unseen(last.vector, v, gaps)...)
			holdPending(g, d, gaps, at.Sub(last.at))
		}
		now.vector = slices.Clone(v)
	}
	e.set(g, key, now)
	return v
}

// unseen returns the samples from before whose series the answer may lack because of the gaps.
func unseen(before, answer promql.Vector, gaps []completeness.Gap) promql.Vector {
	there := make(map[uint64]bool, len(answer))
	for _, s := range answer {
		there[s.Metric.Hash()] = true
	}
	var out promql.Vector
	for _, s := range before {
		if !there[s.Metric.Hash()] && concerned(gaps, s.Metric) {
			out = append(out, s)
		}
	}
	return out
}

func concerned(gaps []completeness.Gap, ls labels.Labels) bool {
	return slices.ContainsFunc(gaps, func(g completeness.Gap) bool { return g.MayConcern(ls) })
}

// alertsOf calls f for each active alert of a rule.
func alertsOf(g *rules.Group, d rules.RuleDetail, f func(*rules.Alert)) {
	for _, rule := range g.Rules() {
		if alerting, ok := rule.(*rules.AlertingRule); ok && ruleKeyOf(rules.NewRuleDetail(rule)) == ruleKeyOf(d) {
			alerting.ForEachActiveAlert(f)
		}
	}
}

// activeOf returns the active alerts of a rule as the samples that they may be of. It is for a rule
// of which nothing is known, as its expression was changed.
func activeOf(g *rules.Group, d rules.RuleDetail) (v promql.Vector) {
	alertsOf(g, d, func(a *rules.Alert) {
		if a.State != rules.StateInactive {
			v = append(v, promql.Sample{F: a.Value, Metric: labels.NewBuilder(a.Labels).Del(labels.AlertName).Labels()})
		}
	})
	return v
}

// holdPending has pending alerts wait that nobody can judge: the time passed does not count.
func holdPending(g *rules.Group, d rules.RuleDetail, gaps []completeness.Gap, passed time.Duration) {
	alertsOf(g, d, func(a *rules.Alert) {
		series := labels.NewBuilder(a.Labels)
		d.Labels.Range(func(l labels.Label) { series.Del(l.Name) }) // which say nothing about the series
		if a.State == rules.StatePending && concerned(gaps, series.Labels()) {
			a.ActiveAt = a.ActiveAt.Add(passed)
		}
	})
}

// lackingNames returns the server groups of gaps, as a text.
func lackingNames(gaps []completeness.Gap) string {
	var names []string
	for _, g := range gaps {
		names = append(names, `"`+g.Group+`"`)
	}
	return "server group " + strings.Join(names, ", ")
}

type groupKey struct{}

// withGroup returns a context for the evaluation of a group.
func withGroup(ctx context.Context, g *rules.Group) context.Context {
	return context.WithValue(ctx, groupKey{}, g)
}

// groupOf returns the group whose evaluation a context is for; nil if it is for none.
func groupOf(ctx context.Context) *rules.Group {
	g, _ := ctx.Value(groupKey{}).(*rules.Group)
	return g
}

// recordings is where rules record. Series of server groups that did not answer do not end there.
type recordings struct {
	storage.Appendable
	evaluations   *evaluations
	confirmations *readback.Confirmations
}

// Appender implements storage.Appendable.
func (r *recordings) Appender(ctx context.Context) storage.Appender {
	app := r.Appendable.Appender(ctx)
	if g := groupOf(ctx); g != nil {
		if gaps := r.evaluations.allLack(g); len(gaps) > 0 {
			app = &unended{app, gaps}
		}
		app = r.confirmations.Appender(app, g)
	}
	return app
}

// unended drops the markers of the end of series that gaps concern: nobody knows whether they have
// ended.
type unended struct {
	storage.Appender
	gaps []completeness.Gap
}

// Append implements storage.Appender.
func (u *unended) Append(ref storage.SeriesRef, ls labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	if value.IsStaleNaN(v) && concerned(u.gaps, ls) {
		return ref, nil
	}
	return u.Appender.Append(ref, ls, t, v)
}
