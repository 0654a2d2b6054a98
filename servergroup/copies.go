package servergroup

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

const (
	// copiesWindow is how far back copies are compared with what they are copies of.
	copiesWindow = 24 * time.Hour
	// copiesSlack is how far the clocks of those who write samples may differ.
	copiesSlack = 10 * time.Minute
	// mostSurplus is how many series are looked at that seem to be surplus.
	mostSurplus = 20
	// copiesBytes bounds what is made of the responses of one comparison.
	copiesBytes = 32 << 20
)

// compareCopies looks in each group with `copies_of` for metrics, and for targets, that the groups which
// it has copies of lack: in the last day, as far as these keep their samples. Where somebody does not
// answer, nothing is found, until next time.
func (s *Set) compareCopies(ctx context.Context) {
	var lookups []func()
	groups := s.current.Load().groups()
	for _, g := range groups {
		if len(g.cfg.CopiesOf) > 0 {
			lookups = append(lookups, func() {
				if series, found := s.surplus(ctx, g, groups); found {
					now := s.opts.Now()
					g.findings.Add("copies_of", view.ContradictCopies(&g.entry.copying, g.cfg.CopiesOf, series, now), now)
				}
			})
		}
	}
	s.inBackground("comparing copies with what they are copies of", lookups)
}

// surplus returns a series of a group with copies that none of those has which it has copies of. Of a
// metric that none of them has it returns the name alone.
func (s *Set) surplus(ctx context.Context, g *group, groups []*group) (none labels.Labels, found bool) {
	originals, since, ok := s.originalsOf(ctx, g, groups)
	from, to := since.Add(2*copiesSlack).UnixMilli(), evidence.Settled(s.opts.Now())
	if !ok || from > to {
		return none, false
	}
	budget := &fanout.Budget{Limit: copiesBytes}
	copies := transport.Lookup{MinT: from, MaxT: to, Charge: budget.Charge}
	own := copies
	own.MinT, own.MaxT = from-copiesSlack.Milliseconds(), s.opts.Now().UnixMilli()
	finds := []findFunc{scrapedBy}
	others, ok := g.cfg.NotHeld()
	switch resolved := labelmap.Resolve(&g.cfg, others); {
	case resolved.Excluded != "": // it holds all of its series alone
		return none, false
	case ok && len(resolved.Check) == 0: // else matchers cannot leave out the metrics that only `holds` has
		finds = append(finds, metricsOf)
	}
	for _, find := range finds {
		known := map[string]bool{}
		for _, o := range originals {
			for _, r := range *o.replicas.Load() {
				list, err := find(ctx, o, r, nil, own)
				if err != nil {
					return none, false
				}
				for _, ls := range list {
					known[ls.String()] = true
				}
			}
		}
		for _, r := range *g.replicas.Load() {
			list, err := find(ctx, g, r, others, copies)
			if err != nil {
				return none, false
			}
			list = slices.DeleteFunc(list, func(ls labels.Labels) bool { return known[ls.String()] })
			for _, ls := range list[:min(len(list), mostSurplus)] {
				if has, err := hasSamples(ctx, g, r, ls, others, copies); has || err != nil {
					return ls, has
				}
			}
		}
	}
	return none, false
}

// originalsOf returns the groups that a group has copies of, and since when in the last day they keep all of
// their samples. It is not ok if that is not known.
func (s *Set) originalsOf(ctx context.Context, g *group, groups []*group) (originals []*group, since time.Time, ok bool) {
	since = s.opts.Now().Add(-copiesWindow)
	for _, o := range groups {
		if !slices.Contains(g.cfg.CopiesOf, o.entry.cfg.Name) {
			continue
		}
		originals = append(originals, o)
		for _, r := range *o.replicas.Load() {
			if _, err := r.Ready(ctx); err != nil {
				return nil, since, false
			}
			kept, _, current := r.Kept()
			if !current {
				return nil, since, false
			}
			if t := time.UnixMilli(kept.Since); t.After(since) {
				since = t
			}
		}
	}
	return originals, since, true
}

// findFunc finds something that a replica has in the window of a lookup, among the series that match.
type findFunc func(ctx context.Context, g *group, r *replica.Replica, ms []*labels.Matcher, l transport.Lookup) ([]labels.Labels, error)

// metricsOf finds the names of metrics, as series without other labels.
func metricsOf(ctx context.Context, g *group, r *replica.Replica, ms []*labels.Matcher, l transport.Lookup) (list []labels.Labels, err error) {
	if len(ms) > 0 {
		l.Matchers = sent(g, ms)
	}
	err = lookUp(ctx, r, func(ctx context.Context, p *replica.Profile) error {
		names, warnings, err := p.Client.LabelValues(ctx, labels.MetricName, l)
		for _, name := range names {
			list = append(list, labels.FromStrings(labels.MetricName, name))
		}
		return orIncomplete(err, r, warnings)
	})
	return list, err
}

// scrapedBy finds the series `up`, with the labels to show.
func scrapedBy(ctx context.Context, g *group, r *replica.Replica, ms []*labels.Matcher, l transport.Lookup) (list []labels.Labels, err error) {
	l.Matchers = sent(g, slices.Concat(evidence.MatchUp, ms))
	rules := labelmap.NewRules(&g.cfg, nil)
	err = lookUp(ctx, r, func(ctx context.Context, p *replica.Profile) error {
		raw, warnings, err := p.Client.Series(ctx, l)
		for _, one := range raw {
			shown, _ := rules.ApplyTo(one)
			list = append(list, shown)
		}
		return orIncomplete(err, r, warnings)
	})
	return list, err
}

// hasSamples reports whether a replica has samples of a series, or of some series of a metric that match, in
// the window of a lookup. Those find what is near the window, too.
func hasSamples(ctx context.Context, g *group, r *replica.Replica, ls labels.Labels, ms []*labels.Matcher, l transport.Lookup) (has bool, err error) {
	ms = slices.Clone(ms)
	ls.Range(func(one labels.Label) {
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, one.Name, one.Value))
	})
	const step = 5 * 60 * 1000
	steps := transport.Steps{Start: l.MinT - l.MinT%step + step, End: l.MaxT - l.MaxT%step, Step: step, Lookback: step}
	err = lookUp(ctx, r, func(ctx context.Context, p *replica.Profile) error {
		list, err := p.Client.CountSeries(ctx, sent(g, ms), steps, l.Charge)
		has = len(list) > 0
		return err
	})
	return has, err
}

// sent returns matchers as the replicas of a group are asked with them.
func sent(g *group, ms []*labels.Matcher) []*labels.Matcher {
	return labelmap.Selectable(labelmap.Resolve(&g.cfg, ms).Send)
}

// orIncomplete returns the error of a lookup, or one for its warnings.
func orIncomplete(err error, r *replica.Replica, warnings []string) error {
	if err == nil && len(warnings) > 0 {
		return fmt.Errorf("%s: %s", r.URL(), warnings[0])
	}
	return err
}
