package servergroup

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// Lookup selects series for what tells of series and not of samples: their
// labels, and the names and values of these.
type Lookup struct {
	Matchers []*labels.Matcher
	// MinT and MaxT bound the time (ms, inclusive) in which a series must exist.
	MinT, MaxT int64
	// Limit is the most results wanted, 0 for all.
	Limit int
}

// gather asks every replica concerned and unites what ask returns, by value.
func gather[T any](ctx context.Context, v *View, l Lookup, compare func(a, b T) int,
	ask func(ctx context.Context, t *target, c *transport.Client, tl transport.Lookup) ([]T, []string, error),
) ([]T, annotations.Annotations, error) {
	ts := v.route(l.Matchers, l.MinT, l.MaxT)
	answers := make([][][]T, len(ts))
	warnings := make([][][]string, len(ts))
	for i := range ts {
		answers[i], warnings[i] = make([][]T, len(ts[i].replicas)), make([][]string, len(ts[i].replicas))
	}
	outcomes, err := v.each(ctx, ts, func(ctx context.Context, i, j int) (err error) {
		t := &ts[i]
		tl := transport.Lookup{Matchers: t.route.resolved.send, MinT: t.route.MinT, MaxT: t.route.MaxT, Limit: l.Limit, Charge: v.budget.charge}
		answers[i][j], warnings[i][j], err = ask(ctx, t, t.replicas[j].client, tl)
		return err
	})
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	ws, err := v.verdict(outcomes)
	if err != nil {
		return nil, ws, err
	}
	var all []T
	for i := range ts {
		for j := range answers[i] {
			all = append(all, answers[i][j]...)
			for _, w := range warnings[i][j] {
				ws.Add(errors.New(w))
			}
		}
	}
	slices.SortFunc(all, compare)
	return slices.CompactFunc(all, func(a, b T) bool { return compare(a, b) == 0 }), ws, nil
}

// LabelNames returns the sorted label names of the series that match.
func (v *View) LabelNames(ctx context.Context, l Lookup) ([]string, annotations.Annotations, error) {
	return gather(ctx, v, l, strings.Compare, func(ctx context.Context, t *target, c *transport.Client, tl transport.Lookup) ([]string, []string, error) {
		names, ws, err := c.LabelNames(ctx, tl)
		if err != nil || len(names) == 0 {
			return nil, ws, err
		}
		var shown []string
		for _, n := range names {
			switch {
			case slices.Contains(t.cfg.ReplicaLabels, n):
			case t.cfg.Labels[n] != "":
				shown = append(shown, exportedPrefix+n)
			default:
				shown = append(shown, n)
			}
		}
		return append(shown, slices.Sorted(maps.Keys(t.cfg.Labels))...), ws, nil
	})
}

// LabelValues returns the sorted values of a label over the series that match.
func (v *View) LabelValues(ctx context.Context, name string, l Lookup) ([]string, annotations.Annotations, error) {
	return gather(ctx, v, l, strings.Compare, func(ctx context.Context, t *target, c *transport.Client, tl transport.Lookup) ([]string, []string, error) {
		if slices.Contains(t.cfg.ReplicaLabels, name) {
			return nil, nil, nil
		}
		if value := t.cfg.Labels[name]; value != "" {
			// Every series of the group has it, if there is one.
			tl.Limit = 1
			names, ws, err := c.LabelNames(ctx, tl)
			if err != nil || len(names) == 0 {
				return nil, ws, err
			}
			return []string{value}, ws, nil
		}
		own, exported := strings.CutPrefix(name, exportedPrefix)
		injected := t.cfg.Labels[own]
		if !exported || injected == "" {
			return c.LabelValues(ctx, name, tl)
		}
		values, ws, err := c.LabelValues(ctx, own, tl)
		return slices.DeleteFunc(values, func(s string) bool { return s == injected }), ws, err
	})
}

// Series returns the sorted label sets of the series that match.
func (v *View) Series(ctx context.Context, l Lookup) ([]labels.Labels, annotations.Annotations, error) {
	return gather(ctx, v, l, labels.Compare, func(ctx context.Context, t *target, c *transport.Client, tl transport.Lookup) ([]labels.Labels, []string, error) {
		series, ws, err := c.Series(ctx, tl)
		if err != nil {
			return nil, nil, err
		}
		rules := newLabelRules(t.cfg, nil)
		var raw []labels.Label
		shown := series[:0]
		for _, s := range series {
			raw = raw[:0]
			s.Range(func(l labels.Label) { raw = append(raw, l) })
			if ls, _ := rules.apply(raw); matchesAll(ls, t.route.resolved.check) {
				shown = append(shown, ls)
			}
		}
		return shown, ws, nil
	})
}
