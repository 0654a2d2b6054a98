//go:build e2e

package e2e

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
	"github.com/oneprom/oneprom/proxy/e2e/internal/world/exam"
)

// panel is a panel of a dashboard.
type panel struct {
	benchCase
	// byHand is what a perfect plan asks one replica of each region for, handBack before the panel's range, at steps of handStep;
	// "" and 0 are as in the panel.
	byHand             string
	handBack, handStep time.Duration
}

// panels are the usual ones, of the six hours that a dashboard shows.
var panels = []panel{
	{benchCase: benchCase{"aggregation", `sum(rate(http_requests_total[5m]))`, 6 * bh, 30 * bs}},
	{benchCase: benchCase{"aggregation", `sum by (job, code) (rate(http_requests_total[5m]))`, 6 * bh, 30 * bs}},
	{benchCase: benchCase{"aggregation", `histogram_quantile(0.9, sum by (le, job) (rate(http_request_duration_seconds_bucket[5m])))`, 6 * bh, 30 * bs}, byHand: `sum by (le, job) (rate(http_request_duration_seconds_bucket[5m]))`},
	{benchCase: benchCase{"topk", `topk(5, sum by (instance) (rate(http_requests_total[5m])))`, 6 * bh, 30 * bs}},
	{benchCase: benchCase{"average", `avg by (instance) (rate(http_requests_total[5m]))`, 6 * bh, 30 * bs}},
	{benchCase: benchCase{"raw series", `inflight_requests`, 6 * bh, 30 * bs}},
	{benchCase: benchCase{"aggregation", `sum by (job) (up)`, 6 * bh, 30 * bs}},
	{benchCase: benchCase{"aggregation", `sum by (code) (rate(http_requests_total{path="/items"}[5m]))`, 6 * bh, 30 * bs}},
	{benchCase: benchCase{"raw series", `http_requests_total`, 6 * bh, 30 * bs}},
	{benchCase: benchCase{"aggregation", `max_over_time(sum(rate(http_requests_total[5m]))[30m:1m])`, 6 * bh, 30 * bs}, byHand: `sum(rate(http_requests_total[5m]))`, handBack: 30 * bm, handStep: bm},
}

// layout is a way to put the dashboards' servers behind a oneprom.
type layout struct {
	name   string
	groups []string
	change func(archive *world.Group)
}

// layouts are those that people have. The range of an archive touches that of the panels.
func layouts(w *world.World) []layout {
	old := func(g *world.Group) { g.DataEnd = w.At(90 * bm) }
	return []layout{
		{"pairs alone", []string{"eu", "us"}, nil},
		{"an archive of what is old", []string{"eu", "us", "archive"}, old},
		{"an archive of copies", []string{"eu", "us", "archive"}, func(g *world.Group) { g.CopiesOf = []string{"eu", "us"} }},
		{"an archive, no more is said", []string{"eu", "us", "archive"}, nil},
		{"a VictoriaMetrics of what is old", []string{"eu", "us", "victoriametrics"}, old},
	}
}

// of is the world as a layout has it.
func (l layout) of(w *world.World) *world.World {
	part := w.With(l.groups...)
	if l.change != nil {
		l.change(&part.Groups[len(part.Groups)-1])
	}
	return part
}

// TestBenchDashboards compares the time of the panels of a dashboard with that of the truth in several layouts, and with the requests
// that a perfect plan would make, sent by hand and at once. It prints tables and judges nothing but that answers come. As for
// TestBenchRatios, the big world takes ONEPROM_BENCH=1.
func TestBenchDashboards(t *testing.T) {
	scale, rounds := 1, 1
	if os.Getenv("ONEPROM_BENCH") != "" {
		scale, rounds = 10, 7
	}
	w := world.Dashboards(scale)
	w.Start(t, t.TempDir())
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	defer client.CloseIdleConnections()
	floors := make([]float64, len(panels))
	for i, p := range panels {
		floors[i] = p.floor(t, client, w, rounds)
	}
	t.Logf("%d targets per region, medians of %d rounds", 6*scale, rounds)
	for _, l := range layouts(w) {
		part := l.of(w)
		front := runWorldOneprom(t, part)
		var rows []benchRow
		for _, p := range panels {
			rows = append(rows, measureCase(t, client, part, front, p.benchCase, rounds))
		}
		t.Logf("%s\n%s\n%s", l.name, benchTable(rows), floorTable(rows, floors))
	}
}

// floor is the time (ms) that the requests of a perfect plan take.
func (p panel) floor(t *testing.T, client *http.Client, w *world.World, rounds int) float64 {
	t.Helper()
	text, step := cmp.Or(p.byHand, p.text), cmp.Or(p.handStep, p.step)
	var all []time.Duration
	for round := range rounds + 1 {
		end := w.End - 10*bm.Milliseconds() + int64(round)*1373
		e := exam.Range("bench", end-(p.span+p.handBack).Milliseconds(), end, step)
		began := time.Now()
		var asked errgroup.Group
		for _, g := range w.With("eu", "us").Groups {
			asked.Go(func() error { return answers(client, g.Replicas[0].URL, e, exam.Query{Text: text}, nil) })
		}
		require.NoError(t, asked.Wait())
		if round > 0 { // the first one warms up
			all = append(all, time.Since(began))
		}
	}
	return median(all)
}

// floorTable prints how the times compare with the floors (ms).
func floorTable(rows []benchRow, floors []float64) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 1, 2, ' ', 0)
	fmt.Fprintln(w, "floor ms\tfloor / truth\toneprom / floor\tquery")
	worst := 0.0
	for i, r := range rows {
		over := median(r.oneprom) / floors[i]
		worst = max(worst, over)
		fmt.Fprintf(w, "%.1f\t%.2f\t%.2f\t%s\n", floors[i], floors[i]/median(r.truth), over, r.text)
	}
	fmt.Fprintf(w, "\t\t%.2f\tat most\n", worst)
	w.Flush()
	return b.String()
}

// TestLayouts_ShareNothing: a layout changes its own group only.
func TestLayouts_ShareNothing(t *testing.T) {
	w := world.Dashboards(1)
	for _, l := range layouts(w) {
		got := l.of(w)
		require.Len(t, got.Groups, len(l.groups), l.name)
		require.False(t, slices.ContainsFunc(w.Groups, func(g world.Group) bool { return g.DataEnd != 0 || len(g.CopiesOf) > 0 }), l.name)
	}
}
