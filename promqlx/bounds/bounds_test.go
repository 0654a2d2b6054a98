package bounds

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func nested(opens, innermost, closes string) func(n int) string {
	return func(n int) string { return strings.Repeat(opens, n) + innermost + strings.Repeat(closes, n) }
}

// TestCheck_Depth: as deep as may be, and one deeper.
func TestCheck_Depth(t *testing.T) {
	for _, text := range []func(n int) string{
		nested("up + on (instance) (", "up", ")"),
		nested("(", "up", " + up)"),
		nested("up or ", "up", ""),
		nested("a offset -5m + ", "b", ""),
		nested("a == bool ", "b", ""),
		nested("a ^ ", "b", ""),
		nested("-", "up", ""),
		nested("(", "up", ")"),
		nested("abs(", "up", ")"),
		nested("sum by (or, and) (", "up", ")"),
	} {
		require.NoError(t, Check(text(maxDepth)), text(1))
		require.ErrorIs(t, Check(text(maxDepth+1)), tooDeep, text(1))
		require.ErrorIs(t, Check(text(10*maxDepth)), tooDeep, text(1))
	}
	p := Parser(parser.NewParser(promqltest.TestParserOpts))
	e, err := p.ParseExpr(strings.Repeat("up or ", maxDepth) + "up")
	require.NoError(t, err)
	require.Equal(t, maxDepth, operators(e))
	_, err = p.ParseExpr(strings.Repeat("up or ", maxDepth+1) + "up")
	require.ErrorIs(t, err, tooDeep)
}

// TestCheck_Chain: operators that bind closer do not lengthen a chain of others.
func TestCheck_Chain(t *testing.T) {
	for _, text := range []func(n int) string{
		nested("a / b or ", "up", ""),
		nested("-a ^ b - c * -d + ", "up", ""),
		nested("a > b * c and d - e or ", "up", ""),
		nested("f(a + b, c + d) + ", "up", ""),
		nested("a == bool -1 < bool ", "b", ""),
	} {
		require.NoError(t, Check(text(990)), text(1))
		require.ErrorIs(t, Check(text(2001)), tooDeep, text(1))
	}
}

// TestCheck_Hostile: what would exhaust the stack of upstream's parser, or take it hours, is
// refused after a few words. Most of it cannot be parsed.
func TestCheck_Hostile(t *testing.T) {
	const n = 1 << 20
	for _, word := range []string{"(", "-", "a+", "sum(", "(a+", "-(", "a ^ -", "a > bool (", "#\n("} {
		require.ErrorIs(t, Check(strings.Repeat(word, n)), tooDeep, word)
	}
	require.ErrorIs(t, Check("up"+strings.Repeat("[1m:]", n)), tooDeep)
	for _, wide := range []string{"label_join(a" + strings.Repeat(`,"b"`, n) + ")", "up{" + strings.Repeat("a!=\"b\",", n) + "}", strings.Repeat("up ", n)} {
		require.EqualError(t, Check(wide), "the query is too long: it has more than 100000 words")
	}
}

// TestCheck_Wide: what is long without being deep is none of its business.
func TestCheck_Wide(t *testing.T) {
	for _, text := range []string{
		"",
		")" + strings.Repeat(" ", 3000),
		`up{a=~"` + strings.Repeat("host|", 300_000) + `"}`,
		"up{" + strings.Repeat("a!=\"b\",", 20_000) + "}",
		"sum by (" + strings.Repeat("a,", 20_000) + "b) (up)",
		"label_join(up" + strings.Repeat(`, "a+b"`, 20_000) + ")",
		strings.Repeat("(a or b) + ", 1500) + "(" + strings.Repeat("c or ", 400) + "d)",
		strings.Repeat("# a + b\n", 300_000) + "up",
		"((((" + strings.Repeat("x", 5000),
	} {
		require.NoError(t, Check(text))
	}
}

// TestDepthOf_IsThatOfTheTree compares what is found without parsing with the tree of each
// expression of upstream's tests.
func TestDepthOf_IsThatOfTheTree(t *testing.T) {
	exprs, err := promqltest.GetBuiltInExprs()
	require.NoError(t, err)
	exprs = append(exprs, "a + b * c ^ -d - (e or f[5m:1m] / 3) == 7", "-a ^ -b ^ -c", "f(a + b + c, d - (e - (f - g)))")
	compared, more := 0, 0
	for _, text := range exprs {
		e, err := parser.NewParser(promqltest.TestParserOpts).ParseExpr(text)
		if err != nil {
			continue
		}
		found, err := depthOf(text)
		require.NoError(t, err)
		depth := operators(e)
		require.GreaterOrEqual(t, 2*found, depth, text)
		compared++
		if found > depth+3 {
			more++
		}
	}
	require.Greater(t, compared, 1000)
	require.Less(t, more, compared/100)
}

// operators counts the operators and ranges on the longest way to a leaf.
func operators(e parser.Node) int {
	deepest := 0
	for _, child := range parser.Children(e) {
		deepest = max(deepest, operators(child))
	}
	switch e.(type) {
	case *parser.BinaryExpr, *parser.UnaryExpr, *parser.SubqueryExpr:
		deepest++
	}
	return deepest
}
