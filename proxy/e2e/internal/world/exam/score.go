package exam

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/oneprom/oneprom/proxy/verify"
)

// Verdict is the outcome of one query at one Evaluation.
type Verdict struct {
	Query       Query
	At          Evaluation
	Differences []string // none: right
}

// All asks the truth and the candidate (base URLs) every query at every evaluation.
func All(truth, candidate string, queries []Query, at []Evaluation) []Verdict {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	defer client.CloseIdleConnections()
	var out []Verdict
	for _, q := range queries {
		for _, e := range at {
			out = append(out, Verdict{q, e, compare(client, truth, candidate, q, e)})
		}
	}
	return out
}

// compare asks both servers at the same time.
func compare(client *http.Client, truth, candidate string, q Query, e Evaluation) []string {
	var want, got *verify.Answer
	var wantErr, gotErr error
	var wg sync.WaitGroup
	wg.Go(func() { want, wantErr = verify.Ask(context.Background(), client, truth, e.Path(), e.Form(q)) })
	wg.Go(func() { got, gotErr = verify.Ask(context.Background(), client, candidate, e.Path(), e.Form(q)) })
	wg.Wait()
	switch {
	case wantErr != nil:
		return []string{"the truth does not answer: " + wantErr.Error()}
	case gotErr != nil:
		return []string{"no answer: " + gotErr.Error()}
	}
	return Differences(q, want, got)
}

// LastDigits is how far, relatively, two values may be apart that are the same: four units in the last place.
const LastDigits = 9e-16

// Differences lists how got differs from the truth, most telling first: in data, order, warnings and infos.
func Differences(q Query, want, got *verify.Answer) []string {
	out := verify.Differences(q.Text, want, got, verify.Within(LastDigits))
	if len(out) == 0 && want.Data.ResultType == "matrix" && slices.Equal(slices.Sorted(names(want)), slices.Sorted(names(got))) {
		out = verify.OrderDifference(want.Series, got.Series) // a matrix is sorted by labels
	}
	warnings, infos := verify.NoticeDifferences(want, got)
	return append(append(out, warnings...), infos...)
}

// names are those of the series of an answer.
func names(a *verify.Answer) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, s := range a.Series {
			if !yield(s.Name) {
				return
			}
		}
	}
}

// Score counts the right answers among all.
type Score struct{ Right, All int }

func (s *Score) add(ok bool) {
	s.All++
	if ok {
		s.Right++
	}
}

// scores counts by a property of the verdicts; the names are in order of appearance.
func scores(verdicts []Verdict, by func(Verdict) string) (names []string, counts map[string]*Score) {
	counts = map[string]*Score{}
	for _, v := range verdicts {
		name := by(v)
		if counts[name] == nil {
			counts[name] = &Score{}
			names = append(names, name)
		}
		counts[name].add(len(v.Differences) == 0)
	}
	return names, counts
}

// Total is the score of all verdicts together.
func Total(verdicts []Verdict) Score {
	var s Score
	for _, v := range verdicts {
		s.add(len(v.Differences) == 0)
	}
	return s
}

// Report prints the tables per class and per evaluation, the queries that are not always right, and the first cases in full.
func Report(verdicts []Verdict, fullCases int) string {
	var b strings.Builder
	table := func(title string, by func(Verdict) string, onlyWrong bool) {
		w := tabwriter.NewWriter(&b, 0, 1, 2, ' ', 0)
		fmt.Fprintf(w, "\n%s\tright\ttotal\n", title)
		names, counts := scores(verdicts, by)
		for _, n := range names {
			if c := counts[n]; !onlyWrong || c.Right < c.All {
				fmt.Fprintf(w, "%s\t%d\t%d\n", n, c.Right, c.All)
			}
		}
		w.Flush()
	}
	table("class", func(v Verdict) string { return v.Query.Class }, false)
	table("evaluation", func(v Verdict) string { return v.At.Name }, false)
	table("queries that are not always right", func(v Verdict) string { return v.Query.Text }, true)
	all := Total(verdicts)
	fmt.Fprintf(&b, "\nall: %d of %d right\n", all.Right, all.All)
	b.WriteString(firstCases(verdicts, fullCases))
	return b.String()
}

// firstCases prints the first differing case of the first n queries that differ.
func firstCases(verdicts []Verdict, n int) string {
	var b strings.Builder
	var seen []string
	for _, v := range verdicts {
		if len(v.Differences) == 0 || slices.Contains(seen, v.Query.Text) {
			continue
		}
		if seen = append(seen, v.Query.Text); len(seen) > n {
			break
		}
		fmt.Fprintf(&b, "\n--- %s\n    %s: %s %s\n", v.Query.Text, v.At.Name, v.At.Path(), v.At.Form(v.Query).Encode())
		for i, d := range v.Differences {
			if i == 4 {
				fmt.Fprintf(&b, "    and %d more\n", len(v.Differences)-i)
				break
			}
			fmt.Fprintf(&b, "    %.1200s\n", d)
		}
	}
	return b.String()
}
