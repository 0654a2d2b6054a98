package verify

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A verdict is how two answers compare.
type verdict string

const (
	isEqual        verdict = "equal"
	onlyInfos      verdict = "infos"   // equal, but for infos
	isPartial      verdict = "partial" // the warnings differ: one of the two says that it is not all
	isDifferent    verdict = "different"
	bothFail       verdict = "both failed" // in the same way
	referenceFails verdict = "reference failed"
	testFails      verdict = "test failed"
)

// verdicts in the order of the report.
var verdicts = []verdict{isEqual, onlyInfos, isDifferent, isPartial, testFails, referenceFails, bothFail}

// A result is what became of a question.
type result struct {
	Question
	verdict         verdict
	text            string // what the first difference is, "" if there is none
	reference, test time.Duration
}

// verification asks two servers.
type verification struct {
	client          *http.Client
	reference, test string
	timeout         time.Duration
	tolerance       Tolerance
	progress        *progressLine
}

// askAll asks all questions, some at once, until ctx ends. The results are those of the questions that were answered, in their order.
func (v *verification) askAll(ctx context.Context, questions []Question, concurrency int) []result {
	all := make([]*result, len(questions))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(concurrency, len(questions)) {
		wg.Go(func() {
			for i := range next {
				r := v.ask(ctx, questions[i])
				if ctx.Err() == nil { // or what failed may be the interruption
					all[i] = &r
					v.progress.asked(r)
				}
			}
		})
	}
	for i := range questions {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	v.progress.end()
	var results []result
	for _, r := range all {
		if r != nil {
			results = append(results, *r)
		}
	}
	return results
}

// ask asks both servers at once.
func (v *verification) ask(ctx context.Context, q Question) result {
	ctx, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	r := result{Question: q}
	one := func(base string, answer **Answer, err *error, took *time.Duration) {
		began := time.Now()
		*answer, *err = Ask(ctx, v.client, base, q.path(), q.form())
		*took = time.Since(began)
	}
	var want, got *Answer
	var wantErr, gotErr error
	var wg sync.WaitGroup
	wg.Go(func() { one(v.reference, &want, &wantErr, &r.reference) })
	wg.Go(func() { one(v.test, &got, &gotErr, &r.test) })
	wg.Wait()
	r.verdict, r.text = judge(q.Query, want, wantErr, got, gotErr, v.tolerance)
	return r
}

// judge compares two answers. Where both fail in the same way, in other words perhaps, they agree.
func judge(query string, want *Answer, wantErr error, got *Answer, gotErr error, tolerance Tolerance) (verdict, string) {
	wantFails, gotFails := failure(want, wantErr), failure(got, gotErr)
	switch {
	case wantFails != "" && gotFails != "" && wantErr == nil && gotErr == nil && want.ErrorType == got.ErrorType:
		return bothFail, "reference: " + wantFails + "; test: " + gotFails
	case wantFails != "" && gotFails != "":
		return referenceFails, "reference: " + wantFails + "; test: " + gotFails
	case wantFails != "":
		return referenceFails, wantFails
	case gotFails != "":
		return testFails, gotFails
	}
	data := Differences(query, want, got, tolerance)
	warnings, infos := NoticeDifferences(want, got)
	switch {
	case len(warnings) > 0:
		return isPartial, strings.Join(append(warnings, data[:min(1, len(data))]...), "; ")
	case len(data) > 0:
		return isDifferent, data[0] + more(len(data)-1)
	case len(infos) > 0:
		return onlyInfos, infos[0]
	}
	return isEqual, ""
}

// failure is why there is no data, "" if there are.
func failure(a *Answer, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case a.Status != "success":
		return fmt.Sprintf("%d %s: %s", a.HTTPStatus, a.ErrorType, a.Error)
	}
	return ""
}

func more(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; and %d more", n)
}

// progressLine is a line on a terminal that is written anew with each answer.
type progressLine struct {
	out io.Writer
	all int

	mtx           sync.Mutex // guards the fields below
	done, unequal int
}

func (p *progressLine) asked(r result) {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	p.done++
	if r.verdict != isEqual {
		p.unequal++
	}
	fmt.Fprintf(p.out, "\r%d of %d queries asked, %d not equal ", p.done, p.all, p.unequal)
}

// end removes the line.
func (p *progressLine) end() { fmt.Fprint(p.out, "\r\033[K") }
