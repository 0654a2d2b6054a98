package routing

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
)

// coverageNow is the present of these tests, in seconds.
const coverageNow = 100_000

// heldBy is a group with injected labels (name, value, …) and a time_range.
func heldBy(name string, r config.TimeRange, lbls ...string) *config.Group {
	cfg := &config.Group{Name: name, TimeRange: r, Labels: map[string]string{}}
	labels.FromStrings(lbls...).Range(func(l labels.Label) { cfg.Labels[l.Name] = l.Value })
	return cfg
}

func age(seconds int64) model.Duration { return model.Duration(time.Duration(seconds) * time.Second) }
func atSec(seconds int64) config.Time  { return config.Time{Time: time.Unix(seconds, 0)} }

// holesText is Holes with times in ms, a line for each.
func holesText(mint, maxt int64, cfgs ...*config.Group) string {
	var text string
	for _, h := range Holes(cfgs, cfgs, mint, maxt, time.Unix(coverageNow, 999)) {
		text += fmt.Sprintf("%v %d-%d\n", h.Groups, h.From, h.To)
	}
	return text
}

func TestHoles_OneGroup(t *testing.T) {
	f := func(r config.TimeRange, mint, maxt int64, want string) {
		t.Helper()
		require.Equal(t, want, holesText(mint, maxt, heldBy("g", r)))
	}
	now := int64(coverageNow * 1000)
	f(config.TimeRange{}, math.MinInt64, math.MaxInt64, "")
	f(config.TimeRange{MaxAge: age(100)}, now-100_000, now, "")
	f(config.TimeRange{MaxAge: age(100)}, now-100_001, now, "[g] 99899999-99899999\n")
	f(config.TimeRange{MaxAge: age(100)}, math.MinInt64, now, "[g] -9223372036854775808-99899999\n")
	f(config.TimeRange{MinAge: age(100)}, 0, now-100_000, "")
	f(config.TimeRange{MinAge: age(100)}, 0, now-99_999, "[g] 99900001-99900001\n")
	f(config.TimeRange{MinAge: age(100)}, now-50_000, now-40_000, "[g] 99950000-99960000\n")
	f(config.TimeRange{MinAge: age(100)}, now-50_000, math.MaxInt64, "[g] 99950000-100000000\n")
	f(config.TimeRange{MinAge: age(100)}, now+1, now+2, "")
	f(config.TimeRange{Start: atSec(50), End: atSec(60)}, 40_000, 70_000, "[g] 40000-49999\n[g] 60001-70000\n")
	f(config.TimeRange{Start: atSec(50), End: atSec(60)}, 50_000, 60_000, "")
	f(config.TimeRange{End: atSec(200_000)}, 0, 300_000_000, "")
	require.Empty(t, holesText(0, 1), "no group, no hole")
}

func TestHoles_GroupsGoOnWhereOthersEnd(t *testing.T) {
	f := func(recent, archive config.TimeRange, want string) {
		t.Helper()
		got := holesText(0, coverageNow*1000, heldBy("recent", recent), heldBy("archive", archive))
		require.Equal(t, want, got)
		// An injected label that only one of them has does not tell them apart.
		got = holesText(0, coverageNow*1000, heldBy("recent", recent, "region", "eu"), heldBy("archive", archive))
		require.Equal(t, want, got)
	}
	f(config.TimeRange{MaxAge: age(100)}, config.TimeRange{MinAge: age(50)}, "")
	f(config.TimeRange{MaxAge: age(100)}, config.TimeRange{MinAge: age(100)}, "")
	f(config.TimeRange{MaxAge: age(100)}, config.TimeRange{MinAge: age(101)}, "[recent archive] 99899001-99899999\n")
	f(config.TimeRange{MaxAge: age(100)}, config.TimeRange{}, "")
	f(config.TimeRange{MaxAge: age(100)}, config.TimeRange{MaxAge: age(200)}, "[recent archive] 0-99799999\n")
	f(config.TimeRange{Start: atSec(60)}, config.TimeRange{End: atSec(60)}, "")
	f(config.TimeRange{Start: config.Time{Time: time.UnixMilli(60_001)}}, config.TimeRange{End: atSec(60)}, "")
	f(config.TimeRange{Start: atSec(61)}, config.TimeRange{End: atSec(60)}, "[recent archive] 60001-60999\n")
}

func TestHoles_OfTheGroupsThatHaveThem(t *testing.T) {
	eu := heldBy("eu", config.TimeRange{MaxAge: age(100)}, "region", "eu")
	us := heldBy("us", config.TimeRange{MaxAge: age(10)}, "region", "us")
	f := func(want string, more ...*config.Group) {
		t.Helper()
		require.Equal(t, want, holesText(90_000_000, coverageNow*1000, append([]*config.Group{eu, us}, more...)...))
	}
	f("[eu] 90000000-99899999\n[us] 90000000-99989999\n")
	f("", heldBy("archive", config.TimeRange{MinAge: age(5)}))
	f("[us] 99980001-99989999\n", heldBy("archive", config.TimeRange{MinAge: age(20)}))
	f("[us] 90000000-99989999\n", heldBy("archive", config.TimeRange{MinAge: age(20)}, "region", "eu"))
	f("[eu us archive] 90000000-90999999\n", heldBy("archive", config.TimeRange{MinAge: age(5), Start: atSec(91_000)}))
	f("[eu us b a] 90000000-90999999\n[eu us b a] 92000001-92999999\n",
		heldBy("b", config.TimeRange{MinAge: age(5), Start: atSec(93_000)}), heldBy("a", config.TimeRange{Start: atSec(91_000), End: atSec(92_000)}))
}

// A group that ends goes on in those that do not, whatever is selected: if these
// cannot have it, nobody ever had it.
func TestHoles_GroupsThatDoNotMatchGoOnToo(t *testing.T) {
	archive, eu := heldBy("archive", config.TimeRange{MinAge: age(5)}), heldBy("eu", config.TimeRange{}, "region", "eu")
	now := time.Unix(coverageNow, 0)
	require.Empty(t, Holes([]*config.Group{archive}, []*config.Group{archive, eu}, 0, coverageNow*1000, now))
	require.Len(t, Holes([]*config.Group{archive}, []*config.Group{archive}, 0, coverageNow*1000, now), 1)
}
