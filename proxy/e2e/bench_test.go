//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
	"github.com/oneprom/oneprom/proxy/e2e/internal/world/exam"
	"github.com/oneprom/oneprom/proxy/verify"
)

// benchCase is one query of the benchmark; span and step of zero mean an instant query.
type benchCase struct {
	class, text string
	span, step  time.Duration
}

const (
	bh = time.Hour
	bm = time.Minute
	bs = time.Second
)

// benchCases hold ranges that stay within the HA pairs (up to two and a half hours), and ranges that reach into the archive.
var benchCases = []benchCase{
	{"aggregation over rate", `sum(rate(http_requests_total[5m]))`, bh, 15 * bs},
	{"aggregation over rate", `sum by (job, region) (rate(http_requests_total[5m]))`, 5 * bh, bm},
	{"aggregation over rate", `sum by (instance) (rate(node_cpu_seconds_total[5m]))`, bh, 15 * bs},
	{"aggregation over rate", `sum by (code) (rate(http_requests_total{job="api"}[1m]))`, bh, 10 * bs},
	{"aggregation over rate", `max by (region) (rate(node_network_receive_bytes_total[5m]))`, 5 * bh, 30 * bs},
	{"aggregation over rate", `sum(rate(http_request_duration_seconds_bucket{le="0.25"}[5m])) / sum(rate(http_request_duration_seconds_count[5m]))`, 2 * bh, bm},
	{"raw series", `http_requests_total`, bh, 15 * bs},
	{"raw series", `node_memory_MemAvailable_bytes`, 5 * bh, bm},
	{"raw series", `up`, 2 * bh, 10 * bs},
	{"raw series", `{job="api"}`, 0, 0},
	{"raw series", `rate(http_requests_total[5m])`, bh, bm},
	{"topk", `topk(5, rate(http_requests_total[5m]))`, bh, 15 * bs},
	{"topk", `topk(10, inflight_requests)`, 2 * bh, 5 * bs},
	{"topk", `bottomk by (region) (3, node_memory_MemAvailable_bytes)`, 5 * bh, 20 * bs},
	{"topk", `topk(3, sum by (instance) (rate(http_requests_total[5m])))`, bh, 30 * bs},
	{"histogram_quantile", `histogram_quantile(0.9, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))`, bh, 30 * bs},
	{"histogram_quantile", `histogram_quantile(0.99, sum by (le, job, region) (rate(http_request_duration_seconds_bucket[5m])))`, 5 * bh, 5 * bm},
	{"histogram_quantile", `histogram_quantile(0.9, sum(rate(http_latency_seconds[5m])))`, bh, bm},
	{"histogram_quantile", `histogram_quantile(0.5, sum by (region) (rate(rpc_latency_seconds[5m])))`, bh, bm},
	{"avg", `avg(http_requests_total)`, bh, 15 * bs},
	{"avg", `avg by (job, region) (rate(node_cpu_seconds_total{mode="user"}[5m]))`, 5 * bh, bm},
	{"avg", `avg by (region) (avg_over_time(inflight_requests[5m]))`, 2 * bh, 10 * bs},
	{"subquery", `max_over_time(sum(rate(http_requests_total[5m]))[30m:1m])`, bh, bm},
	{"subquery", `avg_over_time((sum by (region) (http_requests_total))[10m:15s])`, bh, bm},
	{"subquery", `quantile_over_time(0.9, sum by (instance) (rate(node_cpu_seconds_total{mode!="idle"}[2m]))[2h:30s])`, 0, 0},
}

// benchRow is what came out for a case.
type benchRow struct {
	benchCase
	truth, oneprom []time.Duration // one per round
	off            []time.Duration // oneprom without push-down, one per round
	same           bool
	cpu            [3]time.Duration // for one query: of the truth, of oneprom, of all replicas
	fetched        int64            // bytes of the replicas' answers that oneprom held
}

// TestBenchRatios compares the time of oneprom with that of the truth, one Prometheus that holds everything, on a big world, and prints
// tables; it judges nothing but that answers come. The big world takes ONEPROM_BENCH=1: without it the harness itself is tried on a small one.
func TestBenchRatios(t *testing.T) {
	scale, rounds := 1, 1
	if os.Getenv("ONEPROM_BENCH") != "" {
		scale, rounds = 10, 7
	}
	for _, w := range []*world.World{world.Ordinary(scale), world.Aligned(scale)} {
		t.Run(w.Name, func(t *testing.T) { benchRatios(t, w, scale, rounds) })
	}
}

func benchRatios(t *testing.T, w *world.World, scale, rounds int) {
	w.Start(t, t.TempDir())

	front := runWorldOneprom(t, w)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	defer client.CloseIdleConnections()
	var rows []benchRow
	for _, c := range benchCases {
		rows = append(rows, measureCase(t, client, w, front, c, rounds))
	}
	t.Logf("%d targets per region, medians of %d rounds\n%s", 20*scale, rounds, benchTable(rows))
	t.Log(bigAnswer(t, w))
}

// at is the case's evaluation in a round. Every round asks for a window that lies a bit later than the one before, off its step grid, so that
// no cache of results has the answer.
func (c benchCase) at(w *world.World, round int) exam.Evaluation {
	end := w.End - 10*bm.Milliseconds() + int64(round)*1373
	if c.step == 0 {
		return exam.Instant("bench", end)
	}
	return exam.Range("bench", end-c.span.Milliseconds(), end, c.step)
}

// measureCase asks both servers in turn, and then oneprom without push-down. A first round warms up and compares the answers.
func measureCase(t *testing.T, client *http.Client, w *world.World, front *world.Process, c benchCase, rounds int) benchRow {
	t.Helper()
	row := benchRow{benchCase: c}
	q := exam.Query{Text: c.text}
	var before [3]time.Duration
	for round := range rounds + 1 {
		e := c.at(w, round)
		if round == 0 {
			want, err := verify.Ask(t.Context(), client, w.Truth.URL, e.Path(), e.Form(q))
			require.NoError(t, err)
			got, err := verify.Ask(t.Context(), client, front.URL, e.Path(), e.Form(q))
			require.NoError(t, err)
			differences := exam.Differences(q, want, got)
			if row.same = len(differences) == 0; !row.same {
				t.Logf("%s differs: %.300s", c.text, differences[0])
			}
			row.fetched = fetchedBytes(t, client, front.URL, e.Form(q))
			before = cpuTimes(t, w, front)
			continue
		}
		first, second := &row.truth, &row.oneprom
		urls := []string{w.Truth.URL, front.URL}
		if round%2 == 0 {
			first, second = second, first
			slices.Reverse(urls)
		}
		*first = append(*first, timed(t, client, urls[0], e, q, nil))
		*second = append(*second, timed(t, client, urls[1], e, q, nil))
	}
	for i, d := range cpuTimes(t, w, front) {
		row.cpu[i] = (d - before[i]) / time.Duration(rounds)
	}
	for round := range rounds {
		row.off = append(row.off, timed(t, client, front.URL, c.at(w, rounds+1+round), q, pushdownOff))
	}
	return row
}

// cpuTimes are the processor times so far of the truth, of oneprom, and of all replicas together.
func cpuTimes(t *testing.T, w *world.World, front *world.Process) (all [3]time.Duration) {
	t.Helper()
	pids := [3][]int{{w.Truth.PID}, {front.PID}, nil}
	for _, g := range w.Groups {
		for _, r := range g.Replicas {
			pids[2] = append(pids[2], r.PID)
		}
	}
	for i := range pids {
		for _, pid := range pids[i] {
			d, err := world.CPU(pid)
			require.NoError(t, err)
			all[i] += d
		}
	}
	return all
}

// fetchedBytes asks for what a query fetches.
func fetchedBytes(t *testing.T, client *http.Client, base string, form url.Values) int64 {
	t.Helper()
	form = maps.Clone(form)
	form.Set("analyze", "true")
	resp, err := client.PostForm(base+"/api/v1/explain", form)
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct {
		Data struct{ Analysis struct{ Bytes int64 } }
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	return answer.Data.Analysis.Bytes
}

// timed is the time until the last byte of the answer has arrived.
func timed(t *testing.T, client *http.Client, base string, e exam.Evaluation, q exam.Query, headers map[string]string) time.Duration {
	t.Helper()
	began := time.Now()
	require.NoError(t, answers(client, base, e, q, headers))
	return time.Since(began)
}

// answers asks for an answer and reads it. It fails if that is an error.
func answers(client *http.Client, base string, e exam.Evaluation, q exam.Query, headers map[string]string) error {
	req, err := http.NewRequest(http.MethodPost, base+e.Path(), strings.NewReader(e.Form(q).Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err = io.Copy(io.Discard, resp.Body); err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, q.Text)
	}
	return err
}

func median(all []time.Duration) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return float64(sorted[len(sorted)/2].Microseconds()) / 1000
}

// benchTable prints a line per case and the geometric mean of the ratios per class and in all.
func benchTable(rows []benchRow) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 1, 2, ' ', 0)
	fmt.Fprintln(w, "class\ttruth ms\toneprom ms\tratio\twithout push-down\tanswer\tCPU ms: truth\toneprom\treplicas\tKiB\trange/step\tquery")
	logs, off := map[string][]float64{}, map[string][]float64{}
	var classes []string
	for _, r := range rows {
		truth, oneprom := median(r.truth), median(r.oneprom)
		ratio, without := oneprom/truth, median(r.off)/truth
		if logs[r.class] == nil {
			classes = append(classes, r.class)
		}
		for _, class := range []string{r.class, "all"} {
			logs[class] = append(logs[class], math.Log(ratio))
			off[class] = append(off[class], math.Log(without))
		}
		equal := "equal"
		if !r.same {
			equal = "DIFFERS"
		}
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.2f\t%.2f\t%s\t%d\t%d\t%d\t%d\t%s/%s\t%s\n", r.class, truth, oneprom, ratio, without, equal,
			r.cpu[0].Milliseconds(), r.cpu[1].Milliseconds(), r.cpu[2].Milliseconds(), r.fetched>>10, r.span, r.step, r.text)
	}
	fmt.Fprintln(w, "\ngeometric mean\tratio\twithout push-down")
	for _, class := range append(classes, "all") {
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\n", class, expMean(logs[class]), expMean(off[class]))
	}
	w.Flush()
	return b.String()
}

// expMean is the geometric mean of numbers of which these are the logarithms.
func expMean(logs []float64) float64 {
	sum := 0.0
	for _, l := range logs {
		sum += l
	}
	return math.Exp(sum / float64(len(logs)))
}

// bigAnswer tells how much memory a fresh oneprom needs at its peak for one answer, of two million points on the big world.
func bigAnswer(t *testing.T, w *world.World) string {
	t.Helper()
	p := runWorldOneprom(t, w)
	idle, err := p.PeakMemory()
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	e := exam.Range("big", w.End-3*bh.Milliseconds(), w.End, 8*bs)
	began := time.Now()
	resp, err := client.PostForm(p.URL+e.Path(), e.Form(exam.Query{Text: "http_request_duration_seconds_bucket"}))
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	took := time.Since(began)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	peak, err := p.PeakMemory()
	require.NoError(t, err)
	series := bytes.Count(body, []byte(`"metric":`))
	points := bytes.Count(body, []byte("]")) - series - 1 // each point, each list of points, and the list of series end with one
	return fmt.Sprintf("an answer of %d series, %d points, %.1f MB in %s: peak RSS %.0f MiB (%.0f MiB before)",
		series, points, float64(len(body))/1e6, took.Round(time.Millisecond), float64(peak)/(1<<20), float64(idle)/(1<<20))
}
