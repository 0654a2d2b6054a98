package plan

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

func TestNeedEveryGroup(t *testing.T) {
	var layout Layout
	f := func(text string, want ...string) {
		t.Helper()
		expr, err := parser.NewParser(promqltest.TestParserOpts).ParseExpr(text)
		require.NoError(t, err)
		var got []string
		for _, ms := range NeedEveryGroup(expr, layout) {
			got = append(got, transport.Selector(ms))
		}
		require.Equal(t, want, got, text)
	}
	a, b := `{__name__="a"}`, `{__name__="b"}`
	for _, text := range []string{
		`a`, `sum(rate(a[5m]))`, `a or b`, `sum(a) or vector(0)`, `a and b`, `a < 5`, `sum(a) > 5`, `5 < (sum(a))`, `a unless vector(1)`, `count(a) / count(b)`,
		`count_values("x", a)`, `scalar(a) == bool 1`,
	} {
		f(text)
	}
	f(`absent(a)`, a)
	f(`absent_over_time(a[5m]) or b`, a)
	f(`absent(sum(a) / b)`, a, b)
	f(`max_over_time(absent(a)[5m:1m])`, a)
	f(`a unless on (x) b`, b)
	f(`sum(a) < 5`, a)
	f(`5 >= bool count(a)`, a)
	f(`count(a) == 0`, a)
	f(`count(a) != count(b)`, a, b)
	f(`sum(a) / 2 <= b`, a)
	// What is less without some series may be more than the truth where it is divided, or
	// an average or a minimum.
	f(`avg(a) > 5`, a)
	f(`5 < min(a)`, a)
	f(`sum(a) / sum(b) > 0.1`, a, b)
	f(`sum(a) > bool 5`, a)
	// Each region by itself.
	f(`count by (region) (a) == 0`, a)
	var groups []config.Group
	for _, name := range []string{"x", "y"} {
		cfg := config.DefaultGroup
		cfg.Name, cfg.Labels = name, map[string]string{"region": name}
		groups = append(groups, cfg)
	}
	v := servergroup.Offline(groups, config.PartialWarn, time.Unix(0, 0))
	layout = (&Routed{Partitions: partition.Of(v, []view.Selection{{MaxT: 1}})}).Layout()
	require.Len(t, layout.Partitions, 2)
	f(`count by (region) (a) == 0`)
	f(`count without (job) (a) == 0`)
	f(`count by (job) (a) == 0`, a)
	f(`count without (region) (a) == 0`, a)
}
