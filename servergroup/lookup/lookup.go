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

// maxAttempts is how often a server is asked that spells numbers in another way each time.
const maxAttempts = 3

// Gather calls ask for every replica of the groups concerned. It returns the results sorted by
// compare, without duplicates.
func Gather[T any](ctx context.Context, v *view.View, l Lookup, compare func(a, b T) int,
	ask func(ctx context.Context, a *Asked, tl transport.Lookup) ([]T, []string, error),
) ([]T, annotations.Annotations, error) {
	ts := v.RouteLookup(l.Matchers, l.MinT, l.MaxT)
	answers := make([][][]T, len(ts))
	warnings := make([][][]string, len(ts))
	for i := range ts {
		answers[i], warnings[i] = make([][]T, len(ts[i].Replicas)), make([][]string, len(ts[i].Replicas))
	}
	var remarks completeness.Remarks
	outcomes, err := v.Each(ctx, ts, func(ctx context.Context, i, j int) (err error) {
		t, r := &ts[i], ts[i].Replicas[j]
		answer := v.Answer(t.Group, r)
		defer answer.End()
		tl := transport.Lookup{MinT: t.Route.MinT, MaxT: t.Route.MaxT, Limit: l.Limit, Charge: answer.Charge}
		for range maxAttempts {
			p, err := r.Ready(ctx)
			if err != nil {
				return err
			}
			if p.TakesTurns != "" {
				remarks.WarnOfServer(v.CompletenessOf(t.Group), r.URL(), p.TakesTurns)
			}
			a := newAsked(v, t, p)
			tl.Matchers = a.Resolved.Send
			if len(tl.Matchers) > 0 {
				tl.Matchers = labelmap.Selectable(tl.Matchers)
			}
			answers[i][j], warnings[i][j], err = ask(ctx, a, tl)
			if err != nil || r.Recognize(p, a.unknown) == nil {
				return err
			}
		}
		return nil
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
	turns, turnsErr := remarks.Verdict(v.Ledger, l.MinT, l.MaxT)
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
	return Gather(ctx, v, l, strings.Compare, func(ctx context.Context, a *Asked, tl transport.Lookup) ([]string, []string, error) {
		return labelValuesOf(ctx, a, name, tl)
	})
}

// Series returns the sorted label sets of the series that match.
func Series(ctx context.Context, v *view.View, l Lookup) ([]labels.Labels, annotations.Annotations, error) {
	return Gather(ctx, v, l, labels.Compare, seriesOf)
}

// seriesOf returns the labels to show of the series of one replica, perhaps with duplicates.
func seriesOf(ctx context.Context, a *Asked, tl transport.Lookup) ([]labels.Labels, []string, error) {
	if len(a.Config.ReplicaLabels) > 0 || len(a.Resolved.Check) > 0 {
		tl.Limit = 0 // the server would count series that are equal or not shown here
	}
	tl.Matchers = labelmap.Selectable(tl.Matchers)
	series, ws, err := a.Client.Series(ctx, tl)
	if err != nil {
		return nil, nil, err
	}
	var shown []labels.Labels
	merged := false
	ws = append(ws, a.Shown(series, func(_ int, ls labels.Labels, dropped string) {
		shown, merged = append(shown, ls), merged || dropped != ""
	})...)
	if merged && tl.Limit > 0 {
		tl.Limit = 0
		return seriesOf(ctx, a, tl)
	}
	return shown, ws, nil
}

// labelNamesOf returns the names of the labels to show of one replica's series.
func labelNamesOf(ctx context.Context, a *Asked, tl transport.Lookup) ([]string, []string, error) {
	if len(a.Resolved.Check) > 0 {
		return namesOfSeries(ctx, a, tl)
	}
	if len(a.Config.ReplicaLabels)+len(a.Config.Labels) > 0 {
		tl.Limit = 0 // the server would count names that are not shown
	}
	names, ws, err := a.Client.LabelNames(ctx, tl)
	if err != nil || len(names) == 0 {
		return nil, ws, err
	}
	shown := slices.Collect(maps.Keys(a.Config.Labels))
	for _, n := range names {
		value, injected := a.Config.Labels[n]
		switch {
		case slices.Contains(a.Config.ReplicaLabels, n):
		case injected:
			renamed, more, err := renamedValuesOf(ctx, a, n, value, tl)
			ws = append(ws, more...)
			if err != nil {
				return nil, ws, err
			}
			if len(renamed) == 0 {
				continue
			}
			exported := labelmap.ExportedPrefix + n
			if slices.Contains(names, exported) || labelmap.Hides(a.Config, exported) {
				return namesOfSeries(ctx, a, tl)
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
func renamedValuesOf(ctx context.Context, a *Asked, name, injected string, tl transport.Lookup) ([]string, []string, error) {
	values, ws, err := a.Client.LabelValues(ctx, name, tl)
	return slices.DeleteFunc(values, func(s string) bool { return s == injected }), ws, err
}

// namesOfSeries returns the label names of one replica's series, by looking the series up.
func namesOfSeries(ctx context.Context, a *Asked, tl transport.Lookup) ([]string, []string, error) {
	series, ws, err := seriesOf(ctx, a, tl)
	names := map[string]bool{}
	for _, ls := range series {
		ls.Range(func(l labels.Label) { names[l.Name] = true })
	}
	return slices.Collect(maps.Keys(names)), ws, err
}

// labelValuesOf returns the values to show of a label of one replica's series.
func labelValuesOf(ctx context.Context, a *Asked, name string, tl transport.Lookup) ([]string, []string, error) {
	value, injected := a.Config.Labels[name]
	switch {
	case slices.Contains(a.Config.ReplicaLabels, name):
		return nil, nil, nil
	case len(a.Resolved.Check) > 0:
		return valuesOfSeries(ctx, a, name, tl)
	case injected:
		// Every series of the group has the injected label. A limit would cause a warning
		// of the server.
		tl.Limit = 0
		names, ws, err := a.Client.LabelNames(ctx, tl)
		if err != nil || len(names) == 0 {
			return nil, ws, err
		}
		return []string{value}, ws, nil
	case labelmap.MayBeExported(a.Config, name):
		tl.Limit = 0 // the server would count values that are not shown
		return exportedValuesOf(ctx, a, name, tl)
	case slices.Contains(labelmap.NumberLabels, name):
		return numbersOf(ctx, a, name, tl)
	}
	return a.Client.LabelValues(ctx, name, tl)
}

// exportedValuesOf returns the values of a label that may have this name in the data, or may have
// been renamed to it, perhaps differently in different series.
func exportedValuesOf(ctx context.Context, a *Asked, name string, tl transport.Lookup) ([]string, []string, error) {
	own := strings.TrimPrefix(name, labelmap.ExportedPrefix)
	injected := a.Config.Labels[own]
	if injected == "" || labelmap.MayBeExported(a.Config, own) {
		return valuesOfSeries(ctx, a, name, tl)
	}
	renamed, ws, err := renamedValuesOf(ctx, a, own, injected, tl)
	if err != nil {
		return nil, ws, err
	}
	kept, more, err := a.Client.LabelValues(ctx, name, tl)
	ws = append(ws, more...)
	switch {
	case err != nil || len(renamed) == 0:
		return kept, ws, err
	case len(kept) == 0:
		return renamed, ws, nil
	}
	return valuesOfSeries(ctx, a, name, tl)
}

// valuesOfSeries returns the values of a label of one replica's series, by looking the series up.
func valuesOfSeries(ctx context.Context, a *Asked, name string, tl transport.Lookup) ([]string, []string, error) {
	series, ws, err := seriesOf(ctx, a, tl)
	var values []string
	for _, ls := range series {
		if v := ls.Get(name); v != "" {
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return slices.Compact(values), ws, err
}
