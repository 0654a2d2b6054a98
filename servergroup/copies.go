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

var ofTargets = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "up")}

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
func (s *Set) surplus(ctx context.Context, g *group, groups []*group) (labels.Labels, bool) {
	now := s.opts.Now()
	since := now.Add(-copiesWindow)
	var originals []*group
	for _, o := range groups {
		if !slices.Contains(g.cfg.CopiesOf, o.entry.cfg.Name) {
			continue
		}
		originals = append(originals, o)
		for _, r := range *o.replicas.Load() {
			if _, err := r.Ready(ctx); err != nil {
				return labels.EmptyLabels(), false
			}
			kept, _, current := r.Kept()
			if !current {
				return labels.EmptyLabels(), false
			}
			if t := time.UnixMilli(kept.Since); t.After(since) {
				since = t
			}
		}
	}
	from, to := since.Add(2*copiesSlack).UnixMilli(), evidence.Settled(now)
	if from > to {
		return labels.EmptyLabels(), false
	}
	budget := &fanout.Budget{Limit: copiesBytes}
	copies := transport.Lookup{MinT: from, MaxT: to, Charge: budget.Charge}
	own := copies
	own.MinT, own.MaxT = from-copiesSlack.Milliseconds(), now.UnixMilli()
	for _, find := range []func(context.Context, *group, *replica.Replica, transport.Lookup) ([]labels.Labels, error){metricsOf, scrapedBy} {
		known := map[string]bool{}
		for _, o := range originals {
			for _, r := range *o.replicas.Load() {
				list, err := find(ctx, o, r, own)
				if err != nil {
					return labels.EmptyLabels(), false
				}
				for _, ls := range list {
					known[ls.String()] = true
				}
			}
		}
		for _, r := range *g.replicas.Load() {
			list, err := find(ctx, g, r, copies)
			if err != nil {
				return labels.EmptyLabels(), false
			}
			list = slices.DeleteFunc(list, func(ls labels.Labels) bool { return known[ls.String()] })
			for _, ls := range list[:min(len(list), mostSurplus)] {
				if has, err := hasSamples(ctx, g, r, ls, copies); has || err != nil {
					return ls, has
				}
			}
		}
	}
	return labels.EmptyLabels(), false
}

// metricsOf returns the names of the metrics of a replica, as series without other labels. Those that only
// series have which `holds` names are left out.
func metricsOf(ctx context.Context, g *group, r *replica.Replica, l transport.Lookup) (list []labels.Labels, err error) {
	others, ok := g.cfg.NotHeld()
	resolved := labelmap.Resolve(&g.cfg, others)
	if !ok || resolved.Excluded != "" || len(resolved.Check) > 0 {
		return nil, nil // matchers cannot leave them out
	}
	if len(others) > 0 {
		l.Matchers = labelmap.Selectable(resolved.Send)
	}
	err = r.Attempt(ctx, false, func(ctx context.Context) error {
		p, err := r.Ready(ctx)
		if err != nil {
			return err
		}
		names, warnings, err := p.Client.LabelValues(ctx, labels.MetricName, l)
		if err == nil && len(warnings) > 0 {
			err = fmt.Errorf("%s: %s", r.URL(), warnings[0])
		}
		for _, name := range names {
			list = append(list, labels.FromStrings(labels.MetricName, name))
		}
		return err
	})
	return list, err
}

// scrapedBy returns the series `up` of a replica, with the labels to show.
func scrapedBy(ctx context.Context, g *group, r *replica.Replica, l transport.Lookup) (list []labels.Labels, err error) {
	resolved := labelmap.Resolve(&g.cfg, ofTargets)
	l.Matchers = labelmap.Selectable(resolved.Send)
	rules := labelmap.NewRules(&g.cfg, nil)
	err = r.Attempt(ctx, false, func(ctx context.Context) error {
		p, err := r.Ready(ctx)
		if err != nil {
			return err
		}
		raw, warnings, err := p.Client.Series(ctx, l)
		if err == nil && len(warnings) > 0 {
			err = fmt.Errorf("%s: %s", r.URL(), warnings[0])
		}
		for _, one := range raw {
			shown, _ := rules.ApplyTo(one)
			list = append(list, shown)
		}
		return err
	})
	return list, err
}

// hasSamples reports whether a replica has samples of a series in the window of a lookup, or of a metric if
// the series has no other labels: lookups find what is near the window, too.
func hasSamples(ctx context.Context, g *group, r *replica.Replica, ls labels.Labels, l transport.Lookup) (has bool, err error) {
	var ms []*labels.Matcher
	ls.Range(func(one labels.Label) {
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, one.Name, one.Value))
	})
	if len(ms) == 1 {
		others, _ := g.cfg.NotHeld()
		ms = append(ms, others...)
	}
	const step = 5 * 60 * 1000
	steps := transport.Steps{Start: l.MinT - l.MinT%step + step, End: l.MaxT - l.MaxT%step, Step: step, Lookback: step}
	err = r.Attempt(ctx, false, func(ctx context.Context) error {
		p, err := r.Ready(ctx)
		if err != nil {
			return err
		}
		list, err := p.Client.CountSeries(ctx, labelmap.Selectable(labelmap.Resolve(&g.cfg, ms).Send), steps, l.Charge)
		has = len(list) > 0
		return err
	})
	return has, err
}
