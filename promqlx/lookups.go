package promqlx

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"
	"golang.org/x/sync/errgroup"

	"github.com/oneprom/oneprom/promqlx/cache"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/lookup"
	"github.com/oneprom/oneprom/servergroup/view"
)

// A Prometheus answers a lookup for each of its blocks as a whole, and tells all that is in its memory of any time
// there: also what came later. It has the samples of three hours at most in memory, until a block of two hours is
// written. What is asked about earlier hours before and after that is the same, so only these are kept. Later it joins
// blocks, and tells of an hour what is in the joined one, too: what was kept then lacks names that have no samples
// near the window, until it is asked for again.

// inMemory (ms) is how old the samples may be that a Prometheus has in memory: three hours, and how long it may
// take to write them.
const inMemory = int64(3*time.Hour+30*time.Minute) / int64(time.Millisecond)

// found is what lookups find: labels.Labels, or strings.
type found[T any] struct {
	compare func(a, b T) int
	text    func(T) string // that a cache keeps
	of      func(text string) (T, error)
}

var (
	foundStrings = found[string]{strings.Compare, func(s string) string { return s }, func(s string) (string, error) { return s, nil }}
	foundSeries  = found[labels.Labels]{labels.Compare, cache.TextOf, cache.SeriesOf}
)

// lookUp answers a lookup: ask, which asks the server groups of a view, is only called for the times of which
// nothing is kept. what says what is looked up.
func lookUp[T any](ctx context.Context, q *groupQuerier, kind found[T], what string, l lookup.Lookup,
	ask func(context.Context, *view.View, lookup.Lookup) ([]T, annotations.Annotations, error),
) ([]T, annotations.Annotations, error) {
	v, store := q.view(ctx), q.keptIn()
	if store == nil {
		return ask(ctx, v, l)
	}
	standing := v.StandingOf([][]*labels.Matcher{l.Matchers})
	question := lookupQuestion(v, standing, what, l)
	blocks := question.Blocks()
	if v.Request.NoCache || standing.Unknown != "" || standing.WholeDays || len(blocks) == 0 {
		store.CountLookup(nil)
		return ask(ctx, v, l)
	}
	sets := store.FindSets(ctx, question, blocks, standing.Unsure == "")
	store.CountLookup(sets)
	all, err := ofTexts(kind, sets.Texts)
	if err != nil { // a set is broken
		return ask(ctx, v, l)
	}
	runs := slices.Concat(sets.Missing, sets.Rest)
	answers, warnings := make([][]T, len(runs)), make([]annotations.Annotations, len(runs))
	asked, asking := errgroup.WithContext(ctx)
	asked.SetLimit(maxAtOnce)
	for i, run := range runs {
		asked.Go(func() (err error) {
			defer guard.Recover(&err)
			part := l
			part.MinT, part.MaxT = run.From, run.To
			answers[i], warnings[i], err = ask(asking, v, part)
			return err
		})
	}
	err = asked.Wait()
	if _, over := errors.AsType[*fanout.BudgetError](err); over { // what is in several of them is counted as often
		q.atOnce()
		return ask(ctx, q.view(ctx), l)
	}
	var ws annotations.Annotations
	for i := range runs {
		ws.Merge(warnings[i])
		all = append(all, answers[i]...)
	}
	if err != nil {
		return nil, ws, err
	}
	if unkept(standing, q.groups.View(ctx).StandingOf([][]*labels.Matcher{l.Matchers})) == "" {
		for i, block := range sets.Missing {
			cut := l.Limit > 0 && len(answers[i]) >= l.Limit
			if cut || len(warnings[i]) > 0 || !v.Covers([]view.Selection{{Matchers: l.Matchers, MinT: block.From, MaxT: block.To}}) {
				store.LeaveSet(sets, block)
			} else {
				store.KeepSet(sets, block, texts(kind, answers[i]))
			}
		}
	}
	slices.SortFunc(all, kind.compare)
	return slices.CompactFunc(all, func(a, b T) bool { return kind.compare(a, b) == 0 }), ws, nil
}

func ofTexts[T any](kind found[T], texts []string) (all []T, err error) {
	all = make([]T, len(texts))
	for i, text := range texts {
		if all[i], err = kind.of(text); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func texts[T any](kind found[T], answer []T) []string {
	out := make([]string, len(answer))
	for i, one := range answer {
		out[i] = kind.text(one)
	}
	return out
}

// lookupQuestion is a lookup as a cache is asked for it.
func lookupQuestion(v *view.View, s view.Standing, what string, l lookup.Lookup) cache.Question {
	var matchers []string
	for _, m := range l.Matchers {
		matchers = append(matchers, m.String())
	}
	slices.Sort(matchers)
	now := v.Now.UnixMilli()
	return cache.Question{
		Key:   fmt.Sprintf("%s %q limit=%d restricted=%t %q %s %s", what, slices.Compact(matchers), l.Limit, v.Request.Restricted, v.Request.Shown, version.Version, s.Generation),
		Start: l.MinT, End: l.MaxT,
		Settled: min(s.Settled, now-inMemory), Since: s.Since, Now: now, Groups: s.Groups,
		Believed: func(oldest int64) int64 { return evidence.Believed(oldest, now) },
	}
}
