//go:build e2e

package e2e

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
	"github.com/oneprom/oneprom/proxy/e2e/internal/world/exam"
	"github.com/oneprom/oneprom/proxy/verify"
)

// loadQueries are asked under load: what replicas evaluate, and samples. The one target of which both replicas of a pair have lost
// scrapes is left out, so that one replica is enough.
var loadQueries = []string{
	`sum(rate(http_requests_total{instance!~".*-7:8080"}[5m]))`,
	`sum by (region, job) (rate(http_requests_total{instance!~".*-7:8080"}[5m]))`,
	`histogram_quantile(0.9, sum by (le) (rate(http_request_duration_seconds_bucket{instance!~".*-7:8080"}[5m])))`,
	`max_over_time(node_memory_MemAvailable_bytes[10m])`,
	`count(up{instance!~".*-7:8080"})`,
	`up{instance!~".*-7:8080"}`,
}

const (
	loadRate    = 30 // queries a second
	loadTimeout = 10 * time.Second
)

// loadVerdict is what an answer under load is.
type loadVerdict int

const (
	rightAnswer   loadVerdict = iota // the truth's
	partialAnswer                    // a partial answer that says so
	errorAnswer                      // an error
	wrongAnswer                      // anything else
)

// loadCase is a query with the truth's answer.
type loadCase struct {
	query  exam.Query
	target vegeta.Target
	want   *verify.Answer
}

// TestLoad_ServersThatStopDieAndComeBack asks queries under load while real servers hang, die and return. No answer is
// wrong without saying so; a replica that is lost while its twin is whole shows in no answer; ten seconds after the
// servers are back, everything is as before.
func TestLoad_ServersThatStopDieAndComeBack(t *testing.T) {
	w := world.Ordinary(2)
	w.Start(t, t.TempDir())
	front := runWorldOneprom(t, w)
	cases := loadCases(t, w, front)
	eu := w.Groups[0].Replicas
	signal := func(sig syscall.Signal, servers ...*world.Server) func() {
		return func() {
			for _, s := range servers {
				require.NoError(t, s.Signal(sig))
			}
		}
	}
	phases := []struct {
		name  string
		begin func()
		last  time.Duration
		// whole tells that every answer is to be right, once settled.
		whole bool
	}{
		{"all well", func() {}, 10 * time.Second, true},
		{"eu-a hangs (SIGSTOP)", signal(syscall.SIGSTOP, eu[0]), 15 * time.Second, true},
		{"it is back", signal(syscall.SIGCONT, eu[0]), 12 * time.Second, true},
		{"eu-a is killed", eu[0].Kill, 10 * time.Second, true},
		{"it is started again", func() { eu[0].Restart(t) }, 12 * time.Second, true},
		{"region eu hangs", signal(syscall.SIGSTOP, eu...), 20 * time.Second, false},
		{"it is back", signal(syscall.SIGCONT, eu...), 15 * time.Second, true},
		{"region eu is killed", func() { eu[0].Kill(); eu[1].Kill() }, 10 * time.Second, false},
		{"it is started again", func() { eu[0].Restart(t); eu[1].Restart(t) }, 15 * time.Second, true},
	}
	var b strings.Builder
	tab := tabwriter.NewWriter(&b, 0, 1, 2, ' ', 0)
	fmt.Fprintln(tab, "phase\tanswers\tright\tpartial, labelled\terrors\tWRONG\tp50 ms\tp99 ms\tp50 of the last 5 s\tp99 of the last 5 s\tlast not right after")
	for _, p := range phases {
		p.begin()
		r := attack(t, cases, p.last)
		fmt.Fprintf(tab, "%s\t%d\t%d\t%d\t%d\t%d\t%s\n", p.name, len(r.results), r.count[rightAnswer], r.count[partialAnswer], r.count[errorAnswer], r.count[wrongAnswer], r.times(p.last))
		require.Zero(t, r.count[wrongAnswer], "%s: %s", p.name, r.example)
		if p.whole {
			require.LessOrEqual(t, r.lastBad, 10*time.Second, "%s: %s", p.name, r.example)
		}
	}
	tab.Flush()
	t.Logf("%d queries a second\n%s", loadRate, &b)
}

// TestLoad_BurstOverTheSlots has ten times as many clients as there are slots ask for much at once: each answer is right or a 429 that names
// the knob, and oneprom needs the memory of those that it has let in, not of all.
func TestLoad_BurstOverTheSlots(t *testing.T) {
	const slots, clients, wait, timeout = 4, 40, time.Second, 20 * time.Second
	w := world.Ordinary(2)
	w.Start(t, t.TempDir())
	front := runFlaggedOneprom(t, w, []string{
		fmt.Sprintf("--query.max-concurrency=%d", slots), "--query.queue-timeout=" + wait.String(), "--query.timeout=" + timeout.String(),
	})
	var asked atomic.Int64
	ask := func() vegeta.Target {
		later := asked.Add(1) * 1000 // so that no two share an execution
		e := exam.Range("burst", w.End-(2*time.Hour).Milliseconds()+later, w.End, 10*bs)
		return vegeta.Target{
			Method: http.MethodPost, URL: front.URL + e.Path(), Body: []byte(e.Form(exam.Query{Text: "http_request_duration_seconds_bucket"}).Encode()),
			Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
		}
	}
	burst := func(clients uint64, last time.Duration) (codes map[uint16]int, answered []time.Duration) {
		attacker := vegeta.NewAttacker(vegeta.Timeout(wait+timeout+10*time.Second), vegeta.Workers(clients), vegeta.MaxWorkers(clients), vegeta.MaxBody(1<<10))
		defer attacker.Stop()
		codes = map[uint16]int{}
		for r := range attacker.Attack(func(tgt *vegeta.Target) error { *tgt = ask(); return nil }, vegeta.Rate{}, last, "burst") {
			codes[r.Code]++
			switch r.Code {
			case http.StatusOK:
				answered = append(answered, r.Latency)
			case http.StatusTooManyRequests:
				require.Contains(t, string(r.Body), "--query.")
				require.NotEmpty(t, r.Headers.Get("Retry-After"))
			default:
				t.Errorf("%d %s: %s", r.Code, r.Error, r.Body)
			}
		}
		slices.Sort(answered)
		return codes, answered
	}
	_, alone := burst(slots, 5*time.Second)
	before, err := front.PeakMemory()
	require.NoError(t, err)
	codes, answered := burst(clients, 10*time.Second)
	after, err := front.PeakMemory()
	require.NoError(t, err)
	t.Logf("%d slots: p99 %s, peak RSS %d MiB; %d clients: %d answers, p99 %s, %d refused, peak RSS %d MiB", slots, alone[len(alone)*99/100], before>>20,
		clients, codes[http.StatusOK], answered[len(answered)*99/100], codes[http.StatusTooManyRequests], after>>20)
	require.Positive(t, codes[http.StatusTooManyRequests])
	require.Less(t, answered[len(answered)-1], wait+timeout)
	require.Less(t, after, 4*before) // a slot is free when an answer begins: some are being written
}

// loadCases are the queries over windows in which one replica of each pair is whole.
func loadCases(t *testing.T, w *world.World, front *world.Process) []loadCase {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var out []loadCase
	for i := range 5 {
		end := w.Begin + (200+15*int64(i))*bm.Milliseconds()
		for _, text := range loadQueries {
			q, e := exam.Query{Text: text}, exam.Range("load", end-(20*bm).Milliseconds(), end, 30*bs)
			want, err := verify.Ask(t.Context(), client, w.Truth.URL, e.Path(), e.Form(q))
			require.NoError(t, err)
			got, err := verify.Ask(t.Context(), client, front.URL, e.Path(), e.Form(q))
			require.NoError(t, err)
			require.Empty(t, apart(want, got), text)
			form := e.Form(q)
			form.Set("timeout", loadTimeout.String())
			out = append(out, loadCase{q, vegeta.Target{
				Method: http.MethodPost, URL: front.URL + e.Path(), Body: []byte(form.Encode()),
				Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
			}, want})
		}
	}
	return out
}

// attacked is what came of an attack.
type attacked struct {
	results []*vegeta.Result
	count   map[loadVerdict]int
	example string        // of an answer that was not right
	lastBad time.Duration // when the last query was asked whose answer was not right; 0: there was none
}

// attack asks the cases in turn and judges the answers.
func attack(t *testing.T, cases []loadCase, last time.Duration) *attacked {
	t.Helper()
	i := -1
	targeter := func(tgt *vegeta.Target) error { // one goroutine asks for targets at a time
		i++
		*tgt = cases[i%len(cases)].target
		return nil
	}
	attacker := vegeta.NewAttacker(vegeta.Timeout(loadTimeout+5*time.Second), vegeta.Workers(16), vegeta.MaxWorkers(2000))
	defer attacker.Stop()
	a := &attacked{count: map[loadVerdict]int{}}
	began := time.Now()
	for r := range attacker.Attack(targeter, vegeta.Rate{Freq: loadRate, Per: time.Second}, last, "load") {
		a.results = append(a.results, r)
	}
	for _, r := range a.results {
		v, why := judged(cases[r.Seq%uint64(len(cases))], r)
		a.count[v]++
		if v != rightAnswer {
			a.lastBad = max(a.lastBad, r.Timestamp.Sub(began))
			if a.example == "" || v == wrongAnswer {
				a.example = why
			}
		}
	}
	return a
}

// judged tells what a result is, and what is not right about it.
func judged(c loadCase, r *vegeta.Result) (loadVerdict, string) {
	got, err := verify.Parse(r.Body, int(r.Code))
	if err != nil {
		return wrongAnswer, fmt.Sprintf("%s: %s (%s)", c.query.Text, err, r.Error)
	}
	if got.Status == "error" {
		return errorAnswer, got.Error
	}
	if slices.ContainsFunc(got.Warnings, func(w string) bool { return strings.Contains(w, "partial answer") }) {
		return partialAnswer, strings.Join(got.Warnings, "; ")
	}
	if differ := apart(c.want, got); differ != "" {
		return wrongAnswer, fmt.Sprintf("%s: %s (infos %q)", c.query.Text, differ, got.Infos)
	}
	return rightAnswer, ""
}

// apart tells where two answers differ by more than last digits: sums are added up in another order when another replica
// answers. That one is missing is an info, so that infos are not compared.
func apart(want, got *verify.Answer) string {
	if len(want.Series) != len(got.Series) {
		return fmt.Sprintf("%d series instead of %d", len(got.Series), len(want.Series))
	}
	for i, s := range want.Series {
		o := got.Series[i]
		if s.Name != o.Name || len(s.Points) != len(o.Points) {
			return fmt.Sprintf("%s with %d points instead of %s with %d", o.Name, len(o.Points), s.Name, len(s.Points))
		}
		for j, p := range s.Points {
			a, errA := p.Float()
			b, errB := o.Points[j].Float()
			if errA != nil || errB != nil || p.T != o.Points[j].T || !(math.Abs(a-b) <= 1e-12*math.Abs(a)) {
				return fmt.Sprintf("%s: %v instead of %v", s.Name, o.Points[j], p)
			}
		}
	}
	return ""
}

// times are the latencies, in ms, and how long it took until all was right.
func (a *attacked) times(last time.Duration) string {
	of := func(from time.Duration) (p50, p99 float64) {
		var all []time.Duration
		for _, r := range a.results {
			if r.Timestamp.Sub(a.results[0].Timestamp) >= from {
				all = append(all, r.Latency)
			}
		}
		slices.Sort(all)
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		return ms(all[len(all)/2]), ms(all[len(all)*99/100])
	}
	p50, p99 := of(0)
	late50, late99 := of(last - 5*time.Second)
	return fmt.Sprintf("%.1f\t%.1f\t%.1f\t%.1f\t%s", p50, p99, late50, late99, a.lastBad.Round(100*time.Millisecond))
}
