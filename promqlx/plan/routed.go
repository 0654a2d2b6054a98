package plan

import (
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/servergroup"
)

// Routed is a plan for the groups that a query sees.
type Routed struct {
	*Plan
	View *servergroup.View
	// Partitions are those that a selector of the query concerns, which answer the parts.
	// There are none where Options.NoParts is set.
	Partitions []*servergroup.Partition
	// NoParts is the reason why there are no parts; "" if there may be.
	NoParts string
}

// Route plans a statement for the groups of a view. It asks nobody. The other arguments
// are those of New.
func Route(stmt *parser.EvalStmt, subqueryStep func(rangeMS int64) int64, view *servergroup.View, o Options) *Routed {
	r := &Routed{View: view, NoParts: o.NoParts}
	if r.NoParts == "" {
		var sels []servergroup.Selection
		for _, s := range Selectors(stmt, subqueryStep) {
			sels = append(sels, s.Selection)
		}
		r.Partitions = view.Partitions(sels)
		r.NoParts = r.notWorth(len(sels))
	}
	r.Plan = New(stmt, subqueryStep, r.Layout(), Options{NoParts: r.NoParts, Divided: o.Divided})
	return r
}

// notWorth says why nothing is won by parts: they are worth it where several partitions
// answer them in parallel, or where a backend may. It is "" if they are.
func (r *Routed) notWorth(selectors int) string {
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

// Layout says how the series of the partitions are spread.
func (r *Routed) Layout() Layout {
	var l Layout
	for _, p := range r.Partitions {
		l.Partitions = append(l.Partitions, p.Labels())
	}
	return l
}
