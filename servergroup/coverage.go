package servergroup

import (
	"errors"
	"slices"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/routing"
)

// Uncovered says what nobody holds of a selection: as warnings, or as an error
// where an answer must not be partial.
func (v *View) Uncovered(sel Selection) (annotations.Annotations, error) {
	var admitted, all []*config.Group
	for _, g := range v.groups {
		all = append(all, g.cfg)
		if !labelmap.Excludes(g.cfg, sel.Matchers) {
			admitted = append(admitted, g.cfg)
		}
	}
	var ws annotations.Annotations
	var texts []string
	strict := false
	for _, g := range routing.Holes(admitted, all, sel.MinT, sel.MaxT, v.now) {
		for _, name := range g.Groups {
			i := slices.IndexFunc(admitted, func(cfg *config.Group) bool { return cfg.Name == name })
			strict = strict || v.strict(admitted[i])
			v.completeness.add(Gap{Group: name, Region: admitted[i].Region, From: g.From, To: g.To, Reason: g.String(), nobodys: true})
		}
		texts = append(texts, g.String())
		ws.Add(errors.New(partialText + g.String()))
	}
	if strict {
		return ws, &UnavailableError{Groups: texts}
	}
	return ws, nil
}
