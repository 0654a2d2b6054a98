package plan

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/pushdown"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Routed is a plan for the groups that a query sees.
type Routed struct {
	*Plan
	View *view.View
	// Partitions are those that a selector of the query concerns. They answer the parts.
	// There are none if Options.NoParts is set.
	Partitions []*partition.Partition
	// NoParts is the reason why there are no parts; "" if there may be some.
	NoParts string
	// Stretches are the plans for stretches of the steps, in the order of time, where the steps are
	// divided: there are no partitions then, and one leaf. Else there are none.
	Stretches []*Routed
	// Whole is the text of the expression whose steps are divided; "" if they are not.
	Whole string
	// NoStretches is the reason why they are not, although groups hold samples of other times than others;
	// "" if there is no need to.
	NoStretches string
}

// Route plans a statement for the groups of a view. It sends no requests. The other arguments,
// and the error, are as for New.
func Route(ctx context.Context, stmt *parser.EvalStmt, subqueryStep func(rangeMS int64) int64, v *view.View, o Options) (*Routed, error) {
	p := unplanned(stmt, subqueryStep)
	if o.NoParts != "" {
		return route(ctx, stmt, subqueryStep, v, o)
	}
	list, why := p.divide(stmt, v, o.Copies)
	switch {
	case len(list) == 1:
	case v.Request.WholeSeries:
		list, why = []stretch{{steps: p.Steps}}, "the answer may leave out groups that are missing"
	default:
		r := &Routed{Plan: p, View: v}
		if err := r.stretched(ctx, stmt, subqueryStep, list, o); err != nil || r.dividesWork() {
			return r, err
		}
		list, why = []stretch{{steps: p.Steps}}, "the groups would evaluate nothing but selectors, whose samples are fetched once"
	}
	r, err := list[0].route(ctx, stmt, subqueryStep, v, o)
	r.NoStretches = why
	return r, err
}

// route is Route for steps that are not divided.
func route(ctx context.Context, stmt *parser.EvalStmt, subqueryStep func(rangeMS int64) int64, v *view.View, o Options) (*Routed, error) {
	r := &Routed{View: v, NoParts: o.NoParts}
	if r.NoParts == "" {
		sels := selections(Leaves(stmt, subqueryStep))
		r.Partitions = partition.Of(v, sels)
		r.NoParts = r.whyNoParts(len(sels))
	}
	var err error
	o.NoParts, o.whyNotDisjoint = r.NoParts, r.remembered(o.NotDisjoint)
	r.Plan, err = New(ctx, stmt, subqueryStep, r.Layout(), o)
	return r, err
}

// Each returns the plans that are executed: those of the stretches, or the plan itself.
func (r *Routed) Each() []*Routed {
	if len(r.Stretches) > 0 {
		return r.Stretches
	}
	return []*Routed{r}
}

// NeedEveryGroup returns the matchers of the selectors of an expression that every group has to answer,
// in any stretch.
func (r *Routed) NeedEveryGroup(e parser.Expr) (needed [][]*labels.Matcher) {
	for _, one := range r.Each() {
		needed = append(needed, NeedEveryGroup(e, one.Layout())...)
	}
	return needed
}

// Divided returns the plan with its partitions, also if Options.NoParts is set.
func (r *Routed) Divided() *Routed {
	if len(r.Partitions) > 0 {
		return r
	}
	with := *r
	var sels []view.Selection
	for _, leaf := range r.Leaves {
		if leaf.Selector != nil {
			sels = append(sels, leaf.Selector.Selection)
		}
	}
	with.Partitions = partition.Of(r.View, sels)
	return &with
}

// selections are those of leaves that are selectors.
func selections(leaves []Leaf) (list []view.Selection) {
	for _, leaf := range leaves {
		list = append(list, leaf.Selector.Selection)
	}
	return list
}

// CountLost counts what servers could have evaluated, where the plan has no parts because of the
// configuration. delayedNames reports whether that has the feature of PromQL that allows none. A stretch
// that is less than half of the steps is not counted: where the time of one group ends and that of another
// begins, there are always some.
func (r *Routed) CountLost(delayedNames bool) {
	for _, one := range r.Each() {
		if _, selector := unwrap(one.Expr).(*parser.VectorSelector); selector || 2*one.Steps.Count() < r.Steps.Count() {
			continue
		}
		switch {
		case delayedNames:
			for _, p := range partition.Of(r.View, selections(one.Leaves)) {
				p.CountLost(pushdown.Features)
			}
		case len(one.Partitions) == 1 && !one.Partitions[0].Single():
			one.Partitions[0].CountLost(pushdown.Overlap)
		}
	}
}

// whyNoParts returns the reason why parts would bring nothing; "" if they may. They do where
// several partitions answer them in parallel, or where a replica can evaluate them.
func (r *Routed) whyNoParts(selectors int) string {
	switch {
	case selectors == 0:
		return "there are no selectors"
	case len(r.Partitions) == 0:
		return "no group is concerned"
	case len(r.Partitions) == 1 && !r.Partitions[0].Single():
		return "nothing is won: all groups concerned may hold the same series"
	}
	return ""
}

// Separable reports whether each series of an expression is made of the series of one partition,
// whatever the others have, and which of the labels that tell partitions apart its series carry.
func Separable(ctx context.Context, e parser.Expr, layout Layout) (carries []string, ok bool) {
	w := newWork(ctx)
	carries, ok = newPartitions(w, layout).distributive(e)
	return carries, ok && w.err == nil
}

// Layout returns how series are spread over the partitions.
func (r *Routed) Layout() Layout {
	var l Layout
	for i, p := range r.Partitions {
		l.Partitions = append(l.Partitions, p.Labels())
		if distinct := p.Distinct(); len(distinct) > 0 {
			if l.Distinct == nil {
				l.Distinct = make([][]string, len(r.Partitions))
			}
			l.Distinct[i] = distinct
		}
	}
	return l
}
