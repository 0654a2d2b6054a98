package explain

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// New explains the plan of a query and, unless trace is nil, its execution.
func New(query string, p *plan.Routed, trace *Trace) *Explanation {
	d := describer{plan: p, trace: trace}
	out := &Explanation{
		Query: query, Steps: stepsOf(p.Steps), LookbackDelta: seconds(p.Steps.Lookback),
		PlanDigest: Digest(p), Parts: []Part{}, Selectors: []Selector{},
	}
	if len(p.Stretches) > 0 {
		out.Expression = p.Whole
		for _, stretch := range p.Stretches {
			out.Stretches = append(out.Stretches, New(query, stretch, trace.Of(stretch)))
		}
		return out
	}
	out.NoStretches = p.NoStretches
	for _, n := range p.NotWhole {
		out.NotWhole = append(out.NotWhole, NotWhole{Expression: n.Aggregation, Why: n.Why})
	}
	fetches := trace.fetched(nil)
	names := make([]string, len(p.Leaves)) // "" if not a part
	for i, leaf := range p.Leaves {
		if leaf.Part != nil {
			names[i] = "$" + strconv.Itoa(len(out.Parts)+1)
			out.Parts = append(out.Parts, d.part(names[i], leaf.Part))
			continue
		}
		s := d.selector(*leaf.Selector)
		if !s.Unused && len(fetches) > 0 {
			s.Fetch, fetches = &fetches[0], fetches[1:]
		}
		out.Selectors = append(out.Selectors, s)
	}
	for i, f := range trace.lastFetches(len(fetches)) {
		s := d.selector(plan.Selector{Selection: f.selection})
		s.Fetch = &fetches[i]
		out.Selectors = append(out.Selectors, s)
	}
	if out.Expression = p.Expression(names); len(out.Parts) == 0 {
		out.NoParts = cmp.Or(p.NoParts, "nothing in it can be answered by each partition alone")
	}
	return out
}

// describer describes a plan and its execution.
type describer struct {
	plan  *plan.Routed
	trace *Trace // nil: there was no execution
}

func (d describer) part(name string, p *plan.Part) Part {
	out := Part{
		Name: name, Expression: p.ShownText(), Why: p.Why, Steps: stepsOf(p.Steps),
		Carries: append([]string{}, p.Carries...), ByTarget: p.ByTarget, ByName: p.ByName, Selectors: []Selector{},
		Partitions: []Partition{},
	}
	for _, s := range p.Selectors {
		out.Selectors = append(out.Selectors, d.selector(s))
	}
	for _, partition := range d.plan.Partitions {
		out.Partitions = append(out.Partitions, d.partition(p, partition))
	}
	return out
}

func (d describer) partition(p *plan.Part, partition *partition.Partition) Partition {
	out := Partition{Labels: partition.Labels()}
	for _, m := range partition.Members() {
		member := Member{Name: m.Name, Series: m.Series}
		if n := m.Replicas; n >= 0 {
			member.Replicas = &n
		}
		out.Groups = append(out.Groups, member)
	}
	switch {
	case p.Steps.Count() <= 0:
		out.Skipped = "there are no steps"
	case !p.Concerns(partition):
		out.Skipped = unconcerned(p, partition)
	case d.trace != nil:
		out.Pieces, out.Failed = d.trace.piecesOf(p, partition)
	default:
		out.Outlook = outlookOf(p, partition)
	}
	return out
}

// unconcerned returns the reasons why a partition holds no series of a part.
func unconcerned(p *plan.Part, partition *partition.Partition) string {
	var whys []string
	for _, s := range p.Selectors {
		whys = append(whys, partition.Unconcerned(s.Selection))
	}
	return strings.Join(whys, "; ")
}

// outlookOf describes how a partition may answer a part.
func outlookOf(p *plan.Part, partition *partition.Partition) *Outlook {
	o := partition.Outlook(p.Need())
	out := &Outlook{Execution: Locally, Why: o.Why}
	if !o.Remote {
		return out
	}
	text, err := p.TextFor(partition.Labels(), partition.Matchers)
	if err != nil {
		out.Why = err.Error()
		return out
	}
	out.Execution, out.Text = Remotely, text
	return out
}

func (d describer) selector(s plan.Selector) Selector {
	out := Selector{
		Selector: transport.Selector(s.Matchers), MinTime: seconds(s.MinT), MaxTime: seconds(s.MaxT), Unused: s.Unused,
		Groups: []Route{},
	}
	if s.Steps != nil {
		st := stepsOf(*s.Steps)
		out.Steps = &st
	}
	if s.Unused {
		return out
	}
	for _, r := range d.plan.View.Routes(s.Selection) {
		route := Route{Name: r.Group, Region: r.Region, Asked: r.Skipped == "", Because: r.Because, Skipped: r.Skipped}
		if route.Asked && len(r.Only) > 0 {
			route.Only = transport.Selector(r.Only)
		}
		out.Groups = append(out.Groups, route)
	}
	return out
}

func stepsOf(s transport.Steps) Steps {
	out := Steps{Start: seconds(s.Start), End: seconds(s.End), Step: seconds(s.Step), Count: s.Count()}
	if out.Count == 1 {
		out.Step = 0
	}
	return out
}
