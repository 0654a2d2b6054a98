package promqlx

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"
	"golang.org/x/sync/errgroup"

	"github.com/oneprom/oneprom/promqlx/answer"
	"github.com/oneprom/oneprom/promqlx/cache"
	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/view"
)

// UseCache has answers to range queries kept in a cache. It is called before the first query.
func (e *Engine) UseCache(c *cache.Cache) { e.cache = c }

// maxAtOnce is how many runs of steps of one query are evaluated at a time.
const maxAtOnce = 4

// kept is a range query of which answers are kept.
type kept struct {
	selectors [][]*labels.Matcher
	text      string        // of the query, in its canonical form
	standing  view.Standing // before the execution
	question  cache.Question
}

// runKept is run, but evaluates only those steps of a range query that no kept answer has. later keeps what was
// evaluated, and is called before the query is closed; nil if there is nothing to do.
func (q *query) runKept(ctx context.Context, groups *view.View) (res *promql.Result, later func()) {
	store := q.engine.cache
	if store == nil || q.at == nil {
		return q.run(ctx, groups), nil
	}
	k, why := q.kept(ctx, groups)
	if why != "" {
		store.Bypassed(why)
		q.progress.setCached("bypass; reason=" + why)
		return q.run(ctx, groups), nil
	}
	found := store.Find(ctx, k.question)
	runs := found.Missing()
	outcome := found.Outcome(runs)
	store.Count(found, outcome)
	q.progress.setCached(string(outcome))
	if outcome == cache.Miss && len(runs) == 1 {
		res = q.run(ctx, groups)
		keep := q.keep(ctx, k, found, runs[0], res)
		if keep == nil {
			return res, nil
		}
		return res, store.Later(found, keep)
	}
	parts, err := q.runParts(ctx, k, runs)
	closeParts := func() {
		for _, part := range parts {
			part.Close()
		}
	}
	if err != nil {
		closeParts()
		if errors.Is(err, errChanged) {
			return q.run(ctx, q.engine.groups.View(ctx)), nil
		}
		return &promql.Result{Err: err}, nil
	}
	var keeps []func()
	for i, part := range parts {
		if keep := part.keep(ctx, k, found, runs[i], part.result); keep != nil {
			keeps = append(keeps, keep)
		}
	}
	if res = q.joinParts(k, found, runs, parts); res == nil {
		closeParts()
		return q.run(ctx, groups), nil
	}
	if len(keeps) == 0 {
		closeParts()
		return res, nil
	}
	return res, store.Later(found, func() {
		defer closeParts()
		for _, keep := range keeps {
			keep()
		}
	})
}

// joinParts puts the answer together of blocks and parts. It is nil if a block is broken, or upstream's error over too
// many samples is due.
func (q *query) joinParts(k kept, found *cache.Found, runs []cache.Run, parts []stepsQuery) *promql.Result {
	answers := make([]promql.Matrix, len(parts))
	for i, part := range parts {
		answers[i] = part.matrix
	}
	joined, notes, err := found.Join(runs, answers)
	if err != nil || joined.TotalSamples() > q.engine.maxSamples {
		return nil
	}
	out := &promql.Result{Value: joined}
	for _, part := range parts {
		q.gaps = append(q.gaps, part.gaps...)
		q.countSamples(part.Stats())
		out.Warnings.Merge(answer.Positioned(part.result.Warnings, q.text))
	}
	q.addNotes(&out.Warnings, k, notes)
	out.Warnings.AsStrings(q.text, 0, 0) // for its side effect: annotations find their positions in the query
	return out
}

// stepsQuery is a query for some steps of another one, with its result.
type stepsQuery struct {
	*query
	result *promql.Result
	matrix promql.Matrix
}

// errChanged says that the server groups are not those any more that kept answers are of.
var errChanged = errors.New("the server groups have changed")

// runParts evaluates the query at some runs of its steps. The caller closes the parts, also after an error. The
// error is errChanged where a reload comes between.
func (q *query) runParts(ctx context.Context, k kept, runs []cache.Run) ([]stepsQuery, error) {
	parts := make([]stepsQuery, 0, len(runs))
	for _, run := range runs {
		part, err := q.at(ctx, time.UnixMilli(run.From), time.UnixMilli(run.To))
		if err != nil {
			return parts, err
		}
		part.progress, part.source.progress = q.progress, q.progress
		parts = append(parts, stepsQuery{query: part})
	}
	same := func(groups *view.View) error {
		if now := groups.StandingOf(k.selectors); now.Generation != k.standing.Generation {
			return errChanged
		}
		return nil
	}
	all, inner := errgroup.WithContext(ctx)
	all.SetLimit(maxAtOnce)
	for i := range parts {
		all.Go(func() (err error) {
			defer guard.Recover(&err)
			part, groups := &parts[i], q.engine.groups.View(inner)
			if err := same(groups); err != nil {
				return err
			}
			part.result = part.run(inner, groups)
			if part.result.Err != nil {
				return part.result.Err
			}
			part.matrix, err = part.result.Matrix()
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return parts, err
	}
	return parts, same(q.engine.groups.View(ctx)) // a plan may have been made anew
}

// countSamples adds the samples that were looked at for some steps to the statistics of the query.
func (q *query) countSamples(of *stats.Statistics) {
	all, part := q.Stats().Samples, of.Samples
	all.PeakSamples = max(all.PeakSamples, part.PeakSamples)
	all.TotalSamples += part.TotalSamples
	all.SamplesRead += part.SamplesRead
}

// kept returns what is needed to look for kept answers, or why there are none.
func (q *query) kept(ctx context.Context, groups *view.View) (k kept, why string) {
	stmt, ok := q.Statement().(*parser.EvalStmt)
	switch {
	case !ok || stmt.Interval <= 0:
		return k, "it is no range query"
	case request.From(ctx).WholeSeries:
		return k, "the answer may leave out groups that are missing"
	case groups.Request.Pushdown != "":
		return k, "the request is about push-down"
	case groups.Request.NoCache:
		return k, "the request says so"
	}
	reaches, why := plan.Cacheable(stmt, q.text, q.engine.subqueryStep)
	if why != "" {
		return k, why
	}
	reach := int64(0)
	for _, r := range reaches {
		k.selectors, reach = append(k.selectors, r.Matchers), max(reach, -r.From)
	}
	if k.standing = groups.StandingOf(k.selectors); k.standing.Unknown != "" {
		return k, k.standing.Unknown
	}
	k.text = stmt.Expr.String()
	r := groups.Request
	k.question = cache.Question{
		Key: fmt.Sprintf("%q lookback=%d subqueries=%s shown=%q %s %s", k.text, stmt.LookbackDelta.Milliseconds(),
			q.engine.subquerySteps(stmt.Expr), r.Shown, q.engine.semantics, k.standing.Generation),
		Start: stmt.Start.UnixMilli(), End: stmt.End.UnixMilli(), Step: stmt.Interval.Milliseconds(),
		Settled: k.standing.Settled, Since: k.standing.Since, Now: groups.Now.UnixMilli(), Reach: reach,
		Groups: k.standing.Groups,
	}
	k.question.Believed = func(oldest int64) int64 { return evidence.Believed(oldest, k.question.Now) }
	return k, ""
}

// explainKept describes what is kept of the answer; nil if nobody looks for that. It is called before the query
// is planned.
func (q *query) explainKept(ctx context.Context, groups *view.View) *explain.Kept {
	if q.engine.cache == nil || q.at == nil {
		return nil
	}
	k, why := q.kept(ctx, groups)
	if why != "" {
		return &explain.Kept{Outcome: "bypass", Reason: why}
	}
	found := q.engine.cache.Find(ctx, k.question)
	runs := found.Missing()
	out := &explain.Kept{Outcome: string(found.Outcome(runs)), Reason: k.standing.Unsure, SettledUntil: explain.SecondsOf(k.standing.Settled)}
	out.Blocks, out.Found = found.Blocks()
	if oldest, newest := found.Made(); oldest != 0 {
		out.Oldest, out.Newest = explain.SecondsOf(found.Now-oldest), explain.SecondsOf(found.Now-newest)
	}
	for _, run := range runs {
		out.Missing = append(out.Missing, explain.StepsOf(run.From, run.To, k.question.Step))
	}
	return out
}

// keep returns what keeps the answer to a run of steps; nil if something is missing of it, or if something that shows
// later may change it.
func (q *query) keep(ctx context.Context, k kept, found *cache.Found, run cache.Run, res *promql.Result) func() {
	m, ok := res.Value.(promql.Matrix)
	if !ok || res.Err != nil {
		return nil
	}
	notes, ok := q.notes(k, res.Warnings)
	after := q.engine.groups.View(ctx).StandingOf(k.selectors)
	why := unkept(k.standing, after)
	if len(q.gaps) > 0 || !ok {
		why = "the answer may lack something, or its annotations are about all steps"
	}
	if why != "" {
		q.engine.cache.Unkept(why)
		return nil
	}
	store := q.engine.cache
	return func() { store.Keep(found, run, m, notes) }
}

// unkept returns why nothing is kept of what was answered between two standings; "" if it may be.
func unkept(before, after view.Standing) string {
	switch {
	case before.Unsure != "":
		return before.Unsure
	case after.Unsure != "" || after.Unknown != "":
		return after.Unsure + after.Unknown
	case after.Generation != before.Generation || after.Since != before.Since:
		return "the server groups have changed meanwhile"
	}
	return ""
}

// notes returns annotations as they are kept. ok is false if they say that something is missing, or if they are
// about all steps together.
func (q *query) notes(k kept, ws annotations.Annotations) (notes []cache.Note, ok bool) {
	if len(ws) == 0 {
		return nil, true
	}
	defer ws.AsStrings(q.text, 0, 0) // Positioned has taken the positions from upstream's texts
	positions := plan.Positions(q.text, k.text, q.engine.parser)
	for _, err := range answer.Positioned(ws, q.text) {
		text, at, ok := answer.At(err)
		own, known := positions[at]
		if !ok || !known {
			return nil, false // Positioned leaves those as they are that count something
		}
		notes = append(notes, cache.Note{Info: errors.Is(err, annotations.PromQLInfo), Text: text, At: own})
	}
	return notes, true
}

// addNotes adds annotations that were kept.
func (q *query) addNotes(ws *annotations.Annotations, k kept, notes []cache.Note) {
	if len(notes) == 0 {
		return
	}
	positions := plan.Positions(k.text, q.text, q.engine.parser)
	for _, n := range notes {
		kind := annotations.PromQLWarning
		if n.Info {
			kind = annotations.PromQLInfo
		}
		ws.Add(answer.Annotation(n.Text, positions[n.At], kind))
	}
}
