package servergroup

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

const (
	// holdsInterval is how often all groups are asked for series that `holds` says they lack.
	holdsInterval = 5 * time.Minute
	// holdsWindow is how far back they are asked.
	holdsWindow = 24 * time.Hour
	// holdsBytes bounds what is made of the response of one of them.
	holdsBytes = 8 << 20
)

// checkClaims compares `holds` and `copies_of` with the data after each change of the configuration, and
// every holdsInterval.
func (s *Set) checkClaims(ctx context.Context) {
	tick := time.NewTicker(holdsInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		case <-tick.C:
		}
		s.compareHolds(ctx)
		s.compareCopies(ctx)
	}
}

// compareHolds asks one replica of each group for series that another group says it alone holds.
// What they answer queries with is looked at, too: see view.Belief. A group that does not answer is
// asked again next time.
func (s *Set) compareHolds(ctx context.Context) {
	gen := s.current.Load()
	groups := gen.groups()
	if !slices.ContainsFunc(groups, func(g *group) bool { return len(g.cfg.Holds) > 0 }) {
		return
	}
	var lookups []func()
	seen := map[*entry]bool{} // groups of one entry say the same
	for _, holder := range groups {
		if seen[holder.entry] {
			continue
		}
		seen[holder.entry] = true
		says := view.Group{Config: holder.portions[0]}
		for _, other := range groups {
			if other.entry == holder.entry {
				continue
			}
			for _, ms := range says.Claims(other.portions[0]) {
				lookups = append(lookups, func() {
					if series, found := s.firstSeries(ctx, other, ms); found {
						now := s.opts.Now()
						holder.findings.Add("holds", view.ContradictHolds(&holder.entry.holding, ms, series, other.cfg.Name, now), now)
					}
				})
			}
		}
	}
	s.inBackground("comparing `holds` with the data", lookups)
}

// atOnce is how many lookups that no query waits for are made at once.
const atOnce = 4

// inBackground makes lookups that no query waits for, a few at once. what names them in the log.
func (s *Set) inBackground(what string, lookups []func()) {
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, f := range lookups {
		group.Go(func() error { return guard.Call(func() error { f(); return nil }) })
	}
	if err := group.Wait(); err != nil {
		s.opts.Logger.Error("lookups in the background failed", "lookups", what, "err", err)
	}
}

// lookUp asks a replica, by its profile, for something that no query waits for.
func lookUp(ctx context.Context, r *replica.Replica, ask func(context.Context, *replica.Profile) error) error {
	return r.Attempt(ctx, false, func(ctx context.Context) error {
		p, err := r.Ready(ctx)
		if err != nil {
			return err
		}
		return ask(ctx, p)
	})
}

// firstSeries returns a series of a group that matches, if one of its replicas tells of any.
func (s *Set) firstSeries(ctx context.Context, g *group, ms []*labels.Matcher) (labels.Labels, bool) {
	resolved := labelmap.Resolve(&g.cfg, ms)
	if resolved.Excluded != "" {
		return labels.EmptyLabels(), false
	}
	now := s.opts.Now()
	l := transport.Lookup{
		Matchers: labelmap.Selectable(resolved.Send), MinT: now.Add(-holdsWindow).UnixMilli(), MaxT: now.UnixMilli(),
		Charge: (&fanout.Budget{Limit: holdsBytes}).Charge,
	}
	if len(resolved.Check) == 0 {
		l.Limit = 1
	}
	for _, r := range fanout.UsableFirst(*g.replicas.Load()) {
		var list []labels.Labels
		err := lookUp(ctx, r, func(ctx context.Context, p *replica.Profile) (err error) {
			list, _, err = p.Client.Series(ctx, l)
			return err
		})
		if err == nil {
			return firstShown(&g.cfg, list, ms)
		}
	}
	return labels.EmptyLabels(), false
}

// firstShown returns the first series that matches with the labels to show.
func firstShown(cfg *config.Group, list []labels.Labels, ms []*labels.Matcher) (labels.Labels, bool) {
	rules := labelmap.NewRules(cfg, nil)
	for _, raw := range list {
		if shown, _ := rules.ApplyTo(raw); labelmap.MatchesAll(shown, ms) {
			return shown, true
		}
	}
	return labels.EmptyLabels(), false
}
