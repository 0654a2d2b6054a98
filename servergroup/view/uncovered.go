package view

import (
	"slices"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/routing"
)

// Uncovered returns warnings about the windows of a selection that no group holds, or an error
// if the answer must not be partial.
func (v *View) Uncovered(sel Selection) (annotations.Annotations, error) {
	holes, admitted := v.holes(sel)
	var ws annotations.Annotations
	gone := &completeness.UnavailableError{}
	strict := false
	for _, g := range holes {
		for _, name := range g.Groups {
			i := slices.IndexFunc(admitted, func(cfg *config.Group) bool { return cfg.Name == name })
			strict = strict || v.Strict(admitted[i])
			v.Ledger.AddUncovered(completeness.Group{Name: name, Region: admitted[i].Region}, g.From, g.To, g.String())
		}
		gone.Lacks = append(gone.Lacks, completeness.Lack{Group: g.Groups[0], Reason: g.String()})
		ws.Add(&completeness.UncoveredWarning{Reason: g.String()})
	}
	if strict {
		return ws, gone
	}
	return ws, nil
}

// Covers reports whether there are no windows of some selections that no group holds.
func (v *View) Covers(sels []Selection) bool {
	return !slices.ContainsFunc(sels, func(sel Selection) bool {
		holes, _ := v.holes(sel)
		return len(holes) > 0
	})
}

// holes returns the windows of a selection that no group holds, and the groups that it concerns.
func (v *View) holes(sel Selection) (holes []routing.Hole, admitted []*config.Group) {
	var all []*config.Group
	for _, g := range v.Groups {
		all = append(all, g.Config)
	}
	for _, g := range v.among(v.Groups, sel.Matchers) {
		admitted = append(admitted, g.Config)
	}
	return routing.Holes(admitted, all, sel.MinT, sel.MaxT, v.Now), admitted
}
