package admission

import (
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/config"
)

var syntaxOfAll = parser.NewParser(parser.Options{EnableExperimentalFunctions: true, ExperimentalDurationExpr: true})

// query makes a query over a range, which is 0 for an instant query.
func query(t *testing.T, text string, length, step time.Duration) Query {
	t.Helper()
	q := Query{Text: text, Start: time.Unix(0, 0), End: time.Unix(0, 0).Add(length), Step: step, Header: http.Header{}}
	expr, err := syntaxOfAll.ParseExpr(text)
	require.NoError(t, err)
	q.Expr, err = promql.PreprocessExpr(expr, q.Start, q.End, step)
	require.NoError(t, err)
	return q
}

func rules(t *testing.T, before *Rules, configured ...config.QueryRule) *Rules {
	t.Helper()
	rs, err := NewRules(configured, before)
	require.NoError(t, err)
	return rs
}

// refuses reports whether a rule with some conditions applies.
func refuses(t *testing.T, r config.QueryRule, q Query) bool {
	t.Helper()
	r.Name, r.Action, r.Reason = "r", config.ActionRefuse, "why"
	pools, err := rules(t, nil, r).Judge(q)
	require.Empty(t, pools)
	if err != nil {
		require.EqualError(t, err, `the query rule "r" refuses this query: why`)
	}
	return err != nil
}

func TestRules_Regex(t *testing.T) {
	f := func(regex, text string, want bool) {
		t.Helper()
		require.Equal(t, want, refuses(t, config.QueryRule{Regex: regex}, query(t, text, 0, 0)))
	}
	f("up", "up", true)
	f("up", "up + 1", false)
	f(".*up.*", "1 +\nup\n", true)
	f("up|down", "down1", false)
}

func TestRules_MaxRange(t *testing.T) {
	const day = 24 * time.Hour
	f := func(text string, length time.Duration, want bool) {
		t.Helper()
		require.Equal(t, want, refuses(t, config.QueryRule{MaxRange: model.Duration(7 * day)}, query(t, text, length, time.Hour)), text)
	}
	f("up", 7*day, false)
	f("up", 7*day+time.Second, true)
	f("rate(up[5m])", 7*day, false)
	f("rate(up[8d])", 0, true)
	f("max_over_time(up[8d:1h])", 0, true)
	f("max_over_time(rate(up[8d])[1h:1m])", 0, true)
	f("rate(up[1d * 8])", 0, true)
	f("rate(up[1d]) / rate(up[8d] offset 1h)", 0, true)
	f("up offset 8d", 0, false)
	f("1", 0, false)
}

func TestRules_MinStep(t *testing.T) {
	f := func(text string, step time.Duration, want bool) {
		t.Helper()
		require.Equal(t, want, refuses(t, config.QueryRule{MinStep: model.Duration(15 * time.Second)}, query(t, text, 100*step, step)), text)
	}
	f("up", 0, false)
	f("up", 15*time.Second, false)
	f("up", 14*time.Second, true)
	f("max_over_time(up[1h:10s])", 0, true)
	f("max_over_time(up[1h:5s * 2])", 0, true)
	f("max_over_time(up[1h:15s])", 0, false)
	f("max_over_time(up[1h:])", 0, false)
}

func TestRules_SelectorWithoutMatchers(t *testing.T) {
	f := func(text string, want bool) {
		t.Helper()
		require.Equal(t, want, refuses(t, config.QueryRule{SelectorWithoutMatchers: true}, query(t, text, 0, 0)), text)
	}
	f(`up`, false)
	f(`{job="a"}`, false)
	f(`{job=~"a"}`, false)
	f(`{job=~"a|b"}`, false)
	f(`{job=~".*a.*"}`, false)
	f(`{job=~"[a-z]+"}`, false)
	f(`{job=~".+", env!="x", site="s"}`, false)
	f(`{__name__=~"up|down"}`, false)
	f(`{__name__=~"up"}`, false)
	f(`{__name__=~"http_.*", job="a"}`, false)
	f(`1 + vector(2)`, false)

	f(`{__name__=~"http_.*"}`, true)
	f(`{__name__=~".+"}`, true)
	f(`{__name__!="up", job=~".+"}`, true)
	f(`{job=~".+"}`, true)
	f(`{job=~"..*"}`, true)
	f(`{job=~".*.", site=~"(?:(.+))"}`, true)
	f(`{job=~".{2,}$"}`, true)
	f(`{job=~"a|.+"}`, true)
	f(`{job=~"[\\s\\S]+"}`, true)
	f(`{job=~"(?i:.)+"}`, true)
	f(`{job!=""}`, true)
	f(`{job!~"a|"}`, true)
	f(`{job=~".+", site=~"a|"}`, true)
	f(`{job=~".+", site=""}`, true)
	f(`sum(rate(up[5m])) / sum(rate({job=~".+"}[5m]))`, true)
	f(`max_over_time({__name__=~"a.*"}[1h:1m] @ end())`, true)

	f(`info(up, {k8s_cluster=~".+"})`, false)
	f(`info({job=~".+"}, {k8s_cluster=~".+"})`, true)
}

func TestRules_Headers(t *testing.T) {
	q := query(t, "up", 0, 0)
	q.Header.Set("User-Agent", "Grafana/12.1")
	q.Header.Set("X-Dashboard-Uid", "abc")
	f := func(userAgent string, header map[string]string, want bool) {
		t.Helper()
		require.Equal(t, want, refuses(t, config.QueryRule{UserAgent: userAgent, Header: header}, q))
	}
	f("Grafana/.*", nil, true)
	f("Grafana", nil, false)
	f("", map[string]string{"x-dashboard-uid": "abc|def"}, true)
	f("", map[string]string{"X-Dashboard-Uid": "ab"}, false)
	f("", map[string]string{"X-Dashboard-Uid": "abc", "X-Panel-Id": "1"}, false)
	f("", map[string]string{"X-Dashboard-Uid": "abc", "X-Panel-Id": ""}, true)
	f("curl.*", map[string]string{"X-Dashboard-Uid": "abc"}, false)
}

func TestRules_AllConditionsMustHold(t *testing.T) {
	r := config.QueryRule{
		Regex: ".*a.*", MaxRange: model.Duration(time.Hour), MinStep: model.Duration(time.Minute),
		SelectorWithoutMatchers: true, UserAgent: "x", Header: map[string]string{"Y": "y"},
	}
	asked := func(text string, length, step time.Duration, x, y string) Query {
		q := query(t, text, length, step)
		q.Header.Set("User-Agent", x)
		q.Header.Set("Y", y)
		return q
	}
	const text = `{a!=""}`
	require.True(t, refuses(t, r, asked(text, 2*time.Hour, time.Second, "x", "y")))
	require.False(t, refuses(t, r, asked(`{b!=""}`, 2*time.Hour, time.Second, "x", "y")))
	require.False(t, refuses(t, r, asked(text, time.Hour, time.Second, "x", "y")))
	require.False(t, refuses(t, r, asked(text, 2*time.Hour, time.Minute, "x", "y")))
	require.False(t, refuses(t, r, asked(`a{job!=""}`, 2*time.Hour, time.Second, "x", "y")))
	require.False(t, refuses(t, r, asked(text, 2*time.Hour, time.Second, "", "y")))
	require.False(t, refuses(t, r, asked(text, 2*time.Hour, time.Second, "x", "")))
}

func TestRules_SlotsOfAllThatApply(t *testing.T) {
	a := config.QueryRule{Name: "a", Regex: ".*a.*", MaxConcurrency: 2}
	b := config.QueryRule{Name: "b", Regex: ".*b.*", MaxConcurrency: 1}
	no := config.QueryRule{Name: "no", Regex: ".*x.*", Action: config.ActionRefuse, Reason: "x"}
	never := config.QueryRule{Name: "never", Regex: ".*x.*", Action: config.ActionRefuse, Reason: "never shown"}
	rs := rules(t, nil, a, b, no, never)
	f := func(text string, want ...string) {
		t.Helper()
		pools, err := rs.Judge(query(t, text, 0, 0))
		require.NoError(t, err)
		var knobs []string
		for _, p := range pools {
			knobs = append(knobs, p.knob)
		}
		require.Equal(t, want, knobs)
	}
	f("c")
	f("a", `max_concurrency of the query rule "a"`)
	f("a + b", `max_concurrency of the query rule "a"`, `max_concurrency of the query rule "b"`)
	_, err := rs.Judge(query(t, "a + x", 0, 0))
	require.EqualError(t, err, `the query rule "no" refuses this query: x`)

	pools, err := (*Rules)(nil).Judge(query(t, "a", 0, 0))
	require.NoError(t, err)
	require.Empty(t, pools)
}

// Queries under way count after a reload, unless their rule has another limit.
func TestRules_SlotsOutliveReload(t *testing.T) {
	a := config.QueryRule{Name: "a", Regex: "a", MaxConcurrency: 2}
	before := rules(t, nil, config.QueryRule{Name: "b", Regex: "b", MaxConcurrency: 2}, a)
	a.Regex = "a|b"
	after := rules(t, before, a)
	require.Same(t, before.rules[1].pool, after.rules[0].pool)
	a.MaxConcurrency = 3
	require.NotSame(t, before.rules[1].pool, rules(t, before, a).rules[0].pool)
	a.Name = "c"
	require.NotSame(t, before.rules[1].pool, rules(t, before, a).rules[0].pool)
}

func TestNewRules_BadRegex(t *testing.T) {
	for _, r := range []config.QueryRule{{Name: "n", Regex: "("}, {Name: "n", UserAgent: "("}, {Name: "n", Header: map[string]string{"a": "("}}} {
		_, err := NewRules([]config.QueryRule{r}, nil)
		require.ErrorContains(t, err, `query rule "n": error parsing regexp`)
	}
}
