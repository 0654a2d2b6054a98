package ruler

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/proxy/config"
)

// iterate evaluates a group once. As long as upstream has not restored the `for` state of
// its alerts, it goes on until those could be evaluated: upstream restores once, after the
// second iteration, and only alerts that are there by then. It implements
// rules.GroupEvalIterationFunc.
func (r *Ruler) iterate(ctx context.Context, g *rules.Group, at time.Time) {
	ctx = withGroup(ctx, g)
	for {
		rules.DefaultEvalIterationFunc(ctx, g, at)
		if ctx.Err() != nil {
			return
		}
		r.note(g)
		r.confirmations.Confirm(ctx, g, at)
		r.remind(ctx, g, at)
		if !r.restorable(g) {
			return
		}
		at = g.EvalTimestamp(time.Now().UnixNano()).Add(g.Interval())
		if !r.await(ctx, at) {
			return
		}
	}
}

// await waits for the next iteration of a group. It reports whether it is time: a group must
// not be held up when it may be replaced, and at the end.
func (r *Ruler) await(ctx context.Context, at time.Time) bool {
	next := time.NewTimer(time.Until(at))
	defer next.Stop()
	select {
	case <-next.C:
		return true
	case <-*r.applying.Load():
	case <-ctx.Done():
	}
	return false
}

// restorable reports whether a group has an alert that waits for its state and could not be
// evaluated, or not for all server groups.
func (r *Ruler) restorable(g *rules.Group) bool {
	for _, rule := range g.Rules() {
		alert, ok := rule.(*rules.AlertingRule)
		if !ok || alert.Restored() {
			continue
		}
		waits := alert.HoldDuration() >= time.Duration(r.opts.ForGracePeriod) // those of other alerts are not restored
		if failed(rule) || waits && len(r.evaluations.lacks(g, rule)) > 0 {
			return true
		}
	}
	return false
}

// memory is the server groups as the place where rules find what they have written
// themselves.
type memory struct {
	storage.Queryable
	config func() *config.Config
}

// Querier implements storage.Queryable.
func (m *memory) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := m.Queryable.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return &recollection{q, m.config().Global.ExternalLabels}, nil
}

// recollection takes the external labels off again that remote write has added.
type recollection struct {
	storage.Querier
	added labels.Labels
}

// Select implements storage.Querier.
func (r *recollection) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	return &withoutLabels{r.Querier.Select(ctx, sorted, hints, ms...), r.added}
}

type withoutLabels struct {
	storage.SeriesSet
	added labels.Labels
}

// At implements storage.SeriesSet.
func (s *withoutLabels) At() storage.Series {
	series := s.SeriesSet.At()
	b := labels.NewBuilder(series.Labels())
	s.added.Range(func(l labels.Label) {
		if b.Get(l.Name) == l.Value {
			b.Del(l.Name)
		}
	})
	return &relabelled{series, b.Labels()}
}

type relabelled struct {
	storage.Series
	labels labels.Labels
}

// Labels implements storage.Series.
func (s *relabelled) Labels() labels.Labels { return s.labels }
