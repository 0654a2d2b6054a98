//go:build e2e

package e2e

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
	"github.com/oneprom/oneprom/proxy/e2e/internal/world/exam"
)

// TestBenchRefresh compares the time of the panels of a dashboard that is refreshed with that of the truth, which evaluates all of them
// each time. The windows move by a step and by ten minutes. It also compares first asks with those of a oneprom that keeps nothing. All
// samples of the world are older than a day, so that nothing has to be evaluated again because it is young: see docs/cache.md. It
// judges nothing but that answers come. As for TestBenchRatios, the big world takes ONEPROM_BENCH=1.
func TestBenchRefresh(t *testing.T) {
	scale, rounds := 1, 1
	if os.Getenv("ONEPROM_BENCH") != "" {
		scale, rounds = 10, 7
	}
	w := world.Dashboards(scale).With("eu", "us")
	w.Start(t, t.TempDir())
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	defer client.CloseIdleConnections()
	front, without := runWorldOneprom(t, w), runFlaggedOneprom(t, w, []string{keepsNothing})
	var rows []refreshRow
	for _, p := range panels {
		for _, span := range []time.Duration{bh, 6 * bh} {
			p.span = span
			for _, move := range []time.Duration{p.step, 10 * bm} {
				rows = append(rows, refreshed(t, client, w, front, p.benchCase, move, min(rounds, 3)))
			}
		}
	}
	t.Logf("%d targets per region, medians of %d rounds\n%s", 6*scale, min(rounds, 3), refreshTable(rows))
	var first []float64
	for _, p := range panels {
		var with, bare []time.Duration
		for round := range 2*rounds + 1 {
			end := w.End - 10*bm.Milliseconds() + int64(round)*1373 // of another phase, which nobody has asked for
			e := exam.Range("first", end-p.span.Milliseconds(), end, p.step)
			pair := []*[]time.Duration{&with, &bare}
			urls := []string{front.URL, without.URL}
			if round%2 == 0 {
				slices.Reverse(pair)
				slices.Reverse(urls)
			}
			for i, url := range urls {
				if took := timed(t, client, url, e, exam.Query{Text: p.text}, nil); round > 0 {
					*pair[i] = append(*pair[i], took)
				}
			}
		}
		first = append(first, math.Log(median(with)/median(bare)))
	}
	t.Logf("first asks, as a ratio to those without a cache: %.3f (geometric mean)", expMean(first))
}

// refreshRow is what refreshes of a panel took, one a round.
type refreshRow struct {
	benchCase
	move          time.Duration
	truth, cached []time.Duration
}

// refreshed measures refreshes of a panel whose window moves.
func refreshed(t *testing.T, client *http.Client, w *world.World, front *world.Process, c benchCase, move time.Duration, rounds int) refreshRow {
	t.Helper()
	row := refreshRow{benchCase: c, move: move}
	end := w.End - bh.Milliseconds()
	end -= end % c.step.Milliseconds()
	for round := range rounds + 2 {
		e := exam.Range("refresh", end-c.span.Milliseconds(), end, c.step)
		q := exam.Query{Text: c.text}
		truth, cached := timed(t, client, w.Truth.URL, e, q, nil), timed(t, client, front.URL, e, q, nil)
		if round > 1 { // the first ones fill the cache
			row.truth, row.cached = append(row.truth, truth), append(row.cached, cached)
		}
		end += move.Milliseconds()
	}
	require.LessOrEqual(t, end, w.End)
	return row
}

// refreshTable prints a line per panel and the geometric means by class and range.
func refreshTable(rows []refreshRow) string {
	var b strings.Builder
	out := tabwriter.NewWriter(&b, 0, 1, 2, ' ', 0)
	fmt.Fprintln(out, "class\ttruth ms\toneprom ms\tratio\trange\tmoved by\tquery")
	logs := map[string][]float64{}
	var classes []string
	for _, r := range rows {
		ratio := median(r.cached) / median(r.truth)
		class := r.class + " " + r.span.String()
		if median(r.truth) < 20 {
			class = "under 20 ms " + r.span.String()
		}
		if logs[class] == nil {
			classes = append(classes, class)
		}
		logs[class] = append(logs[class], math.Log(ratio))
		fmt.Fprintf(out, "%s\t%.1f\t%.1f\t%.3f\t%s\t%s\t%s\n", r.class, median(r.truth), median(r.cached), ratio, r.span, r.move, r.text)
	}
	fmt.Fprintln(out, "\ngeometric mean\tratio")
	for _, class := range classes {
		fmt.Fprintf(out, "%s\t%.3f\n", class, expMean(logs[class]))
	}
	out.Flush()
	return b.String()
}
