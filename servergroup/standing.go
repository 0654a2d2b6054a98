package servergroup

import (
	"errors"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
)

// This file keeps the parts of an answer consistent: a group that fails while a query is
// under way must not be in one of them and missing from another. An average would else
// be the sum over some groups divided by the count over others.

// Missing are groups that a query does without, by name, with why.
type Missing map[string]error

// standing is what has become of a group in one query.
type standing struct {
	answered bool
	failed   error
}

// Without has the view take groups for missing without asking them.
func (v *View) Without(missing Missing) { v.without = missing }

// stands is told what has become of a group in a part of a query: err is nil if it has
// answered.
func (v *View) stands(g *config.Group, err error) {
	v.mtx.Lock()
	defer v.mtx.Unlock()
	if v.standings == nil {
		v.standings = map[string]standing{}
	}
	s := v.standings[g.Name]
	if s.answered = s.answered || err == nil; err != nil {
		s.failed = err
	}
	v.standings[g.Name] = s
}

// settled takes in what has become of the groups of which a selection was wanted.
func (v *View) settled(sel Selection) func(outcome) {
	return func(o outcome) {
		switch {
		case o.missing():
			v.stands(o.group, o.why())
		default:
			v.stands(o.group, nil)
		}
		if o.partial() {
			v.lacks(o.group, sel.MinT, sel.MaxT, o.String())
		}
	}
}

// Torn returns the groups that have answered in one part of the query and failed in
// another, with those that were missing from the beginning. There are none if all parts
// are of the same groups.
func (v *View) Torn() Missing {
	v.mtx.Lock()
	defer v.mtx.Unlock()
	out := Missing{}
	for name, s := range v.standings {
		if s.answered && s.failed != nil {
			out[name] = s.failed
		}
	}
	if len(out) > 0 {
		maps.Copy(out, v.without)
	}
	return out
}

// Needs is an error if a group is missing that a selector concerns, or may be: what is
// made of it cannot be told of a part of the groups.
func (v *View) Needs(ms []*labels.Matcher) error {
	missing := &UnavailableError{}
	for _, gap := range v.Gaps() {
		i := slices.IndexFunc(v.groups, func(g groupView) bool { return g.cfg.Name == gap.Group })
		if i >= 0 && !gap.nobodys && !labelmap.Excludes(v.groups[i].cfg, ms) {
			missing.Groups = append(missing.Groups, gap.Reason)
		}
	}
	if len(missing.Groups) == 0 {
		return nil
	}
	missing.Groups[0] = "what the query asks cannot be told of a part of the data: " + missing.Groups[0]
	return missing
}

// Stands is told what has become of the partition in a part of a query: err is nil if it
// has answered. Of several groups that are merged, the fetches tell. The samples from mint
// to maxt (ms) were wanted.
func (p *Partition) Stands(err error, mint, maxt int64) {
	var gone *UnavailableError
	switch {
	case !p.Single():
	case err == nil:
		p.view.stands(p.members[0].cfg, nil)
	case errors.As(err, &gone) && len(gone.failed) > 0:
		p.view.stands(p.members[0].cfg, together(gone.failed))
		p.view.lacks(p.members[0].cfg, mint, maxt, gone.Error())
	}
}

// Missing is the error of a partition of which all groups are taken for missing, nil if
// some are not.
func (p *Partition) Missing() error {
	gone := &UnavailableError{}
	for _, g := range p.members {
		err := p.view.without[g.cfg.Name]
		if err == nil {
			return nil
		}
		o := outcome{group: g.cfg, asked: 1, failed: []error{err}, quiet: g.restricted()}
		gone.Groups, gone.failed = append(gone.Groups, o.String()), append(gone.failed, err)
	}
	return gone
}
