package servergroup

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/completeness"
)

// coverageNow is the present of these tests, in seconds.
const coverageNow = 100_000

// heldBy is a group with injected labels (name, value, …) and a time_range.
func heldBy(name string, r TimeRange, lbls ...string) *Config {
	cfg := &Config{Name: name, TimeRange: r, Labels: map[string]string{}}
	labels.FromStrings(lbls...).Range(func(l labels.Label) { cfg.Labels[l.Name] = l.Value })
	return cfg
}

func age(seconds int64) model.Duration { return model.Duration(time.Duration(seconds) * time.Second) }
func atSec(seconds int64) Time         { return Time{time.Unix(seconds, 0)} }

// gapsText is gaps with times in ms, a line for each.
func gapsText(mint, maxt int64, cfgs ...*Config) string {
	var text string
	for _, g := range gaps(cfgs, cfgs, mint, maxt, time.Unix(coverageNow, 999)) {
		text += fmt.Sprintf("%v %d-%d\n", g.groups, g.from, g.to)
	}
	return text
}

func TestGaps_OneGroup(t *testing.T) {
	f := func(r TimeRange, mint, maxt int64, want string) {
		t.Helper()
		require.Equal(t, want, gapsText(mint, maxt, heldBy("g", r)))
	}
	now := int64(coverageNow * 1000)
	f(TimeRange{}, math.MinInt64, math.MaxInt64, "")
	f(TimeRange{MaxAge: age(100)}, now-100_000, now, "")
	f(TimeRange{MaxAge: age(100)}, now-100_001, now, "[g] 99899999-99899999\n")
	f(TimeRange{MaxAge: age(100)}, math.MinInt64, now, "[g] -9223372036854775808-99899999\n")
	f(TimeRange{MinAge: age(100)}, 0, now-100_000, "")
	f(TimeRange{MinAge: age(100)}, 0, now-99_999, "[g] 99900001-99900001\n")
	f(TimeRange{MinAge: age(100)}, now-50_000, now-40_000, "[g] 99950000-99960000\n")
	f(TimeRange{MinAge: age(100)}, now-50_000, math.MaxInt64, "[g] 99950000-100000000\n")
	f(TimeRange{MinAge: age(100)}, now+1, now+2, "")
	f(TimeRange{Start: atSec(50), End: atSec(60)}, 40_000, 70_000, "[g] 40000-49999\n[g] 60001-70000\n")
	f(TimeRange{Start: atSec(50), End: atSec(60)}, 50_000, 60_000, "")
	f(TimeRange{End: atSec(200_000)}, 0, 300_000_000, "")
	require.Empty(t, gapsText(0, 1), "no group, no gap")
}

func TestGaps_GroupsGoOnWhereOthersEnd(t *testing.T) {
	f := func(recent, archive TimeRange, want string) {
		t.Helper()
		got := gapsText(0, coverageNow*1000, heldBy("recent", recent), heldBy("archive", archive))
		require.Equal(t, want, got)
		// An injected label that only one of them has does not tell them apart.
		got = gapsText(0, coverageNow*1000, heldBy("recent", recent, "region", "eu"), heldBy("archive", archive))
		require.Equal(t, want, got)
	}
	f(TimeRange{MaxAge: age(100)}, TimeRange{MinAge: age(50)}, "")
	f(TimeRange{MaxAge: age(100)}, TimeRange{MinAge: age(100)}, "")
	f(TimeRange{MaxAge: age(100)}, TimeRange{MinAge: age(101)}, "[recent archive] 99899001-99899999\n")
	f(TimeRange{MaxAge: age(100)}, TimeRange{}, "")
	f(TimeRange{MaxAge: age(100)}, TimeRange{MaxAge: age(200)}, "[recent archive] 0-99799999\n")
	f(TimeRange{Start: atSec(60)}, TimeRange{End: atSec(60)}, "")
	f(TimeRange{Start: Time{time.UnixMilli(60_001)}}, TimeRange{End: atSec(60)}, "")
	f(TimeRange{Start: atSec(61)}, TimeRange{End: atSec(60)}, "[recent archive] 60001-60999\n")
}

func TestGaps_OfTheGroupsThatHaveThem(t *testing.T) {
	eu := heldBy("eu", TimeRange{MaxAge: age(100)}, "region", "eu")
	us := heldBy("us", TimeRange{MaxAge: age(10)}, "region", "us")
	f := func(want string, more ...*Config) {
		t.Helper()
		require.Equal(t, want, gapsText(90_000_000, coverageNow*1000, append([]*Config{eu, us}, more...)...))
	}
	f("[eu] 90000000-99899999\n[us] 90000000-99989999\n")
	f("", heldBy("archive", TimeRange{MinAge: age(5)}))
	f("[us] 99980001-99989999\n", heldBy("archive", TimeRange{MinAge: age(20)}))
	f("[us] 90000000-99989999\n", heldBy("archive", TimeRange{MinAge: age(20)}, "region", "eu"))
	f("[eu us archive] 90000000-90999999\n", heldBy("archive", TimeRange{MinAge: age(5), Start: atSec(91_000)}))
	f("[eu us b a] 90000000-90999999\n[eu us b a] 92000001-92999999\n",
		heldBy("b", TimeRange{MinAge: age(5), Start: atSec(93_000)}), heldBy("a", TimeRange{Start: atSec(91_000), End: atSec(92_000)}))
}

// A group that ends goes on in those that do not, whatever is selected: if these
// cannot have it, nobody ever had it.
func TestGaps_GroupsThatDoNotMatchGoOnToo(t *testing.T) {
	archive, eu := heldBy("archive", TimeRange{MinAge: age(5)}), heldBy("eu", TimeRange{}, "region", "eu")
	now := time.Unix(coverageNow, 0)
	require.Empty(t, gaps([]*Config{archive}, []*Config{archive, eu}, 0, coverageNow*1000, now))
	require.Len(t, gaps([]*Config{archive}, []*Config{archive}, 0, coverageNow*1000, now), 1)
}

func TestView_WhatNobodyHoldsIsSaid(t *testing.T) {
	a, b := backend(t, "load 15s\n foo{i=\"1\"} 1+1x20"), backend(t, "load 15s\n foo{i=\"1\"} 1+1x20")
	recent, archive := groupOf("recent", a), groupOf("archive", b)
	recent.TimeRange.Start, archive.TimeRange.End = atSec(90), atSec(45)
	recent.Labels = map[string]string{"tier": "new"}
	archive.Labels = recent.Labels
	elsewhere := groupOf("elsewhere", backend(t, ""))
	elsewhere.Labels = map[string]string{"tier": "old"}
	const hole = `no server group holds the data of "recent", "archive" from 1970-01-01T00:00:45.001Z to 1970-01-01T00:01:29.999Z` +
		`: no time_range covers that; widen one, or add a group that has it`

	s := newTestSet(t, PartialWarn, recent, archive, elsewhere)
	got, ws, err := selectText(t, s, `foo`, 30_000, 105_000)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo", i="1", tier="new"} 30:3 45:4 90:7 105:8`+"\n", got)
	require.Equal(t, []string{"partial answer: " + hole}, strs(ws))

	_, ws, err = selectText(t, s, `foo`, 90_000, 105_000)
	require.NoError(t, err)
	require.Empty(t, strs(ws))
	_, ws, err = selectText(t, s, `foo{tier="old"}`, 30_000, 105_000)
	require.NoError(t, err)
	require.Empty(t, strs(ws), "groups that the selector rules out hold nothing of it")

	s = newTestSet(t, PartialError, recent, archive, elsewhere)
	_, _, err = selectText(t, s, `foo`, 60_000, 60_000)
	var unavailable *completeness.UnavailableError
	require.ErrorAs(t, err, &unavailable)
	require.Equal(t, `no server group holds the data of "recent", "archive" from 1970-01-01T00:01:00.000Z to 1970-01-01T00:01:00.000Z`+
		`: no time_range covers that; widen one, or add a group that has it`, unavailable.Error())
	_, ws, err = selectText(t, s, `foo`, 90_000, 105_000)
	require.NoError(t, err)
	require.Empty(t, strs(ws))
}
