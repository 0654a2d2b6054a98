package labelmap

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
)

func TestApply_LabelsDoNotDependOnTheTransport(t *testing.T) {
	cfg := &config.Group{Labels: map[string]string{"region": "eu", "a": "1"}, ReplicaLabels: []string{"replica"}}
	f := func(want, replica string, external map[string]string, raw ...string) {
		t.Helper()
		got, name := NewRules(cfg, external).Apply(pairs(raw))
		require.Equal(t, want, got.String())
		require.Equal(t, replica, name)
	}
	f(`{__name__="m", a="1", region="eu", z="z"}`, "", nil, "__name__", "m", "z", "z")
	external := map[string]string{"region": "eu", "replica": "r1", "dc": "d1"}
	f(`{__name__="m", a="1", region="eu"}`, "replica\xfer1\xff", external, "__name__", "m", "dc", "d1", "region", "eu", "replica", "r1")
	// The series' own label of an external label's name stays.
	f(`{__name__="m", a="1", dc="own", region="eu"}`, "", external, "__name__", "m", "dc", "own", "region", "eu")
	f(`{__name__="m", a="1", exported_region="us", region="eu"}`, "", nil, "__name__", "m", "region", "us")
	// What is dropped tells series apart that then are the same.
	f(`{__name__="m", a="1", region="eu"}`, "region\xfeeu\xff", nil, "__name__", "m", "region", "eu")
	f(`{__name__="m", a="1", region="eu"}`, "a\xfe1\xff", nil, "__name__", "m", "a", "1")
}

func TestApply_NoLabelIsThereTwice(t *testing.T) {
	f := func(want string, cfg config.Group, external map[string]string, raw ...string) {
		t.Helper()
		got, _ := NewRules(&cfg, external).Apply(pairs(raw))
		require.Equal(t, want, got.String())
	}
	cfg := config.Group{Labels: map[string]string{"c": "eu"}}
	f(`{c="eu", exported_c="es1"}`, cfg, nil, "c", "eu", "exported_c", "es1")
	f(`{c="eu", exported_c="es1", exported_exported_c="us"}`, cfg, nil, "exported_c", "es1", "c", "us")
	f(`{c="eu", exported_c="us"}`, cfg, map[string]string{"exported_c": "x"}, "c", "us", "exported_c", "x")
	cfg.Labels["exported_c"] = "1"
	f(`{c="eu", exported_c="1", exported_exported_c="us", exported_exported_exported_c="2"}`, cfg, nil, "exported_c", "2", "c", "us")
	cfg = config.Group{Labels: map[string]string{"c": "eu"}, ReplicaLabels: []string{"exported_c"}}
	f(`{c="eu", exported_exported_c="us"}`, cfg, nil, "c", "us", "exported_c", "r")
}

func pairs(raw []string) []labels.Label {
	var out []labels.Label
	for i := 0; i < len(raw); i += 2 {
		out = append(out, labels.Label{Name: raw[i], Value: raw[i+1]})
	}
	return out
}

// What is told is of series that the request may see, whatever came first.
func TestRules_TellOfWhatIsShownOnly(t *testing.T) {
	rulesFor := func(selector string) *Rules {
		r := NewRules(&config.Group{Labels: map[string]string{"region": "eu"}}, nil).Respell(oddValues).About(parsed(t, selector))
		for _, region := range []string{"hidden", "us", "us2"} {
			r.Apply(pairs([]string{"__name__", "foo", "region", region}))
			r.Apply(pairs([]string{"__name__", "y_bucket", "region", region, "le", "10"}))
		}
		return r
	}
	r := rulesFor(`{exported_region=~"us.*"}`)
	require.Equal(t, map[string]string{"region": "us"}, r.Conflicts())
	require.Len(t, r.PresumedNumbers(), 1)
	r = rulesFor(`{exported_region="nobody"}`)
	require.Empty(t, r.Conflicts())
	require.Empty(t, r.PresumedNumbers())
	require.True(t, r.Respelled())
}
