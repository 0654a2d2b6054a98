//go:build e2e

package e2e

import (
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
	"github.com/oneprom/oneprom/proxy/e2e/internal/world/exam"
)

// In the aligned world every answer must be the truth's, to the last bit.
func TestWorldAligned(t *testing.T) {
	w := world.Aligned(1)
	w.Start(t, t.TempDir())
	queries, err := exam.Queries("testdata/world/queries.txt")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(queries), 100)
	at := alignedEvaluations(w)

	t.Run("the truth equals itself", func(t *testing.T) {
		got := exam.All(w.Truth.URL, w.Truth.URL, everyNth(7, queries), at)
		require.Equal(t, exam.Score{Right: len(got), All: len(got)}, exam.Total(got), "%s", exam.Report(got, 20))
	})
	t.Run("a replica is told from the truth", func(t *testing.T) {
		got := exam.All(w.Truth.URL, w.Groups[0].Replicas[0].URL, everyNth(7, queries), at)
		require.Less(t, exam.Total(got).Right, len(got)/2, "%s", exam.Report(got, 0))
	})
	bothWays(t, w, func(t *testing.T, base string) { requireTruth(t, w, base, queries, at) })
	t.Run("copies", func(t *testing.T) {
		archive := &w.Groups[len(w.Groups)-1]
		archive.DataEnd, archive.CopiesOf = 0, []string{w.Groups[0].Name, w.Groups[1].Name}
		base := startWorldOneprom(t, w)
		requireTruth(t, w, base, everyNth(3, queries), at)
		alone, windows := 0, 0
		for _, region := range []string{"eu", "us"} {
			for at := 195 * time.Minute; at < 6*time.Hour; at += 5 * time.Minute {
				form := url.Values{"query": {`sum(rate(http_requests_total{region="` + region + `"}[5m]))`}, "step": {"60"}, "format": {"text"}, "analyze": {"true"}}
				form.Set("start", strconv.FormatInt(w.At(at)/1000, 10))
				form.Set("end", strconv.FormatInt(w.At(at+5*time.Minute)/1000, 10))
				_, text := fetched(t, base+"/api/v1/explain?"+form.Encode())
				if windows++; strings.Contains(string(text), "not asked: archive: its samples of that time are copies (copies_of) of those that other groups keep") {
					alone++
				}
			}
		}
		require.Greater(t, alone, windows/2, "the archive is not asked but where a replica has lost samples and the other one was away")
	})
}

// On an ordinary day nearly all is answered by one replica of each pair.
func TestWorldOrdinary(t *testing.T) {
	w := world.Ordinary(2)
	w.Start(t, t.TempDir())
	queries, err := exam.Queries("testdata/world/queries.txt")
	require.NoError(t, err)
	const h, m, s, ms = time.Hour, time.Minute, time.Second, time.Millisecond
	at := []exam.Evaluation{
		exam.Instant("a replica is away", w.At(2*h+32*m)),
		exam.Instant("the other one", w.At(5*h+22*m+77*ms)),
		exam.Instant("end", w.At(6*h-1*s)),
		exam.Range("last hour", w.At(5*h), w.At(6*h), 15*s),
		exam.Range("everything", w.At(10*m), w.At(6*h), 7*m),
		exam.Range("edge of an outage", w.At(5*h+30*m), w.At(5*h+45*m), 1700*ms),
	}
	t.Run("push-down", func(t *testing.T) { requireOnlyListed(t, w, startWorldOneprom(t, w), queries, at, "ordinary") })
	t.Run("no push-down", func(t *testing.T) { requireTruth(t, w, startWithoutPushdown(t, w), queries, at) })
}

// requireTruth asks a oneprom and the truth all queries.
func requireTruth(t *testing.T, w *world.World, base string, queries []exam.Query, at []exam.Evaluation) {
	t.Helper()
	got := exam.All(w.Truth.URL, base, queries, at)
	t.Log(exam.Report(got, 20))
	require.Equal(t, exam.Score{Right: len(got), All: len(got)}, exam.Total(got))
}

// everyNth takes each n-th query.
func everyNth(n int, queries []exam.Query) []exam.Query {
	var out []exam.Query
	for i := 0; i < len(queries); i += n {
		out = append(out, queries[i])
	}
	return out
}

// alignedEvaluations are the moments and ranges of the aligned world, chosen so that all its wounds are met: see world.Aligned.
func alignedEvaluations(w *world.World) []exam.Evaluation {
	instant := func(name string, d time.Duration) exam.Evaluation { return exam.Instant(name, w.At(d)) }
	span := func(name string, from, to, step time.Duration) exam.Evaluation {
		return exam.Range(name, w.At(from), w.At(to), step)
	}
	const h, m, s, ms = time.Hour, time.Minute, time.Second, time.Millisecond
	return []exam.Evaluation{
		instant("in the archive", 2*h),
		instant("pairs begin", 3*h+2*m),
		instant("archive ends", 4*h+90*s),
		instant("long outage", 4*h+36*m),
		instant("target down", 4*h+53*m+1*ms),
		instant("second outage", 5*h+4*m+337*ms),
		instant("short outage", 5*h+31*m),
		instant("end", 6*h-1*s),
		span("last hour", 5*h, 6*h, 15*s),
		span("seam", 2*h+30*m, 4*h+30*m, 60*s),
		span("everything", 10*m, 6*h, 7*m),
		span("edge of an outage", 5*h+28*m, 5*h+34*m, 500*ms),
		span("odd start", 4*h+25*m+123*ms, 5*h+25*m, 37*s),
	}
}
