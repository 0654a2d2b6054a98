package servergroup

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// What a backend cannot store is said where it touches an answer.

const withHistograms = "load 15s\n foo{i=\"h\"} {{schema:0 sum:1 count:1 buckets:[1]}}x3\n foo{i=\"f\"} 1x3\n floats 1x3"

func TestConflict_NativeHistogramsBesideAStoreWithoutThem(t *testing.T) {
	var others []config.Group
	for _, change := range []func(*backendtest.Options){func(*backendtest.Options) {}, samplesOnly, noRemoteRead} {
		others = append(others, groupOf("a", backend(t, withHistograms, change)))
	}
	f := func(want int, selector string, archive config.Group) {
		t.Helper()
		for _, other := range others {
			for _, first := range []bool{true, false} {
				groups := []config.Group{other, archive}
				if first {
					slices.Reverse(groups)
				}
				s, _ := setAt(t, groups...)
				require.Empty(t, warningsOf(t, s, selector), "the other has them from the beginning")
				ws := warningsSince(t, s, selector, -10*60*1000)
				require.Len(t, ws, want, selector)
				if want > 0 {
					require.Contains(t, ws[0], `server group "archive": `)
					require.Contains(t, ws[0], "does not store native histograms: they are missing from what it holds")
				}
			}
		}
	}
	vm := as(t, asVictoriaMetrics, "load 15s\n foo{i=\"f\"} 1x3\n floats 1x3", noRemoteRead)
	f(1, "foo", vm)
	f(0, "floats", vm)
	f(0, `foo{i="f"}`, vm)
	// It does not have the series at all.
	f(1, `foo{i="h"}`, vm)
	f(0, "foo", groupOf("archive", backend(t, "load 15s\n floats 1x3")))
	other := vm
	other.Labels = map[string]string{"region": "eu"}
	f(0, `foo{region=""}`, other)
	for i := range others {
		others[i].Labels = map[string]string{"region": "us"}
	}
	f(0, `foo{i="h"}`, other) // nothing says that it ever was to have them
	f(1, "foo", other)
}

// TestConflict_AStoreAloneCannotTell what it has never got.
func TestConflict_AStoreAloneCannotTell(t *testing.T) {
	s, _ := setAt(t, as(t, asVictoriaMetrics, twenty, noRemoteRead))
	require.Empty(t, warningsOf(t, s, "foo"))
}

// selectSteps returns what the answer to an instant selector says of itself.
func selectSteps(t *testing.T, s *Set, selector string, start, end int64) []string {
	t.Helper()
	var done sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer done.Wait()
	defer cancel()
	steps := &transport.Steps{Start: start, End: end, Step: 5000, Lookback: 300_000}
	set := s.View(ctx).Select(ctx, view.Selection{Matchers: matchersOf(t, selector), MinT: start - 299_999, MaxT: end, Steps: steps}, &done).Read()
	seriesText(t, set)
	require.NoError(t, set.Err())
	return strs(set.Warnings())
}

func TestConflict_StaleMarkersAreNotStored(t *testing.T) {
	influx := as(t, asInfluxDB, "load 15s\n ends 1x4\n lives 1x40\n gap 1x4 _x4 1x40", samplesOnly)
	s, c := setAt(t, influx)
	c.ms.Store(600_000)
	want := []string{`server group "archive": influxdb does not store stale markers: series that ended may be shown for 5m0s longer`}
	require.Equal(t, want, selectSteps(t, s, "ends", 0, 300_000))
	require.Equal(t, want, selectSteps(t, s, "gap", 0, 300_000))
	require.Equal(t, want, selectSteps(t, s, `{__name__=~"ends|gap"}`, 0, 300_000))
	require.Empty(t, selectSteps(t, s, "lives", 0, 600_000))
	require.Empty(t, selectSteps(t, s, "ends", 0, 60_000))
	require.Empty(t, selectSteps(t, s, "ends", 360_000, 600_000), "it is out of sight")
	require.Empty(t, warningsOf(t, s, "ends"), "a range shows samples only")

	twin := as(t, asInfluxDB, "load 15s\n ends 1x3\n gap 1x4 _x4 1x40", samplesOnly)
	twin.Name = "twin"
	twins, c2 := setAt(t, influx, twin)
	c2.ms.Store(600_000)
	require.Len(t, selectSteps(t, twins, "gap", 0, 300_000), 2, "one that cannot tell, neither, does not help")

	keeps, _ := setAt(t, as(t, asVictoriaMetrics, "load 15s\n ends 1x4", noRemoteRead))
	require.Empty(t, selectSteps(t, keeps, "ends", 0, 300_000))
}

// TestConflict_OthersTellWhereSeriesEnd: an archive whose series go on in a group that is asked too.
func TestConflict_OthersTellWhereSeriesEnd(t *testing.T) {
	archive := as(t, asInfluxDB, "load 15s\n foo 1x20\n gap 1x4 _x6 1x9", samplesOnly)
	archive.TimeRange.End = config.Time{Time: time.UnixMilli(300_000)}
	live := recent(t, "a", "load 15s\n foo _x15 1x25\n gap _x15 1x25")
	for _, groups := range [][]config.Group{{archive, live}, {live, archive}} {
		s, c := setAt(t, groups...)
		c.ms.Store(600_000)
		require.Empty(t, selectSteps(t, s, "foo", 0, 600_000), "it goes on")
		ws := selectSteps(t, s, "gap", 0, 600_000)
		require.Len(t, ws, 1, "it ended where only the archive was")
		require.Contains(t, ws[0], "does not store stale markers")
	}
}
