package servergroup

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/view"
)

func TestPartitions(t *testing.T) {
	withLabels := func(name string, lset map[string]string) config.Group {
		cfg := groupOf(name)
		cfg.Labels = lset
		return cfg
	}
	s, _ := setAt(t, withLabels("eu", lset{"region": "eu"}), withLabels("us", lset{"region": "us", "env": "x"}), withLabels("us2", lset{"region": "us", "env": "y"}),
		withLabels("us3", lset{"region": "us"}))
	f := func(want []string, selectors ...string) {
		t.Helper()
		var sels []view.Selection
		for _, selector := range selectors {
			sels = append(sels, selectionOf(t, selector))
		}
		var got []string
		for _, p := range partition.Of(s.View(t.Context()), sels) {
			got = append(got, fmt.Sprintf("%s %v %v", p.Name(), p.Labels(), p.Single()))
		}
		require.Equal(t, want, got)
	}
	f([]string{"eu map[region:eu] true"}, `foo{region="eu"}`)
	f([]string{"us+us3 map[region:us] false"}, `foo{env="x",region="us"}`, `foo{region="ap"}`) // us3 may have an env of its own
	f([]string{"eu map[region:eu] true", "us2+us3 map[region:us] false"}, `foo{region="eu"}`, `foo{env="y",region!="eu"}`)
	f(nil, `foo{region="ap"}`)
	f(nil)
	// us3 may hold what us and us2 hold.
	list := partition.Of(s.View(t.Context()), []view.Selection{selectionOf(t, "foo")})
	require.Len(t, list, 2)
	require.Equal(t, lset{"region": "us"}, list[1].Labels())
	require.Len(t, list[1].Members(), 3)
	require.False(t, list[1].Single())
	require.True(t, list[0].Concerns(selectionOf(t, `foo{region=~"e."}`)))
	require.False(t, list[1].Concerns(selectionOf(t, `foo{region=~"e."}`)))
	require.True(t, list[1].Concerns(selectionOf(t, `foo{env="y"}`)))
}

type lset = map[string]string

func selectionOf(t *testing.T, selector string) view.Selection {
	t.Helper()
	return view.Selection{Matchers: matchersOf(t, selector), MaxT: hour}
}
