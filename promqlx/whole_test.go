package promqlx

import (
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/transport"
)

func TestWhole(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		expr, err := parser.NewParser(promqltest.TestParserOpts).ParseExpr(text)
		require.NoError(t, err)
		var got []string
		for _, ms := range whole(expr) {
			got = append(got, transport.Selector(ms))
		}
		require.Equal(t, want, got, text)
	}
	a, b := `{__name__="a"}`, `{__name__="b"}`
	for _, text := range []string{
		`a`, `sum(rate(a[5m]))`, `a or b`, `sum(a) or vector(0)`, `a and b`, `a < 5`, `sum(a) > 5`, `5 < sum(a)`, `a unless vector(1)`, `count(a) / count(b)`,
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
}
