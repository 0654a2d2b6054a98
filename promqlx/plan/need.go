package plan

import (
	"slices"

	"github.com/oneprom/oneprom/servergroup/partition"
)

// Concerns reports whether a partition may hold series of the part.
func (p *Part) Concerns(partition *partition.Partition) bool {
	return slices.ContainsFunc(p.Selectors, func(s Selector) bool { return partition.Concerns(s.Selection) })
}

// Window returns the bounds (ms, inclusive) of the samples that the part needs.
func (p *Part) Window() (mint, maxt int64) {
	mint, maxt = p.Selectors[0].MinT, p.Selectors[0].MaxT
	for _, s := range p.Selectors[1:] {
		mint, maxt = min(mint, s.MinT), max(maxt, s.MaxT)
	}
	return mint, maxt
}

// Need returns what the part needs of a partition.
func (p *Part) Need() partition.Need {
	need := partition.Need{Steps: p.Steps, ByTarget: p.ByTarget, ByName: p.ByName}
	for i, s := range p.Selectors {
		w := p.StepWindows[i]
		need.Reaches = append(need.Reaches, partition.Reach{Matchers: s.Matchers, From: w.From, To: w.To, Fixed: w.Fixed})
	}
	return need
}
