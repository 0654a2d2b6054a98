package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// pushedEngine asks a oneprom that pushes parts down everything twice, with push-down and without.
//
// Nothing is pushed where names are removed at the end of a query, which is what upstream's files expect.
// So promqltest gets, and checks, the answers of the checkedEngine's truth, and oneprom is compared with an
// engine that removes names early, over the data as oneprom shows it.
type pushedEngine struct {
	*checkedEngine // its tally is that of the answers with push-down
	early          promql.QueryEngine
	backends       []*splitBackend
	off            *tally // of the answers without push-down
	// apart has the answers with push-down that are neither the truth nor the answers without it, nor at
	// each step one of the two: stretches of steps are evaluated in different ways.
	apart *tally
	// evaluations is how many requests to evaluate the backends got with push-down, evaluationsOff without it.
	evaluations, evaluationsOff int64
}

// earlyNames are the options of backends that remove names early.
func earlyNames(read backendtest.RemoteRead) backendtest.Options {
	return backendtest.Options{RemoteRead: read, EarlyNames: true}
}

// newPushedEngine asks the oneprom at base, which is in front of the backends.
func newPushedEngine(t *testing.T, backends []*splitBackend, base string) *pushedEngine {
	truth := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	o := backendtest.EngineOpts(backendtest.NewParser())
	o.MaxSamples = promqltest.DefaultMaxSamplesPerQuery
	o.EnableDelayedNameRemoval = false
	return &pushedEngine{
		checkedEngine: newCheckedEngine(t, truth, base), early: promqltest.NewTestEngineWithOpts(t, o),
		backends: backends, off: newTally(), apart: newTally(),
	}
}

// NewInstantQuery implements promql.QueryEngine.
func (e *pushedEngine) NewInstantQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, query string, at time.Time) (promql.Query, error) {
	ev := evaluation{file: e.file, query: query, start: at, end: at}
	early, err := e.early.NewInstantQuery(ctx, q.(*splitStorage).shown, o, query, at)
	e.compareBoth(ctx, ev, answerOf(ctx, ev, early, err))
	return e.truth.NewInstantQuery(ctx, q, o, query, at)
}

// NewRangeQuery implements promql.QueryEngine.
func (e *pushedEngine) NewRangeQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, query string, start, end time.Time, step time.Duration) (promql.Query, error) {
	ev := evaluation{file: e.file, query: query, start: start, end: end, step: step}
	early, err := e.early.NewRangeQuery(ctx, q.(*splitStorage).shown, o, query, start, end, step)
	e.compareBoth(ctx, ev, answerOf(ctx, ev, early, err))
	return e.truth.NewRangeQuery(ctx, q, o, query, start, end, step)
}

// answerOf executes a query, or tells why there is none: err.
func answerOf(ctx context.Context, ev evaluation, q promql.Query, err error) []byte {
	if err != nil {
		return encoded(refusal(err))
	}
	defer q.Close()
	return encoded(responseOf(ev.query, q.Exec(ctx)))
}

// compareBoth asks oneprom with push-down and without and notes how its answers differ from want. With
// push-down they may be better: a backend evaluates what not every transport carries.
func (e *pushedEngine) compareBoth(ctx context.Context, ev evaluation, want []byte) {
	offCode, off := e.counted(ctx, ev, "off", &e.evaluationsOff)
	e.off.add(ev, judge(ev, want, offCode, off), want, off)
	code, pushed := e.counted(ctx, ev, "", &e.evaluations)
	v := judge(ev, want, code, pushed)
	e.tally.add(ev, v, want, pushed)
	if v != exactly && !eitherAtEachStep(pushed, want, off) {
		e.apart.add(ev, judge(ev, off, code, pushed), off, pushed)
	}
}

// eitherAtEachStep reports whether an answer to a range query is, at each step, that of one of two others,
// and has the annotations of one of them.
func eitherAtEachStep(body, one, other []byte) bool {
	steps, said, ok := pointsByTime(body)
	ones, oneSaid, oneOK := pointsByTime(one)
	others, otherSaid, otherOK := pointsByTime(other)
	if !ok || !oneOK || !otherOK || said != oneSaid && said != otherSaid {
		return false
	}
	for _, times := range []map[string][]string{steps, ones, others} {
		for t := range times {
			if !slices.Equal(steps[t], ones[t]) && !slices.Equal(steps[t], others[t]) {
				return false
			}
		}
	}
	return true
}

// pointsByTime returns the points of each step of a range query's answer, as text and sorted, and its
// annotations. It is not ok if there is no such answer.
func pointsByTime(body []byte) (points map[string][]string, said string, ok bool) {
	var a struct {
		Status          string
		Warnings, Infos []string
		Data            struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	var list []struct {
		Metric             map[string]string
		Values, Histograms [][2]json.RawMessage
	}
	if json.Unmarshal(body, &a) != nil || a.Status != "success" || a.Data.ResultType != "matrix" || json.Unmarshal(a.Data.Result, &list) != nil {
		return nil, "", false
	}
	points = map[string][]string{}
	for _, s := range list {
		for _, p := range slices.Concat(s.Values, s.Histograms) {
			points[string(p[0])] = append(points[string(p[0])], labels.FromMap(s.Metric).String()+" "+string(p[1]))
		}
	}
	for _, texts := range points {
		slices.Sort(texts)
	}
	return points, fmt.Sprint(a.Warnings, a.Infos), true
}

// counted is ask that adds the requests to evaluate to a number.
func (e *pushedEngine) counted(ctx context.Context, ev evaluation, pushdown string, evaluations *int64) (code int, body []byte) {
	before := evaluationsOf(e.backends)
	code, body = e.ask(ctx, ev, pushdown)
	*evaluations += evaluationsOf(e.backends) - before
	return code, body
}

// exactly is the verdict on an answer that is the truth's, with its annotations.
var exactly = verdict{values: classExact}
