package world

import (
	"log/slog"
	"math"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Were a scrape lost in both replicas of a pair, no proxy could give the right answer.
func TestFaults_OneReplicaSawEveryScrape(t *testing.T) {
	for _, w := range []*World{Aligned(1), Aligned(3), Shifted(16), TwoStores(1)} {
		missed := 0
		for _, g := range w.Groups {
			if len(g.Replicas) != 2 {
				continue
			}
			a, b := g.Replicas[0].Faults, g.Replicas[1].Faults
			for _, r := range g.Replicas[0].Regions {
				for _, target := range r.Targets {
					missedA, missedB := a.all(target.key()), b.all(target.key())
					for at := w.Begin; at < w.End; at += second {
						inA, inB := anyHas(missedA, at), anyHas(missedB, at)
						require.False(t, inA && inB, "%s: %s at %d", w.Name, target.key(), at)
						if inA || inB {
							missed++
						}
					}
				}
			}
		}
		require.Greater(t, missed, 10_000, "the replicas of %s miss hardly anything", w.Name)
	}
}

func TestWave_NeverFalls(t *testing.T) {
	for s := range uint64(20) {
		w := newWave(s, 5)
		last := math.Inf(-1)
		for at := Begin; at < Begin+2*hour; at += 777 {
			v := w.total(at)
			require.Greater(t, v, last)
			last = v
		}
	}
}

// The union of a pair's data directories is the truth's, sample by sample, for what the pair keeps. Markers of series that ended are left
// out: a replica may write them late.
func TestAligned_UnionOfReplicasIsTruth(t *testing.T) {
	w := Aligned(1)
	pair := w.Groups[0]
	keep := pair.Replicas[0].Keep
	truth := samplesOf(t, w.Truth, w.End, keep, labels.MustNewMatcher(labels.MatchEqual, "region", "eu"))
	everything := labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".+")
	union := samplesOf(t, pair.Replicas[0], w.End, keep, everything)
	require.Less(t, len(union), len(truth))
	for k, v := range samplesOf(t, pair.Replicas[1], w.End, keep, everything) {
		if had, ok := union[k]; ok {
			require.Equal(t, had, v, "the replicas disagree at %v", k)
		}
		union[k] = v
	}
	require.Len(t, union, len(truth))
	for k, v := range truth {
		require.Equal(t, v, union[k], "at %v", k)
	}
}

// point names one sample of the world: the hash of the labels without the region, and its time in unix ms.
type point struct {
	series uint64
	t      int64
}

// samplesOf writes the server's data and reads it back as text, without stale markers.
func samplesOf(t *testing.T, s *Server, end int64, window Span, m *labels.Matcher) map[point]string {
	dir := t.TempDir()
	require.NoError(t, s.Store(t.Context(), dir, end))
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = century
	db, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), nil, opts, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	q, err := db.Querier(window.From, window.To)
	require.NoError(t, err)
	defer q.Close()
	out := map[point]string{}
	set := q.Select(t.Context(), false, nil, m)
	var it chunkenc.Iterator
	for set.Next() {
		k := point{series: labels.NewBuilder(set.At().Labels()).Del("region").Labels().Hash()}
		it = set.At().Iterator(it)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			if text, stale := textOf(it, kind); !stale {
				k.t = it.AtT()
				out[k] = text
			}
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return out
}

// textOf prints the sample under the iterator, and reports whether it is a stale marker.
func textOf(it chunkenc.Iterator, kind chunkenc.ValueType) (string, bool) {
	if kind == chunkenc.ValFloat {
		_, v := it.At()
		return strconv.FormatFloat(v, 'g', -1, 64), value.IsStaleNaN(v)
	}
	_, h := it.AtFloatHistogram(nil)
	return h.String(), value.IsStaleNaN(h.Sum)
}
