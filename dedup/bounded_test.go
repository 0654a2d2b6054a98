package dedup

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

// Two holders whose times meet at 60 s: what one of them lacks beyond is no gap.
func TestSeries_WhereAHolderEndsItMissesNothing(t *testing.T) {
	const sec = 1000
	run := func(from, to int64, ts ...int64) Bounded {
		s := &Samples{}
		for _, at := range ts {
			if at < 0 {
				s.Append(0, -at, StaleNaN)
			} else {
				s.Append(0, at, float64(at))
			}
		}
		return Bounded{Run: s, From: from, To: to}
	}
	f := func(want, recent, archive []int64) {
		t.Helper()
		a, b := run(60*sec, 1000*sec, recent...), run(0, 60*sec, archive...)
		for _, runs := range [][]Run{{a, b}, {b, a}} {
			var got []int64
			s := NewSeries(labels.FromStrings("i", "1"), runs, 0, 1000*sec, func(err error) { require.NoError(t, err) })
			it := s.Iterator(nil)
			for it.Next() != 0 {
				at, v := it.At()
				if v != v {
					at = -at
				}
				got = append(got, at)
			}
			require.NoError(t, it.Err())
			require.Equal(t, want, got)
		}
	}
	// One scrape on a side.
	f([]int64{50_003, 65_001, 80_002, 95_001}, []int64{65_001, 80_002, 95_001}, []int64{50_003})
	f([]int64{20_001, 35_002, 50_003, 65_001}, []int64{65_001}, []int64{20_001, 35_002, 50_003})
	// A marker on the other side, and one with the next life after it.
	f([]int64{20_001, 35_002, 50_003, -65_001}, []int64{-65_001}, []int64{20_001, 35_002, 50_003})
	f([]int64{35_002, 50_003, -59_999, 65_001, 80_002}, []int64{65_001, 80_002}, []int64{35_002, 50_003, -59_999})
	// At the very seam both have it.
	f([]int64{45_000, 60_000, 75_000}, []int64{60_000, 75_000}, []int64{45_000, 60_000})
}

// A run that adds nothing has seen its time all the same.
func TestSeries_BoundsOfAllRunsCount(t *testing.T) {
	one := func(ms, from, to int64) Bounded {
		s := &Samples{}
		s.Append(0, ms, 1)
		return Bounded{Run: s, From: from, To: to}
	}
	archive, a, b := one(60_000, 0, 100_000), one(60_000, 0, 1_000_000), one(109_157, 0, 1_000_000)
	for _, runs := range [][]Run{{archive, a, b}, {a, b, archive}, {a, archive, b}} {
		s := NewSeries(labels.FromStrings("i", "1"), runs, 0, 1_000_000, func(err error) { require.NoError(t, err) })
		var got []int64
		it := s.Iterator(nil)
		for it.Next() != 0 {
			got = append(got, it.AtT())
		}
		require.Equal(t, []int64{60_000}, got)
	}
}

// The first replica of a pair has lost the marker of a series whose last sample
// only the archive has: the twin's marker ends it all the same.
func TestSeries_MarkerOfWhatAnotherHolderHas(t *testing.T) {
	run := func(from, to int64, markers []int64, ts ...int64) Bounded {
		s := &Samples{}
		for _, at := range ts {
			s.Append(0, at, 1)
		}
		for _, at := range markers {
			s.Append(0, at, StaleNaN)
		}
		return Bounded{Run: s, From: from, To: to}
	}
	for _, late := range [][]int64{{2_800_000}, {2_790_000, 2_800_000}} {
		a := run(60_000, 3_000_000, late)
		b := run(60_000, 3_000_000, append([]int64{95_000}, late...))
		archive := run(0, 59_999, nil, 35_000)
		for _, runs := range [][]Run{{a, b, archive}, {b, a, archive}, {archive, a, b}} {
			s := NewSeries(labels.FromStrings("i", "1"), runs, 0, 3_000_000, func(err error) { require.NoError(t, err) })
			it := s.Iterator(nil)
			require.NotZero(t, it.Next())
			require.EqualValues(t, 35_000, it.AtT())
			require.NotZero(t, it.Next())
			require.EqualValues(t, 95_000, it.AtT(), "%v", runs)
		}
	}
}

// Before a seam the archive's second replica has a sample or two that the first
// lacks, and the groups behind the seam go on: these scrapes were missed.
func TestSeries_FewSamplesBeforeASeam(t *testing.T) {
	run := func(from, to int64, ts ...int64) Bounded {
		s := &Samples{}
		for _, at := range ts {
			s.Append(0, at, 1)
		}
		return Bounded{Run: s, From: from, To: to}
	}
	const seam = 1_360_916
	recent := []int64{1_373_196, 1_388_196, 1_403_196}
	a, b := run(seam, 9_000_000, recent...), run(seam, 9_000_000, recent...)
	first := run(0, seam-1, 68_196)
	for _, second := range [][]int64{{68_196, 1_358_196}, {68_196, 1_343_196, 1_358_196}} {
		s := NewSeries(labels.FromStrings("i", "1"), []Run{a, b, first, run(0, seam-1, second...)}, 0, 9_000_000, func(err error) { require.NoError(t, err) })
		var got []int64
		it := s.Iterator(nil)
		for it.Next() != 0 {
			got = append(got, it.AtT())
		}
		require.Equal(t, append(second, recent...), got)
	}
}
