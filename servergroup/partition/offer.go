package partition

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/audit"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// offer lets the answer of a replica alone be audited once the query of ctx is over. reaches returns
// the reaches whose samples the answer was made of. It is called if the answer is drawn.
func (p *Piece) offer(ctx context.Context, by *replica.Replica, reaches func() []Reach) {
	g := p.partition.members[0]
	if len(g.Replicas) == 1 {
		return
	}
	g.Audits.Offer(ctx, func() audit.Answer {
		a := audit.Answer{Replica: by, Generation: p.generations[by], Replicas: g.Replicas}
		for _, r := range reaches() {
			sel := audit.Selection{Matchers: slices.Concat(g.With(r.Matchers), g.Config.Only(), p.narrowed)}
			for _, turn := range p.Turns {
				from, to := r.Window(turn.Start, turn.End)
				sel.Windows = append(sel.Windows, evidence.Span{From: from, To: to})
			}
			a.Selections = append(a.Selections, sel)
		}
		return a
	})
}

// reachesOf returns the reaches of a selector.
func (p *Piece) reachesOf(ms []*labels.Matcher) []Reach {
	var out []Reach
	for _, r := range p.reaches {
		if len(r.Matchers) == len(ms) && !slices.ContainsFunc(ms, func(m *labels.Matcher) bool {
			return !slices.ContainsFunc(r.Matchers, func(o *labels.Matcher) bool { return o.String() == m.String() })
		}) {
			out = append(out, r)
		}
	}
	return out
}
