package toxics

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"time"
)

// kinds are the endpoints that are asked, all at once.
var kinds = []string{"query", "query_range", "series", "labels", "label values", "exemplars"}

// question is a request to oneprom and to the truth.
type question struct{ kind, path string }

var (
	instants = []string{`sum(m)`, `sum by (zone) (rate(reqs_total[5m]))`, `m - m offset 2m`, `count(up)`, `topk(3, m)`}
	ranges   = []string{`sum by (zone) (rate(reqs_total[5m]))`, `m`, `max(m)`, `avg by (instance) (m)`}
)

// questions are one of each kind. No two rounds, of some tens, ask the same.
func questions(round int) []question {
	end := (history - time.Duration(round%100)*scrapeEvery).Seconds()
	window := url.Values{"start": {fmt.Sprint(end - 900)}, "end": {fmt.Sprint(end)}}
	with := func(path string, pairs ...string) string {
		form := url.Values{"timeout": {queryTimeout.String()}}
		maps.Copy(form, window)
		for i := 0; i < len(pairs); i += 2 {
			form.Set(pairs[i], pairs[i+1])
		}
		return path + "?" + form.Encode()
	}
	return []question{
		{kinds[0], with("/api/v1/query", "query", instants[round%len(instants)], "time", fmt.Sprint(end))},
		{kinds[1], with("/api/v1/query_range", "query", ranges[round%len(ranges)], "step", "30")},
		{kinds[2], with("/api/v1/series", "match[]", "m")},
		{kinds[3], with("/api/v1/labels")},
		{kinds[4], with("/api/v1/label/zone/values", "match[]", "up")},
		{kinds[5], with("/api/v1/query_exemplars", "query", "reqs_total")},
	}
}

// reply is what came back, and when.
type reply struct {
	status int
	header http.Header
	body   string
	err    error // the client's
	after  time.Duration
}

func (r *rig) ask(ctx context.Context, q question) reply {
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.server.Addr()+q.path, nil)
	if err != nil {
		return reply{err: err}
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return reply{err: err, after: time.Since(began)}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(body), err, time.Since(began)}
}

// askTruth is the body of the true answer, or of what it would be without some zones.
func (w *world) askTruth(q question, gone []string) string {
	recorder := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, q.path, nil)
	w.truth.ServeHTTP(recorder, req.WithContext(without(req.Context(), gone)))
	return recorder.Body.String()
}

// answered is a question with its answer and what is to be thought of it.
type answered struct {
	question
	reply
	verdict
}

// askAll asks the questions of a round at once. What ails is in a fault.
func (r *rig) askAll(ctx context.Context, w *world, round int, ails ailment) []answered {
	list := questions(round)
	out := make([]answered, len(list))
	var wg sync.WaitGroup
	for i, q := range list {
		wg.Go(func() {
			got := r.ask(ctx, q)
			out[i] = answered{q, got, w.judge(q, got, ails, nil)}
		})
	}
	wg.Wait()
	return out
}

func allRight(list []answered) bool {
	return !slices.ContainsFunc(list, func(a answered) bool { return a.outcome != right })
}
