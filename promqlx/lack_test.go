package promqlx

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/evidence"
)

// A replica may lack series although its scrapes are whole. Each test compares with the truth.

// hold has a store answer with other data, without any sign that something has changed.
func (s *store) hold(t *testing.T, load string) {
	t.Helper()
	h := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s"+load), EarlyNames: true})
	s.everywhere(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/status/runtimeinfo", "/api/v1/status/tsdb/blocks":
			s.own.ServeHTTP(w, r)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// clockedEngine is an engine over a group whose clock can be set forward; it begins three hours after
// the first sample.
func clockedEngine(t testing.TB, cfgs ...config.Group) (*Engine, *atomic.Int64) {
	t.Helper()
	now := &atomic.Int64{}
	now.Store(3 * 3600_000)
	set, err := servergroup.NewSet(servergroup.Options{
		Now: func() time.Time { return time.UnixMilli(now.Load()) }, Features: []string{"use-start-timestamps"},
	})
	require.NoError(t, err)
	t.Cleanup(set.Close)
	require.NoError(t, set.Apply(t.Context(), cfgs, config.PartialError))
	e := NewEngine(executionOpts(), set)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e, now
}

// scraped is the data of three targets that were never away, with other series of theirs.
func scraped(more ...string) string {
	var b strings.Builder
	for i := range 3 {
		fmt.Fprintf(&b, "\n  up{instance=\"t%d\",job=\"j\"} 1x720", i)
	}
	for _, s := range more {
		b.WriteString("\n  " + s)
	}
	return b.String()
}

const (
	x0 = `x_total{instance="t0",job="j"} 0+7x720`
	x1 = `x_total{instance="t1",job="j"} 0+8x720`
	x2 = `x_total{instance="t2",job="j"} 0+9x720`
)

var lackQueries = []string{
	`x_total`, `sum(x_total)`, `sum(rate(x_total[5m]))`, `count(x_total)`, `avg by (job) (x_total)`,
	`count_over_time(x_total[10m])`, `max_over_time(count(x_total)[10m:1m])`, `{job="j",__name__=~"x_.+"}`,
}

// TestLack: one replica lacks series for a while, whose targets it has scraped all the time. Which
// one it is does not matter.
func TestLack(t *testing.T) {
	all := scraped(x0, x1, x2)
	for name, load := range map[string]string{
		"a single series was deleted":             scraped(x0, x1),
		"all series of a name were deleted":       scraped(),
		"series were deleted in the middle":       scraped(x0, x1, `x_total{instance="t2",job="j"} 0+9x99 _x60 1440+9x560`),
		"a rule was there from some time on":      scraped(x0, x1, `x_total{instance="t2",job="j"} _x200 1800+9x520`),
		"a rule was there until some time":        scraped(x0, x1, `x_total{instance="t2",job="j"} 0+9x160`),
		"a client could not push for ten minutes": scraped(x0, x1, `x_total{instance="t2",job="j"} 0+9x119 _x40 1440+9x560`),
	} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprint(name, first), func(t *testing.T) {
				a, b := newStore(t, load), newStore(t, all)
				reference := truthOf(t, all)
				stores := []*store{a, b}
				if !first {
					stores = []*store{b, a}
					a.refuse(backendtest.TellsSeries) // as they do if the series are many
					b.refuse(backendtest.TellsSeries)
				}
				e, _ := clockedEngine(t, groupAt("g", nil, stores...))
				for range 2 { // the counts are under way, and known
					for _, text := range lackQueries {
						requireTruth(t, e, reference, text, at(15, 70))
						requireTruth(t, e, reference, text, instantAt(33))
					}
				}
			})
		}
	}
}

// refuse has a store refuse some requests, as a Prometheus refuses a query that it cannot evaluate.
func (s *store) refuse(which func(*http.Request) bool) {
	s.everywhere(func(w http.ResponseWriter, r *http.Request) {
		if which(r) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"status":"error","errorType":"execution","error":"index out of range"}`)
			return
		}
		s.own.ServeHTTP(w, r)
	})
}

// TestLack_EquallyMany: the replicas lack different series, but equally many.
func TestLack_EquallyMany(t *testing.T) {
	const more = `x_total{code="2",instance="t2",job="j"} 5+3x720`
	for name, loads := range map[string][2]string{
		"each lacks another series":                {scraped(x0, x1, more), scraped(x0, x2, more)},
		"of one target":                            {scraped(x0, x1, x2), scraped(x0, x1, more)},
		"samples came late, of others at each one": {scraped(x0, x1, x2, `x_total{code="2",instance="t2",job="j"} 5+3x99 _x40 425+3x580`), scraped(x0, x1, more, `x_total{instance="t2",job="j"} 0+9x99 _x40 1260+9x580`)},
	} {
		t.Run(name, func(t *testing.T) {
			all := scraped(x0, x1, x2, more)
			a, b := newStore(t, loads[0]), newStore(t, loads[1])
			reference := truthOf(t, all)
			e, _ := clockedEngine(t, groupAt("g", nil, a, b))
			for range 2 { // it is under way, and known
				for _, text := range append(lackQueries, `sum by (code) (x_total)`) {
					requireTruth(t, e, reference, text, at(15, 70))
					requireTruth(t, e, reference, text, instantAt(33))
				}
			}
		})
	}
}

// TestLack_OtherSpelling: a Prometheus 2 spells numbers otherwise. Nothing is lacking.
func TestLack_OtherSpelling(t *testing.T) {
	load := func(le string) string {
		return scraped(fmt.Sprintf(`h_bucket{instance="t0",job="j",le=%q} 0+7x720`, le))
	}
	a, b := newStore(t, load("1.0")), newStore(t, load("1"))
	e, _ := clockedEngine(t, groupAt("g", nil, a, b))
	for range 2 {
		out, _, err := e.Analyze(t.Context(), Question{Query: `sum(h_bucket)`, Start: at(15, 70).start, End: at(15, 70).end, Interval: time.Minute})
		require.NoError(t, err)
		require.Equal(t, "whole", out.Parts[0].Partitions[0].Pieces[0].Why)
	}
}

// TestLack_OneRefusesToTell: it counts the series, but does not tell which ones they are.
func TestLack_OneRefusesToTell(t *testing.T) {
	all := scraped(x0, x1, x2)
	a, b := newStore(t, scraped(x0, x1)), newStore(t, scraped(x1, x2))
	a.refuse(backendtest.TellsSeries)
	e, _ := clockedEngine(t, groupAt("g", nil, a, b))
	reference := truthOf(t, all)
	for range 2 {
		for _, text := range lackQueries {
			requireTruth(t, e, reference, text, at(15, 70))
		}
	}
}

// TestLack_OneRefusesToCount: it lacks all series of a name, and fails where it should count them, as a
// Prometheus does that has deleted all samples of a window from its blocks.
func TestLack_OneRefusesToCount(t *testing.T) {
	all := scraped(x0, x1, x2)
	a, b := newStore(t, scraped(x0)), newStore(t, all)
	a.refuse(backendtest.CountsSeries)
	e, _ := clockedEngine(t, groupAt("g", nil, a, b))
	reference := truthOf(t, all)
	for range 2 { // the counts are under way, and known
		for _, text := range lackQueries {
			requireTruth(t, e, reference, text, at(15, 70))
		}
	}
}

// TestLack_TwinFailsToCount: a replica then answers alone, and the answer says that nothing shows that
// it has all series.
func TestLack_TwinFailsToCount(t *testing.T) {
	all := scraped(x0, x1, x2)
	a, b := newStore(t, all), newStore(t, all)
	b.everywhere(func(w http.ResponseWriter, r *http.Request) {
		if backendtest.CountsSeries(r) {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		b.own.ServeHTTP(w, r)
	})
	e, _ := clockedEngine(t, groupAt("g", nil, a, b))
	reference := truthOf(t, all)
	for range 2 { // the counts are under way, and known to be missing
		for _, text := range []string{`sum(x_total)`, `x_total`} {
			want, _ := reference(text, at(15, 70))
			got, said := executed(t, e, text, at(15, 70))
			enginetest.RequireSame(t, want, got, 0, false, text)
			require.Equal(t, []string{unproven}, said)
		}
	}
}

const unproven = `PromQL info: server group "g": a replica answered alone, and its twins have not counted the series, so that nothing shows that it has all of them`

// TestLack_UntilNow: what was lacking a few minutes ago is taken to be lacking still.
func TestLack_UntilNow(t *testing.T) {
	all := scraped(x0, x1, x2)
	a, b := newStore(t, scraped(x0, x1)), newStore(t, all)
	e, _ := clockedEngine(t, groupAt("g", nil, a, b))
	reference := truthOf(t, all)
	for range 2 {
		for _, text := range []string{`sum(x_total)`, `count(x_total)`, `x_total`} {
			requireTruth(t, e, reference, text, instantAt(180))
			requireTruth(t, e, reference, text, at(160, 180))
		}
	}
}

// TestLack_DelayedStamps: an exporter gives its samples times of its own, some minutes ago
// (honor_timestamps). A replica that was away for a while lacks samples of before it was.
func TestLack_DelayedStamps(t *testing.T) {
	const up = "\n  up{instance=\"e\",job=\"cloud\"} "
	for _, delay := range []int{1, 3, 5, 10, 20} { // minutes
		n := 4 * delay
		all := up + fmt.Sprintf("1x720\n  x_total{instance=\"e\",job=\"cloud\"} 0+7x%d", 720-n)
		// It was away from 60:00 to 70:00.
		gone := up + fmt.Sprintf("1x239 _x40 1x440\n  x_total{instance=\"e\",job=\"cloud\"} 0+7x%d _x40 %d+7x440", 239-n, 7*(280-n))
		t.Run(strconv.Itoa(delay), func(t *testing.T) {
			a, b := newStore(t, gone), newStore(t, all)
			e, _ := clockedEngine(t, groupAt("g", nil, a, b))
			reference := truthOf(t, all)
			for range 2 {
				for _, text := range lackQueries[:len(lackQueries)-1] {
					requireTruth(t, e, reference, text, at(30, 90))
				}
				for _, text := range []string{`count_over_time(x_total[2m])`, `sum(increase(x_total[10m]))`} {
					for minute := int64(40); minute < 80; minute += 5 {
						if _, said := reference(text, instantAt(minute)); len(said) == 0 {
							want, _ := reference(text, instantAt(minute))
							got, _ := executed(t, e, text, instantAt(minute))
							require.Equal(t, want.String(), got.String(), "%s at %d", text, minute)
						}
					}
				}
			}
		})
	}
}

// TestLack_DelayedStampsOfSingleScrapes: it missed a few scrapes only, so that counts do not show which
// samples of before are lacking.
func TestLack_DelayedStampsOfSingleScrapes(t *testing.T) {
	const up = "\n  up{instance=\"e\",job=\"cloud\"} "
	for _, delay := range []int{3, 5, 7, 9} { // minutes
		n := 4 * delay
		all := up + fmt.Sprintf("1x720\n  x_total{instance=\"e\",job=\"cloud\"} 0+7x%d", 720-n)
		// It missed the scrapes from 60:00 on for two minutes.
		gone := up + fmt.Sprintf("1x239 _x8 1x472\n  x_total{instance=\"e\",job=\"cloud\"} 0+7x%d _x8 %d+7x472", 239-n, 7*(248-n))
		t.Run(strconv.Itoa(delay), func(t *testing.T) {
			a, b := newStore(t, gone), newStore(t, all)
			e, _ := clockedEngine(t, groupAt("g", nil, a, b))
			reference := truthOf(t, all)
			for _, text := range []string{`count_over_time(x_total[1m])`, `sum(x_total)`} {
				for minute := int64(45); minute < 65; minute++ {
					requireTruth(t, e, reference, text, instantAt(minute))
				}
			}
		})
	}
}

// TestLack_NoticedInTime: what changes without a sign is noticed when the counts are repeated.
func TestLack_NoticedInTime(t *testing.T) {
	all := scraped(x0, x1, x2)
	for name, change := range map[string]struct{ before, after [2]string }{
		"a series is deleted":                  {[2]string{all, all}, [2]string{scraped(x0, x1), all}},
		"samples come late, at one of the two": {[2]string{scraped(x0, x1), scraped(x0, x1)}, [2]string{scraped(x0, x1), all}},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newStore(t, change.before[0]), newStore(t, change.before[1])
			e, now := clockedEngine(t, groupAt("g", nil, a, b))
			reference := truthOf(t, change.before[1])
			for _, text := range lackQueries {
				requireTruth(t, e, reference, text, at(15, 70))
			}
			a.hold(t, change.after[0])
			b.hold(t, change.after[1])
			reference = truthOf(t, change.after[1])
			now.Add(evidence.CountAge)
			for _, text := range lackQueries {
				requireTruth(t, e, reference, text, at(15, 70))
			}
		})
	}
}

// churned fills storages with pods that come and go, which are scraped by two replicas at different
// moments of an interval (ms), for three hours.
func churned(t *testing.T, interval int64, into ...storage.Appendable) {
	t.Helper()
	const pods, hours = 40, 3
	rnd := rand.New(rand.NewPCG(7, uint64(interval)))
	apps := make([]storage.Appender, len(into))
	for r := range into {
		apps[r] = into[r].Appender(t.Context())
	}
	for pod := range pods {
		phases := make([]int64, len(into))
		for r := range phases {
			phases[r] = rnd.Int64N(interval)
		}
		for born := rnd.Int64N(20*60_000) - 20*60_000; born < hours*3600_000; {
			died := born + 60_000*(5+rnd.Int64N(25))
			for r, app := range apps {
				for _, name := range []string{"up", "x_total"} {
					ls := labels.FromStrings("__name__", name, "instance", fmt.Sprintf("p%d:%d", pod, born), "job", "j")
					for at := born - born%interval + phases[r]; ; at += interval {
						if at < born || at < 0 {
							continue
						}
						v := 1.0
						if at > died {
							v = math.Float64frombits(value.StaleNaN)
						} else if name == "x_total" {
							v = float64(at-born) / 1000
						}
						if at > hours*3600_000 {
							break
						}
						_, err := app.Append(0, ls, at, v)
						require.NoError(t, err)
						if at > died {
							break
						}
					}
				}
			}
			born = died + rnd.Int64N(60_000)
		}
	}
	for _, app := range apps {
		require.NoError(t, app.Commit())
	}
}

// TestLack_ExplainedByScrapes: where a replica was away, its counts are low. They show no more than its
// scrapes do, so that the first answers are those of replicas alone, too.
func TestLack_ExplainedByScrapes(t *testing.T) {
	// away is a target from the first scrape that is missed on, for ten minutes.
	away := func(missed int) string {
		return fmt.Sprintf(`
  up{instance="t0",job="j"} 1x%d _x40 1x600
  x_total{instance="t0",job="j"} 0+7x%[1]d _x40 %[2]d+7x600`, missed-1, 7*(missed+40))
	}
	reference := truthOf(t, `
  up{instance="t0",job="j"} 1x720
  x_total{instance="t0",job="j"} 0+7x720`)
	for missed := range 4 {
		a, b := newStore(t, away(98+missed)), newStore(t, away(250+missed))
		e, _ := clockedEngine(t, groupAt("g", nil, a, b))
		requireTruth(t, e, reference, `sum(rate(x_total[5m]))`, times{at(10, 90).start, at(10, 90).end, 15 * time.Second})
		first, _ := a.asked()
		second, _ := b.asked()
		require.Len(t, slices.Concat(first, second), 3, "the stretches before, while a was away, and after")
	}
}

// TestLack_Churn: pods that come and go make the counts of replicas differ for moments. A replica
// still answers alone.
func TestLack_Churn(t *testing.T) {
	for _, interval := range []int64{15_000, 30_000, 60_000} {
		t.Run(strconv.FormatInt(interval, 10), func(t *testing.T) {
			data := []*teststorage.TestStorage{teststorage.New(t), teststorage.New(t)}
			churned(t, interval, data[0], data[1])
			a, b := newStoreOf(t, data[0]), newStoreOf(t, data[1])
			e, _ := clockedEngine(t, groupAt("g", nil, a, b))
			for range 2 {
				for _, text := range []string{`sum(rate(x_total[5m]))`, `count(x_total)`} {
					res, said := executed(t, e, text, at(20, 170))
					require.NoError(t, res.Err)
					require.Empty(t, said)
					out, _, err := e.Analyze(t.Context(), Question{Query: text, Start: at(20, 170).start, End: at(20, 170).end, Interval: time.Minute})
					require.NoError(t, err)
					t.Log(out.Parts[0].Partitions[0].Pieces)
					require.Len(t, out.Parts[0].Partitions[0].Pieces, 1)
				}
			}
			_, reads := b.asked()
			require.NotContains(t, reads, "x_total")
		})
	}
}
