package promqlx

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/config"
)

var update = flag.Bool("update", false, "write the golden explanations")

// groupOf is the configuration of a group whose replicas are so many.
func groupOf(name string, replicas int, lset map[string]string) config.Group {
	cfg := config.DefaultGroup
	cfg.Name, cfg.Labels = name, lset
	tg := &targetgroup.Group{}
	for i := range replicas {
		tg.Targets = append(tg.Targets, model.LabelSet{model.AddressLabel: model.LabelValue(fmt.Sprintf("%s-%d.invalid:9090", name, i))})
	}
	cfg.ServiceDiscoveryConfigs = discovery.Configs{discovery.StaticConfig{tg}}
	return cfg
}

// explained are topologies and queries of the golden explanations.
func explained() map[string]struct {
	groups  []config.Group
	queries []string
} {
	region := func(name string) map[string]string { return map[string]string{"region": name} }
	off, merge, archive := groupOf("us", 2, region("us")), groupOf("ap", 2, region("ap")), groupOf("archive", 1, nil)
	off.Pushdown, merge.Replicas = config.PushdownOff, config.MergeAll
	archive.TimeRange.MinAge = model.Duration(time.Minute)
	tier := groupOf("archive", 1, nil)
	tier.TimeRange.MinAge = model.Duration(12*time.Minute + 30*time.Second)
	old := groupOf("old", 1, region("old"))
	old.TimeRange.MinAge = model.Duration(time.Hour)
	return map[string]struct {
		groups  []config.Group
		queries []string
	}{
		"regions": {
			[]config.Group{groupOf("eu", 2, region("eu")), off, merge, groupOf("sa", 1, region("sa")), old},
			[]string{
				`sum(rate(m{region!="us"}[5m]))`,
				`m{exported_region="x"} + on (instance) group_left () n smoothed`,
				`max_over_time(m[90m])`,
				`time()`,
			},
		},
		"pair":    {[]config.Group{groupOf("main", 2, nil)}, []string{`quantile(0.9, rate(m[5m]))`, `info(m, {x="y"})`}},
		"archive": {[]config.Group{groupOf("main", 2, nil), archive}, []string{`sum(m)`}},
		"tiers":   {[]config.Group{groupOf("main", 2, nil), tier}, []string{`sum(rate(m[5m])) - time()`}},
	}
}

// TestExplain_Golden compares explanations from configurations alone with those in
// testdata.
func TestExplain_Golden(t *testing.T) {
	e := NewEngine(enginetest.Options(), nil)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	var b strings.Builder
	for _, name := range []string{"regions", "pair", "archive", "tiers"} {
		c := explained()[name]
		view := servergroup.Offline(c.groups, config.PartialWarn, time.Unix(7200, 0))
		for _, query := range c.queries {
			got, err := e.Explain(context.Background(), view, Question{Query: query, Start: time.Unix(7080, 0), End: time.Unix(7200, 0), Interval: time.Minute})
			require.NoError(t, err)
			fmt.Fprintf(&b, "--- %s\n%s\n", name, got.Text())
		}
	}
	const file = "testdata/explain.txt"
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

// The explanation of a query without parts says why there are none.
func TestExplain_NamesRemovedAtTheEnd(t *testing.T) {
	opts := enginetest.Options()
	opts.EnableDelayedNameRemoval = true
	e := NewEngine(opts, nil)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	view := servergroup.Offline([]config.Group{groupOf("a", 1, nil)}, config.PartialWarn, time.Unix(7200, 0))
	at := time.Unix(7200, 0)
	got, err := e.Explain(context.Background(), view, Question{Query: `rate(m[5m])`, Start: at, End: at})
	require.NoError(t, err)
	require.Empty(t, got.Parts)
	require.Contains(t, got.NoParts, "promql-delayed-name-removal")
	_, err = e.Explain(context.Background(), view, Question{Query: `rate(m)`, Start: at, End: at})
	require.ErrorContains(t, err, "expected type range vector")
}
