package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
)

// refusal is how a backend says no.
func refusal(status int, text string) error {
	return &Error{Class: ClassUser, URL: "http://b", Status: status, Err: errors.New(text)}
}

const tooManySamples = "cannot select more than -search.maxSamplesPerQuery=3 samples"

func TestTooMuch_WordsOfBackends(t *testing.T) {
	f := func(want bool, status int, text string) {
		t.Helper()
		require.Equal(t, want, tooMuch(refusal(status, text)), text)
		require.Equal(t, want, tooMuch(fmt.Errorf("x: %w", refusal(status, text))), text)
	}
	f(true, 422, tooManySamples)
	f(true, 400, "exceeded sample limit (3)")
	f(true, 400, "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)")
	f(true, 422, "query processing would load too many samples into memory in query execution")
	f(true, 422, "the number of matching timeseries exceeds 2; either narrow down the search or increase -search.max* …")
	f(true, 422, "too many points for the given start, end and step")
	f(true, 422, "the query exceeded the aggregated chunks size limit (limit: 3 bytes) (err-mimir-max-chunks-bytes-per-query)")
	f(true, 500, "proxy Series(): rpc error: code = ResourceExhausted desc = failed to send samples: limit 3 violated")
	f(true, 422, "the query hit the max number of series limit (limit: 3 series)")
	f(true, 413, "status 413 Request Entity Too Large: too large")
	f(true, 503, "response too large")

	f(false, 400, "parse error: unexpected )")
	f(false, 422, "found duplicate series for the match group")
	f(false, 401, "too many")
	f(false, 404, "too many")
	f(false, 429, "too many requests")
	f(false, 502, "too large")
	f(false, 0, "too large")
	// Slow is not large: the half of it would wait as long, and there is no time left.
	f(false, 503, "context deadline exceeded")
	f(false, 422, "rpc error: code = DeadlineExceeded desc = context deadline exceeded")
	require.False(t, tooMuch(nil))
	require.False(t, tooMuch(errors.New("too many")))
	require.False(t, tooMuch(overBudget{}))
	require.False(t, tooMuch(&Error{Class: ClassEvaluation, Status: 503, ErrorType: "timeout", Err: errors.New("timeout exceeded, see -search.maxQueryDuration")}))
}

// store is what a fake backend holds.
type store struct {
	names  []string // of series; those that are the same are several replicas of one
	step   int64    // ms
	most   int      // samples in an answer, 0 for any number
	chunks int64    // ms in a chunk that is delivered, 0 for columns

	asked []string // windows in seconds
}

func (s *store) fetch(_ context.Context, r Request) ([]Series, error) {
	s.asked = append(s.asked, fmt.Sprintf("%g-%g", float64(r.MinT)/1000, float64(r.MaxT)/1000))
	var list []Series
	n := 0
	for i, name := range s.names {
		series := Series{Labels: labels.FromStrings("__name__", name), Replica: strconv.Itoa(i)}
		run := &dedup.Samples{}
		for at := (r.MinT + s.step - 1) / s.step * s.step; at <= r.MaxT; at += s.step {
			run.Append(0, at, float64(at/s.step))
		}
		if n += run.Len(); run.Len() == 0 {
			continue
		}
		if series.Run = run; s.chunks > 0 {
			series.Run = s.inChunks(run)
		}
		list = append(list, series)
	}
	if s.most > 0 && n > s.most {
		return nil, refusal(422, tooManySamples+" in "+s.asked[len(s.asked)-1])
	}
	return list, nil
}

// inChunks returns the chunks of a server that hold the samples, and what else is in them.
func (s *store) inChunks(run *dedup.Samples) dedup.Chunks {
	var out dedup.Chunks
	for from := run.T[0] / s.chunks * s.chunks; from <= run.T[run.Len()-1]; from += s.chunks {
		c := chunkenc.NewXORChunk()
		app, _ := c.Appender()
		last := from
		for at := from; at < from+s.chunks; at += s.step {
			app.Append(0, at, float64(at/s.step))
			last = at
		}
		out = append(out, dedup.Chunk{MinT: from, MaxT: last, Encoding: chunkenc.EncXOR, Data: c.Bytes()})
	}
	return out
}

func TestInHalves_JoinedIsTheWhole(t *testing.T) {
	for _, s := range []store{
		{names: []string{"a", "b"}, step: 15_000},
		{names: []string{"a", "b", "b", "a"}, step: 15_000},
		{names: []string{"a"}, step: 15_000, chunks: 7 * 60_000},
		{names: []string{"a", "a", "b"}, step: 15_000, chunks: 3600_000},
		{names: []string{"a"}, step: 1700_000}, // most halves are empty
		{names: []string{"a"}, step: 1003},
	} {
		for _, window := range [][2]int64{{0, 3600_000}, {1, 3600_001}, {14_999, 2_345_678}, {1773130000123, 1773133600122}} {
			r := Request{MinT: window[0], MaxT: window[1]}
			want, err := inHalves(t.Context(), r, s.fetch)
			require.NoError(t, err)
			require.NoError(t, toColumns(want, r))
			samples := 0
			for _, one := range want {
				samples += one.Run.(*dedup.Samples).Len()
			}
			limited := s
			limited.most = max(samples/9, 2)
			got, err := inHalves(t.Context(), r, limited.fetch)
			require.NoError(t, err)
			require.Equal(t, seriesLines(t, want), seriesLines(t, got))
			require.Less(t, len(limited.asked), 100)
		}
	}
}

func TestInHalves_Windows(t *testing.T) {
	f := func(most int, mint, maxt int64, want ...string) error {
		t.Helper()
		s := store{names: []string{"a"}, step: 500, most: most}
		_, err := inHalves(t.Context(), Request{MinT: mint * 1000, MaxT: maxt * 1000}, s.fetch)
		for i := range want {
			if a, b, found := strings.Cut(want[i], "+"); found { // a ms after
				from, err := strconv.ParseFloat(a, 64)
				require.NoError(t, err)
				want[i] = fmt.Sprintf("%g-%s", (from*1000+1)/1000, b)
			}
		}
		require.Equal(t, want, s.asked)
		return err
	}
	require.NoError(t, f(9, 0, 4, "0-4"))
	require.NoError(t, f(8, 0, 4, "0-4", "0-2", "2+4"))
	require.NoError(t, f(4, 0, 4, "0-4", "0-2", "0-1", "1+2", "2+4"))
	// A second is not cut; the error is the backend's, of the least that it refused.
	err := f(2, 0, 4, "0-4", "0-2", "0-1")
	require.EqualError(t, err, "http://b: "+tooManySamples+" in 0-1")
	require.Equal(t, ClassUser, ClassOf(err))
	err = f(1, 10, 11, "10-11")
	require.ErrorContains(t, err, "in 10-11")
}

func TestInHalves_NotTriedForOtherErrors(t *testing.T) {
	for _, bad := range []error{refusal(400, "parse error"), refusal(429, "too many requests"), overBudget{}, context.Canceled} {
		n := 0
		_, err := inHalves(t.Context(), Request{MaxT: 3600_000}, func(context.Context, Request) ([]Series, error) {
			n++
			return nil, bad
		})
		require.Equal(t, bad, err)
		require.Equal(t, 1, n)
	}
	// One that comes in the middle ends it.
	n := 0
	_, err := inHalves(t.Context(), Request{MaxT: 3600_000}, func(context.Context, Request) ([]Series, error) {
		if n++; n < 4 {
			return nil, refusal(422, tooManySamples)
		}
		return nil, refusal(400, "boo")
	})
	require.EqualError(t, err, "http://b: boo")
	require.Equal(t, 4, n)
}

// TestInHalves_HopelessIsSoonGivenUp: a backend that refuses everything.
func TestInHalves_HopelessIsSoonGivenUp(t *testing.T) {
	for _, window := range [][2]int64{{0, 30 * 24 * 3600_000}, {0, 1 << 53}, {math.MinInt64, math.MaxInt64}, {math.MinInt64, 0}, {-1 << 53, math.MaxInt64}} {
		n := 0
		_, err := inHalves(t.Context(), Request{MinT: window[0], MaxT: window[1]}, func(context.Context, Request) ([]Series, error) {
			n++
			return nil, refusal(422, tooManySamples)
		})
		require.ErrorContains(t, err, tooManySamples)
		require.Less(t, n, 50)
	}
}

// TestInHalves_EachSampleIsChargedOnce, however small the halves are.
func TestInHalves_EachSampleIsChargedOnce(t *testing.T) {
	for _, chunks := range []int64{0, 600_000} {
		s := store{names: []string{"a"}, step: 15_000, most: 8, chunks: chunks}
		charged := 0
		r := Request{MaxT: 6*3600_000 - 1, Charge: func(n int) error {
			charged += n
			return nil
		}}
		list, err := inHalves(t.Context(), r, s.fetch)
		require.NoError(t, err)
		samples := list[0].Run.(*dedup.Samples).Len()
		require.Equal(t, 6*60*4, samples)
		require.LessOrEqual(t, charged, 2*16*samples)
		if chunks > 0 {
			require.Equal(t, 2*16*samples, charged)
		}
	}
	s := store{names: []string{"a"}, step: 15_000, most: 100, chunks: 600_000}
	_, err := inHalves(t.Context(), Request{MaxT: 6 * 3600_000, Charge: func(int) error { return overBudget{} }}, s.fetch)
	require.ErrorIs(t, err, overBudget{})
	require.Less(t, len(s.asked), 7, "no more is fetched")
}

func TestInHalves_Histograms(t *testing.T) {
	fetch := func(_ context.Context, r Request) ([]Series, error) {
		if r.MaxT-r.MinT > 100_000 {
			return nil, refusal(422, tooManySamples)
		}
		run := &dedup.Samples{}
		for at := r.MinT/15_000*15_000 - 30_000; at <= r.MaxT+30_000; at += 15_000 { // more than was asked for
			switch n := at / 15_000; n % 3 {
			case 0:
				run.Append(0, at, float64(n))
			case 1:
				run.AppendHistogram(at-1, at, tsdbutil.GenerateTestHistogram(n))
			default:
				run.AppendFloatHistogram(0, at, tsdbutil.GenerateTestFloatHistogram(n))
			}
		}
		return []Series{{Labels: labels.FromStrings("__name__", "h"), Run: run}}, nil
	}
	list, err := inHalves(t.Context(), Request{MinT: 300_000, MaxT: 900_000}, fetch)
	require.NoError(t, err)
	require.Len(t, list, 1)
	run := list[0].Run.(*dedup.Samples)
	require.Equal(t, 41, run.Len())
	for i, at := range run.T {
		require.EqualValues(t, 300_000+15_000*i, at)
		n := at / 15_000
		require.Equal(t, []chunkenc.ValueType{chunkenc.ValFloat, chunkenc.ValHistogram, chunkenc.ValFloatHistogram}[n%3], run.Type(i))
		if n%3 == 1 {
			require.Equal(t, at-1, run.ST[i])
			require.True(t, tsdbutil.GenerateTestHistogram(n).Equals(run.H[i]))
		}
	}
}

// damaged is a run whose decoder panics, as upstream's may over a damaged chunk.
type damaged struct{ dedup.Chunks }

func (damaged) AppendTo(*dedup.Samples, int64, int64) error { panic("damaged") }

// TestInHalves_DamagedChunkIsAnError: halves are decoded where no engine recovers.
func TestInHalves_DamagedChunkIsAnError(t *testing.T) {
	f := func(run dedup.Run) {
		t.Helper()
		require.NotPanics(t, func() {
			_, err := inHalves(t.Context(), Request{MaxT: 150_000}, func(_ context.Context, r Request) ([]Series, error) {
				if r.MinT == 0 && r.MaxT == 150_000 {
					return nil, refusal(422, tooManySamples)
				}
				return []Series{{Labels: labels.FromStrings("__name__", "m"), Run: run}}, nil
			})
			require.Error(t, err)
		})
	}
	f(damaged{})
	f(dedup.Chunks{{MinT: 0, MaxT: 1e6, Encoding: chunkenc.EncXOR, Data: []byte{0, 9, 1}}})
}

// TestQuery_GridIsCutWhereTheBackendFindsItTooMuch halves steps.
func TestQuery_GridIsCutWhereTheBackendFindsItTooMuch(t *testing.T) {
	const most = 7
	var asked []string
	c := served(t, func(w http.ResponseWriter, r *http.Request) {
		var start, end, step float64
		_, _ = fmt.Sscan(r.FormValue("start")+" "+r.FormValue("end")+" "+r.FormValue("step"), &start, &end, &step)
		w.Header().Set("Content-Type", "application/json")
		if !strings.HasPrefix(r.FormValue("query"), "timestamp") {
			asked = append(asked, fmt.Sprintf("%g-%g", start, end))
		}
		if int((end-start)/step)+1 > most {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, `{"status":"error","errorType":"422","error":"too many points"}`)
			return
		}
		var points []string
		for at := start; at <= end; at += step {
			points = append(points, fmt.Sprintf(`[%g,"%g"]`, at, at))
		}
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"m"},"values":[`+strings.Join(points, ",")+`]}]}}`)
	})
	steps := Steps{Start: 0, End: 200_000, Step: 10_000, Lookback: 300_000}
	r := request(t, Request{MinT: -300_000, MaxT: 200_000, Steps: &steps, SoleReplica: true})
	list, err := c.queryRange(t.Context(), c.selectorExpr(r), r)
	require.NoError(t, err)
	require.Equal(t, []string{"0-200", "0-100", "0-50", "60-100", "110-200", "110-150", "160-200"}, asked)
	require.Len(t, list, 1)
	run := list[0].Run.(*dedup.Samples)
	require.Equal(t, 21, run.Len())
	require.True(t, slices.IsSorted(run.T))
	require.Equal(t, 200.0, run.F[20])
}

func TestQuery_HopelessGridIsSoonGivenUp(t *testing.T) {
	n := 0
	c := served(t, func(w http.ResponseWriter, _ *http.Request) {
		n++
		http.Error(w, "too many series", http.StatusUnprocessableEntity)
	})
	r := request(t, Request{MaxT: 1e9, Steps: &Steps{End: 1e9, Step: 1000, Lookback: 300_000}})
	_, err := c.queryRange(t.Context(), c.selectorExpr(r), r)
	require.ErrorContains(t, err, "status 422 Unprocessable Entity: too many series")
	require.Less(t, n, 20)
}

func TestQuery_RawIsCutByTime(t *testing.T) {
	var asked []string
	c := served(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.FormValue("query")+" "+r.FormValue("time"))
		w.Header().Set("Content-Type", "application/json")
		if len(asked) == 1 {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, `{"status":"error","errorType":"execution","error":"query processing would load too many samples into memory in query execution"}`)
			return
		}
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"m"},"values":[[`+r.FormValue("time")+`,"1"]]}]}}`)
	})
	list, err := c.Fetch(t.Context(), QueryAPI, request(t, Request{MinT: 1, MaxT: 600_000}))
	require.NoError(t, err)
	require.Equal(t, []string{
		`{__name__="m"}[600000ms] 600.000`, `{__name__="m"}[300000ms] 300.000`, `{__name__="m"}[300000ms] 600.000`,
	}, asked)
	require.Equal(t, `{__name__="m"} 300000:1 600000:1`, seriesLines(t, list))
}
