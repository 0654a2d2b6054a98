// Package lookup finds series, and the names and values of their labels, in the groups of a view.
package lookup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Lookup is the series whose labels, or names or values of labels, are wanted.
type Lookup struct {
	Matchers []*labels.Matcher
	// MinT and MaxT bound the time (ms, inclusive) in which a series must exist.
	MinT, MaxT int64
	// Limit is the most results wanted; 0 for all.
	Limit int
}

// Gather calls ask for every replica of the groups concerned. It returns the results sorted by
// compare, without duplicates.
func Gather[T any](ctx context.Context, v *view.View, l Lookup, compare func(a, b T) int,
	ask func(ctx context.Context, t *view.RoutedGroup, c *transport.Client, tl transport.Lookup) ([]T, []string, error),
) ([]T, annotations.Annotations, error) {
	ts := v.Route(l.Matchers, l.MinT, l.MaxT)
	answers := make([][][]T, len(ts))
	warnings := make([][][]string, len(ts))
	for i := range ts {
		answers[i], warnings[i] = make([][]T, len(ts[i].Replicas)), make([][]string, len(ts[i].Replicas))
	}
	var remarks completeness.Remarks
	outcomes, err := v.Each(ctx, ts, func(ctx context.Context, i, j int) (err error) {
		t := &ts[i]
		send := t.Route.Resolved.Send
		if len(send) > 0 {
			send = labelmap.Selectable(send)
		}
		tl := transport.Lookup{Matchers: send, MinT: t.Route.MinT, MaxT: t.Route.MaxT, Limit: l.Limit, Charge: v.Budget.Charge}
		p, err := t.Replicas[j].Ready(ctx)
		if err != nil {
			return err
		}
		if p.TakesTurns != "" {
			remarks.WarnOfServer(v.CompletenessOf(t.Group), t.Replicas[j].URL(), p.TakesTurns)
		}
		answers[i][j], warnings[i][j], err = ask(ctx, t, v.ClientOf(t.Config, p), tl)
		return err
	})
	if err == nil {
		err = completeness.Ended(ctx, outcomes)
	}
	if err != nil {
		return nil, nil, err
	}
	for _, o := range outcomes {
		v.Ledger.RecordPartial(o, l.MinT, l.MaxT)
	}
	turns, turnsErr := remarks.Verdict(&v.Ledger, l.MinT, l.MaxT)
	v.Report()
	ws, err := completeness.Verdict(outcomes)
	ws.Merge(turns)
	if err = cmp.Or(err, turnsErr); err != nil {
		return nil, ws, err
	}
	var all []T
	for i := range ts {
		for j := range answers[i] {
			all = append(all, answers[i][j]...)
			for _, w := range warnings[i][j] {
				if ts[i].Restricted() {
					w = fmt.Sprintf("server group %q: %s", ts[i].Config.Name, completeness.Withheld)
				}
				ws.Add(errors.New(w))
			}
		}
	}
	slices.SortFunc(all, compare)
	return slices.CompactFunc(all, func(a, b T) bool { return compare(a, b) == 0 }), ws, nil
}

// LabelNames returns the sorted label names of the series that match.
func LabelNames(ctx context.Context, v *view.View, l Lookup) ([]string, annotations.Annotations, error) {
	return Gather(ctx, v, l, strings.Compare, labelNamesOf)
}

// LabelValues returns the sorted values of a label over the series that match.
func LabelValues(ctx context.Context, v *view.View, name string, l Lookup) ([]string, annotations.Annotations, error) {
	return Gather(ctx, v, l, strings.Compare, func(ctx context.Context, t *view.RoutedGroup, c *transport.Client, tl transport.Lookup) ([]string, []string, error) {
		return labelValuesOf(ctx, t, c, name, tl)
	})
}

// Series returns the sorted label sets of the series that match.
func Series(ctx context.Context, v *view.View, l Lookup) ([]labels.Labels, annotations.Annotations, error) {
	return Gather(ctx, v, l, labels.Compare, seriesOf)
}

// seriesOf returns the labels to show of the series of one replica, perhaps with duplicates.
func seriesOf(ctx context.Context, t *view.RoutedGroup, c *transport.Client, tl transport.Lookup) ([]labels.Labels, []string, error) {
	if len(t.Config.ReplicaLabels) > 0 || len(t.Route.Resolved.Check) > 0 {
		tl.Limit = 0 // the server would count series that are equal or not shown here
	}
	tl.Matchers = labelmap.Selectable(tl.Matchers)
	series, ws, err := c.Series(ctx, tl)
	if err != nil {
		return nil, nil, err
	}
	rules := labelmap.NewRules(t.Config, nil)
	shown := series[:0]
	for _, s := range series {
		ls, dropped := rules.ApplyTo(s)
		if dropped != "" && tl.Limit > 0 {
			tl.Limit = 0
			return seriesOf(ctx, t, c, tl)
		}
		if labelmap.MatchesAll(ls, t.Route.Resolved.Check) {
			shown = append(shown, ls)
		}
	}
	return shown, ws, nil
}

// labelNamesOf returns the names of the labels to show of one replica's series.
func labelNamesOf(ctx context.Context, t *view.RoutedGroup, c *transport.Client, tl transport.Lookup) ([]string, []string, error) {
	if len(t.Route.Resolved.Check) > 0 {
		return namesOfSeries(ctx, t, c, tl)
	}
	if len(t.Config.ReplicaLabels)+len(t.Config.Labels) > 0 {
		tl.Limit = 0 // the server would count names that are not shown
	}
	names, ws, err := c.LabelNames(ctx, tl)
	if err != nil || len(names) == 0 {
		return nil, ws, err
	}
	shown := slices.Collect(maps.Keys(t.Config.Labels))
	for _, n := range names {
		value, injected := t.Config.Labels[n]
		switch {
		case slices.Contains(t.Config.ReplicaLabels, n):
		case injected:
			renamed, more, err := renamedValuesOf(ctx, c, n, value, tl)
			ws = append(ws, more...)
			if err != nil {
				return nil, ws, err
			}
			if len(renamed) == 0 {
				continue
			}
			exported := labelmap.ExportedPrefix + n
			if slices.Contains(names, exported) || labelmap.Hides(t.Config, exported) {
				return namesOfSeries(ctx, t, c, tl)
			}
			shown = append(shown, exported)
		default:
			shown = append(shown, n)
		}
	}
	return shown, ws, nil
}

// renamedValuesOf returns the values that a label has in the data, other than the injected value:
// the values of the label that is renamed.
func renamedValuesOf(ctx context.Context, c *transport.Client, name, injected string, tl transport.Lookup) ([]string, []string, error) {
	values, ws, err := c.LabelValues(ctx, name, tl)
	return slices.DeleteFunc(values, func(s string) bool { return s == injected }), ws, err
}

// namesOfSeries returns the label names of one replica's series, by looking the series up.
func namesOfSeries(ctx context.Context, t *view.RoutedGroup, c *transport.Client, tl transport.Lookup) ([]string, []string, error) {
	series, ws, err := seriesOf(ctx, t, c, tl)
	names := map[string]bool{}
	for _, ls := range series {
		ls.Range(func(l labels.Label) { names[l.Name] = true })
	}
	return slices.Collect(maps.Keys(names)), ws, err
}

// labelValuesOf returns the values to show of a label of one replica's series.
func labelValuesOf(ctx context.Context, t *view.RoutedGroup, c *transport.Client, name string, tl transport.Lookup) ([]string, []string, error) {
	value, injected := t.Config.Labels[name]
	switch {
	case slices.Contains(t.Config.ReplicaLabels, name):
		return nil, nil, nil
	case len(t.Route.Resolved.Check) > 0:
		return valuesOfSeries(ctx, t, c, name, tl)
	case injected:
		// Every series of the group has the injected label. A limit would cause a warning
		// of the server.
		tl.Limit = 0
		names, ws, err := c.LabelNames(ctx, tl)
		if err != nil || len(names) == 0 {
			return nil, ws, err
		}
		return []string{value}, ws, nil
	case labelmap.MayBeExported(t.Config, name):
		tl.Limit = 0 // the server would count values that are not shown
		return exportedValuesOf(ctx, t, c, name, tl)
	}
	return c.LabelValues(ctx, name, tl)
}

// exportedValuesOf returns the values of a label that may have this name in the data, or may have
// been renamed to it, perhaps differently in different series.
func exportedValuesOf(ctx context.Context, t *view.RoutedGroup, c *transport.Client, name string, tl transport.Lookup) ([]string, []string, error) {
	own := strings.TrimPrefix(name, labelmap.ExportedPrefix)
	injected := t.Config.Labels[own]
	if injected == "" || labelmap.MayBeExported(t.Config, own) {
		return valuesOfSeries(ctx, t, c, name, tl)
	}
	renamed, ws, err := renamedValuesOf(ctx, c, own, injected, tl)
	if err != nil {
		return nil, ws, err
	}
	kept, more, err := c.LabelValues(ctx, name, tl)
	ws = append(ws, more...)
	switch {
	case err != nil || len(renamed) == 0:
		return kept, ws, err
	case len(kept) == 0:
		return renamed, ws, nil
	}
	return valuesOfSeries(ctx, t, c, name, tl)
}

// valuesOfSeries returns the values of a label of one replica's series, by looking the series up.
func valuesOfSeries(ctx context.Context, t *view.RoutedGroup, c *transport.Client, name string, tl transport.Lookup) ([]string, []string, error) {
	series, ws, err := seriesOf(ctx, t, c, tl)
	var values []string
	for _, ls := range series {
		if v := ls.Get(name); v != "" {
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return slices.Compact(values), ws, err
}
