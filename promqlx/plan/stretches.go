package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/routing"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Where the time_range of groups ends, others hold the samples that a step needs than at the step
// before. So the steps of a query are divided into stretches, and each of them is planned by itself: an
// archive does not matter at steps whose windows it has no samples of. Groups that may hold the same
// series are merged only at steps that need samples of several of them.

const (
	// maxStretches is the most stretches that a query is divided into: each of them fetches or evaluates
	// the windows before its first step again.
	maxStretches = 8
	// maxCuts is the most steps at which it may begin or end to matter what a group holds. A stranger's
	// query may have any number of them.
	maxCuts = 100
)

// seamSlack (ms) is how far outside the time_range of a group a window may be and still count as
// inside: as far as a merge looks at samples of two holders to decide on those within the window.
const seamSlack = dedup.Margin

// stretch is a run of steps at which the same groups may hold the samples that a query needs.
type stretch struct {
	steps transport.Steps
	// alone reports whether none of these groups shares series with another one: then no samples
	// around the windows matter.
	alone bool
	// without are the groups, by rank, that are not asked although their time_range has samples of the
	// windows: others keep all that they have copies of, or they keep none. It is nil if there are none.
	without []bool
}

// divide returns the stretches of a plan, in the order of time. There is one, which is not alone, where
// a division would bring nothing, or might change the answer; why says so if there was need of one.
func (p *Plan) divide(stmt *parser.EvalStmt, v *view.View, asked Copies) (list []stretch, why string) {
	one := []stretch{{steps: p.Steps}}
	if !v.HasCopies() && !slices.ContainsFunc(v.Groups, func(g view.Group) bool { return !g.Config.TimeRange.IsZero() }) {
		return one, ""
	}
	reaches, indivisible := p.reaches(stmt)
	switch {
	case p.Steps.Count() <= 0 || len(reaches) == 0:
		return one, ""
	case indivisible != "":
		return one, indivisible
	case !v.Covers(selections(Leaves(stmt, p.subqueryStep))):
		return one, "no group holds all of a window"
	}
	holders := holdersOf(reaches, v, asked)
	cuts := p.cuts(holders)
	if len(cuts) > maxCuts {
		return one, fmt.Sprintf("other groups may matter at more than %d steps than before", maxCuts)
	}
	var out []stretch
	var before []*config.Group // of the last stretch
	for i, cut := range cuts {
		end := p.Steps.Count()
		if i+1 < len(cuts) {
			end = cuts[i+1]
		}
		st := p.Steps
		st.Start, st.End = p.Steps.Start+cut*st.Step, p.Steps.Start+(end-1)*st.Step
		there, without := needed(holders, st.Start, len(v.Groups))
		alone := len(there) > 0 && len(there) < len(holders) && len(routing.DisjointSets(there)) == len(there)
		if n := len(out) - 1; n >= 0 && out[n].alone == alone && (!alone || slices.Equal(there, before) && slices.Equal(without, out[n].without)) {
			out[n].steps.End = st.End
		} else {
			out = append(out, stretch{st, alone, without})
		}
		before = there
	}
	if len(out) > maxStretches {
		return one, fmt.Sprintf("there would be more than %d stretches", maxStretches)
	}
	return out, ""
}

// needed returns the groups whose samples a step at t (ms) may need, and by rank those of so many that it may
// not, although their time_range has such samples; nil if there are none of these.
func needed(holders []holder, t int64, groups int) (there []*config.Group, without []bool) {
	for _, h := range holders {
		switch {
		case h.touched(t, h.spans...):
			there = append(there, h.group.Config)
		case h.touched(t, h.all):
			if without == nil {
				without = make([]bool, groups)
			}
			without[h.group.Rank] = true
		}
	}
	return there, without
}

// cuts returns the steps, by index and sorted, from which on other holders matter than before; the first
// is one of them.
func (p *Plan) cuts(holders []holder) []int64 {
	cuts := []int64{0}
	for _, h := range holders {
		for _, t := range h.changes() {
			if i := ceilDiv(t-p.Steps.Start, p.Steps.Step); i > 0 && i < p.Steps.Count() {
				cuts = append(cuts, i)
			}
		}
	}
	slices.Sort(cuts)
	return slices.Compact(cuts)
}

// reaches returns what each step of a statement needs. indivisible says why answers to some of the steps
// may not be put together: where names are taken from series, the engine refuses those with equal labels
// although they have no step in common; it warns of the first quantile that is out of range, and of sorting
// unless there is one step; and info() selects series that no selector shows.
func (p *Plan) reaches(stmt *parser.EvalStmt) (list []partition.Reach, indivisible string) {
	switch {
	case stmt.Expr.Type() != parser.ValueTypeVector:
		indivisible = "the result is no vector"
	case oddQuantile(stmt.Expr):
		indivisible = "a quantile is not a literal from 0 to 1"
	}
	parser.Inspect(stmt.Expr, func(node parser.Node, _ []parser.Node) error {
		if call, is := node.(*parser.Call); is && (call.Func.Name == "info" || strings.HasPrefix(call.Func.Name, "sort")) {
			indivisible = call.Func.Name + "() looks at all steps at once"
		}
		if takesNames(node) {
			indivisible = "names are taken from series that may have several"
		}
		return nil
	})
	p.eachSelector(stmt.Expr, place{grid: rootOf(stmt), steps: p.Steps}, func(vs *parser.VectorSelector, at place) {
		if !slices.ContainsFunc(vs.LabelMatchers, func(m *labels.Matcher) bool {
			return m.Name == labels.MetricName && m.Type == labels.MatchEqual && m.Value != ""
		}) {
			indivisible = "a selector may find several names"
		}
		w := p.stepWindow(vs, at)
		if vs.Anchored || vs.Smoothed {
			w.From -= p.Steps.Lookback
		}
		if vs.Smoothed {
			w.To += p.Steps.Lookback
		}
		list = append(list, partition.Reach{Matchers: vs.LabelMatchers, From: w.From, To: w.To, Fixed: w.Fixed})
	})
	return list, indivisible
}

// takesNames reports whether an operation removes the names of series over all steps at once, and an operation
// below it may give them several, or may give several series the same labels.
func takesNames(node parser.Node) bool {
	var of parser.Node
	switch n := node.(type) {
	case *parser.UnaryExpr:
		of = n.Expr
	case *parser.SubqueryExpr:
		of = n.Expr
	default:
		return false
	}
	several := false
	parser.Inspect(of, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.BinaryExpr:
			several = several || n.Op == parser.LOR
		case *parser.Call:
			several = several || n.Func.Name == "label_replace" || n.Func.Name == "label_join"
		}
		return nil
	})
	return several
}

// holder is a group that may have series of a query.
type holder struct {
	group   view.Group
	all     evidence.Span   // its time_range
	spans   []evidence.Span // of the samples of it that matter
	reaches []partition.Reach
}

// holdersOf returns the groups that may have series that are needed, in the order of the configuration.
func holdersOf(reaches []partition.Reach, v *view.View, asked Copies) []holder {
	out := make([]holder, len(v.Groups))
	for i, g := range v.Groups {
		out[i].group = g
	}
	for _, r := range reaches {
		concerns := v.Concerns(r.Matchers)
		for i, g := range v.Groups {
			if !concerns(g) {
				continue
			}
			out[i].reaches = append(out[i].reaches, r)
			if len(g.Config.CopiesOf) > 0 {
				matter, _ := v.CopiesMatter(g, r.Matchers)
				out[i].spans = append(out[i].spans, matter...)
			}
		}
	}
	out = slices.DeleteFunc(out, func(h holder) bool { return len(h.reaches) == 0 })
	for i := range out {
		h := &out[i]
		h.all.From, h.all.To = h.group.Config.TimeRange.Bounds(v.Now)
		if len(h.group.Config.CopiesOf) == 0 {
			h.spans = []evidence.Span{{From: v.NoneBefore(h.group), To: config.MaxTime}}
		}
		h.spans = append(h.spans, asked.of(h.group, v)...)
		for j, s := range h.spans {
			h.spans[j] = evidence.Span{From: max(s.From, h.all.From), To: min(s.To, h.all.To)}
		}
		h.spans = slices.DeleteFunc(h.spans, func(s evidence.Span) bool { return s.From > s.To })
	}
	return out
}

// changes returns the times (ms) from which on a step may need samples of the group, or does not any more.
func (h holder) changes() (times []int64) {
	for _, r := range h.reaches {
		if r.Fixed {
			continue
		}
		for _, s := range h.spans {
			if s.From > config.MinTime {
				times = append(times, s.From-r.To-seamSlack)
			}
			if s.To < config.MaxTime {
				times = append(times, s.To-r.From+seamSlack)
			}
		}
	}
	return times
}

// touched reports whether a step at t (ms) may need samples of the group in some spans.
func (h holder) touched(t int64, spans ...evidence.Span) bool {
	return slices.ContainsFunc(h.reaches, func(r partition.Reach) bool {
		from, to := r.Window(t, t)
		return slices.ContainsFunc(spans, func(s evidence.Span) bool { return from-seamSlack <= s.To && to+seamSlack >= s.From })
	})
}

// Copies are the spans of time in which those who have copies of a group's samples are asked for them, by
// the group's name. The zero value has none.
type Copies struct{ spans map[string][]evidence.Span }

// maxCopySpans is the most of them: then copies are asked for at all times.
const maxCopySpans = 2 * maxStretches

// Ask adds what an execution has shown.
func (c *Copies) Ask(shown *partition.CopiesError) {
	if c.spans == nil {
		c.spans = map[string][]evidence.Span{}
	}
	known := c.spans[shown.Group]
	list := append(known, slices.DeleteFunc(slices.Clone(shown.Spans), func(s evidence.Span) bool { return slices.Contains(known, s) })...)
	if len(list) > maxCopySpans || len(list) == len(known) {
		list = []evidence.Span{{From: config.MinTime, To: config.MaxTime}}
	}
	c.spans[shown.Group] = list
}

// of returns the spans in which g is asked for copies.
func (c Copies) of(g view.Group, v *view.View) (list []evidence.Span) {
	for _, o := range v.Groups {
		if g.IsCopyOf(o) {
			list = append(list, c.spans[o.Config.Name]...)
		}
	}
	return list
}

// ceilDiv is a / b, rounded up.
func ceilDiv(a, b int64) int64 { return -floorDiv(-a, b) }

// stretched plans each of several stretches of a statement by itself.
func (r *Routed) stretched(ctx context.Context, stmt *parser.EvalStmt, subqueryStep func(int64) int64, list []stretch, o Options) error {
	r.Whole = textOf(stmt.Expr)
	r.Expr = &parser.VectorSelector{PosRange: stmt.Expr.PositionRange()}
	r.Leaves = []Leaf{{Stretches: true}}
	for _, s := range list {
		part := *stmt
		part.Start, part.End = time.UnixMilli(s.steps.Start), time.UnixMilli(s.steps.End)
		one, err := s.route(ctx, &part, subqueryStep, r.View, o)
		if err != nil {
			return err
		}
		r.Stretches = append(r.Stretches, one)
	}
	return nil
}

// dividesWork reports whether some stretch has a part that is more than a selector: the samples of
// selectors are fetched and merged once for all steps.
func (r *Routed) dividesWork() bool {
	return slices.ContainsFunc(r.Stretches, func(one *Routed) bool {
		return slices.ContainsFunc(one.Leaves, func(l Leaf) bool { return l.Part != nil && !l.Part.IsSelector() })
	})
}

// route plans the stretch. Groups with copies are asked if some selector is no part: only parts prove that
// they have all samples.
func (s stretch) route(ctx context.Context, stmt *parser.EvalStmt, subqueryStep func(int64) int64, v *view.View, o Options) (*Routed, error) {
	if !s.alone {
		return route(ctx, stmt, subqueryStep, v, o)
	}
	r, err := route(ctx, stmt, subqueryStep, v.Alone(s.without), o)
	if err == nil && s.without != nil && slices.ContainsFunc(r.Leaves, func(l Leaf) bool { return l.Part == nil && l.Selector != nil }) {
		return route(ctx, stmt, subqueryStep, v, o)
	}
	return r, err
}
