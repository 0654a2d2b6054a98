package partition

import (
	"context"
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Member is a group of a partition.
type Member struct {
	Name string
	// Replicas is how many there are; -1 if only service discovery finds them.
	Replicas int
	// Series says which of its series are meant, where `holds` divides it; "" for all.
	Series string
}

// Members returns the groups of the partition, in the order of the configuration.
func (p *Partition) Members() []Member {
	out := make([]Member, len(p.members))
	for i, g := range p.members {
		out[i] = Member{Name: g.Config.Name, Replicas: len(g.Replicas)}
		if g.Undiscovered() {
			out[i].Replicas = -1
		}
		switch portion := g.Config.Portion; {
		case portion == nil:
		case portion.Held:
			out[i].Series = "only " + transport.Selector(portion.Only)
		case portion.Rest:
			out[i].Series = "without " + strings.Join(g.Config.Holds, " and ")
		}
		if out[i].Series != "" && g.Restricted() { // `holds` may name others' series
			out[i].Series = completeness.Withheld
		}
	}
	return out
}

// Unconcerned returns why the partition cannot hold series of a selection; "" if it may.
func (p *Partition) Unconcerned(sel view.Selection) (why string) {
	for _, g := range p.members {
		if why = g.Resolve(sel.Matchers).Excluded; why == "" {
			return ""
		}
	}
	return why
}

// Outlook is how a partition will answer a part, as far as that is known without any request.
type Outlook struct {
	// Remote reports whether a replica may evaluate the part.
	Remote bool
	// Why is which replica that is and what it depends on, or why the part is evaluated in
	// oneprom.
	Why string
}

// evaluatesAsHere is the condition that only a probe of the replica can decide.
const evaluatesAsHere = ", if probing shows that it evaluates as here"

// Outlook returns what Choose and Local will do, as far as the configuration decides it.
func (p *Partition) Outlook(n Need) Outlook {
	g := p.members[0]
	off := p.off()
	switch {
	case len(p.members) == 1 && p.holds(n) && g.Undiscovered() && g.Config.Replicas == config.MergeAll:
		return p.remote(off, "the only replica, if service discovery finds just one"+evaluatesAsHere)
	case len(p.members) == 1 && p.holds(n) && g.Undiscovered():
		return p.remote(off, "at each step the first discovered replica that is whole"+evaluatesAsHere)
	case p.compares(n):
		return p.remote(off, fmt.Sprintf("at each step the first of %d replicas that is whole%s", len(g.Replicas), evaluatesAsHere))
	}
	pieces, err := p.Choose(context.Background(), n) // sends no requests where there is nothing to compare
	switch {
	case err != nil:
		return Outlook{Why: err.Error()}
	case pieces[0].single == nil:
		return Outlook{Why: pieces[0].Why}
	}
	return p.remote(off, pieces[0].Why+evaluatesAsHere)
}

// remote returns an Outlook of pushdown, unless that is off.
func (p *Partition) remote(off bool, why string) Outlook {
	if off {
		return Outlook{Why: "pushdown: off"}
	}
	return Outlook{Remote: true, Why: why}
}

// compares reports whether Choose compares what replicas have missed.
func (p *Partition) compares(n Need) bool {
	g := p.members[0]
	return len(p.members) == 1 && len(g.Replicas) > 1 && g.Config.Replicas != config.MergeAll && p.holds(n)
}

// holds reports whether the time_range of the first group holds all that is needed.
func (p *Partition) holds(n Need) bool {
	lo, hi := p.members[0].Config.TimeRange.Bounds(p.view.Now)
	for _, r := range n.Reaches {
		if from, to := r.Window(n.Steps.Start, n.Steps.End); from < lo || to > hi {
			return false
		}
	}
	return true
}

// Matchers returns the matchers of a selector for a replica of the partition, which must be one
// group. See Piece.Matchers.
func (p *Partition) Matchers(ms []*labels.Matcher) (send []*labels.Matcher, ok bool) {
	return (&Piece{partition: p}).Matchers(ms)
}
