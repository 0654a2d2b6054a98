package plan

import (
	"slices"

	"github.com/oneprom/oneprom/servergroup"
)

// Concerns reports whether a partition may hold series of the part.
func (p *Part) Concerns(partition *servergroup.Partition) bool {
	return slices.ContainsFunc(p.Selectors, func(s Selector) bool { return partition.Concerns(s.Selection) })
}

// Window bounds the samples (ms, inclusive) that the part needs.
func (p *Part) Window() (mint, maxt int64) {
	mint, maxt = p.Selectors[0].MinT, p.Selectors[0].MaxT
	for _, s := range p.Selectors[1:] {
		mint, maxt = min(mint, s.MinT), max(maxt, s.MaxT)
	}
	return mint, maxt
}

// Need is what the part wants of a partition.
func (p *Part) Need() servergroup.Need {
	need := servergroup.Need{Steps: p.Steps, ByTarget: p.ByTarget, ByName: p.ByName}
	for i, s := range p.Selectors {
		r := p.Reaches[i]
		need.Reaches = append(need.Reaches, servergroup.Reach{Matchers: s.Matchers, From: r.From, To: r.To, Fixed: r.Fixed})
	}
	return need
}
