package differential

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
)

// exprs makes random expressions over the metrics of a world.
type exprs struct {
	r       *rand.Rand
	w       *world
	moments []int64
}

func newExprs(r *rand.Rand, w *world) *exprs { return &exprs{r: r, w: w, moments: w.moments()} }

// moment is a time in the world, or around it; every other is one at which
// something happens.
func (g *exprs) moment() int64 {
	if n := len(g.moments); n > 0 && g.r.IntN(2) == 0 {
		return g.moments[g.r.IntN(n)] - minute + g.r.Int64N(8*minute)
	}
	return g.w.start - 5*minute + g.r.Int64N(g.w.end-g.w.start+15*minute)
}

// question is a random expression at a random time or over a random range.
func (g *exprs) question() question {
	var q question
	q.start = g.moment()
	if g.r.IntN(3) == 0 {
		q.start -= q.start % (15 * second) // on whole scrapes, perhaps
	}
	q.end = q.start
	if g.r.IntN(5) > 1 {
		q.step = []int64{15 * second, 30 * second, minute, 61 * second, 7_777, 5 * minute, 1001, 13*minute + 1}[g.r.IntN(8)]
		q.end = q.start + g.r.Int64N(1+min(60*q.step, max(q.step, g.w.end+10*minute-q.start)))
	}
	if g.r.IntN(6) == 0 {
		q.lookback = []int64{15 * second, 25 * second, minute, 61*second + 1, 12 * minute}[g.r.IntN(5)]
	}
	q.local = g.w.early && g.r.IntN(4) == 0
	switch g.r.IntN(40) {
	case 0, 1:
		q.query = g.scalar(2)
	case 2: // outermost only: upstream answers in any order
		v := g.vector(1)
		if g.w.early { // the last digit of a sum is in the label
			v = g.selector(g.metric())
		}
		q.query = fmt.Sprintf("count_values%s(%q, %s)", g.grouping(), g.pick("value", "job"), v)
	case 3, 4, 5:
		q.query = g.perTarget()
	default:
		q.query = g.vector(1 + g.r.IntN(3))
	}
	return q
}

// perTarget is an aggregation as dashboards have them. As a rule each of its series is of one target,
// so that shards answer it whole.
func (g *exprs) perTarget() string {
	v := g.selector(g.pick("temp", "reqs_total", "lat_bucket", "up", "nat", "mixed"))
	if g.r.IntN(2) == 0 {
		v = fmt.Sprintf("rate(%s[%s])", g.selector(g.pick("reqs_total", "reqs_total", "lat_bucket", "nat")), g.duration())
	}
	op, param := g.pick("avg", "avg", "avg", "quantile", "stddev", "stdvar"), ""
	if op == "quantile" {
		param = g.pick("0", "0.5", "0.9") + ", "
	}
	of := fmt.Sprintf("%s %s (%s%s)", op, g.pick("by (instance)", "by (instance)", "by (instance, job)", "by (instance, code)", "by (job)", "without (code)", "without (shard, code, le)"), param, v)
	return fmt.Sprintf(g.pick("%s", "%s", "100 - %s * 100", "%s > 2", "max(%s)", "max_over_time(%s[10m:1m])", "-%s / on (instance) group_left () max by (instance) (up)"), of)
}

func (g *exprs) pick(list ...string) string { return list[g.r.IntN(len(list))] }

// duration is one of those that people write, or an odd one.
func (g *exprs) duration() string {
	if g.r.IntN(6) == 0 {
		return fmt.Sprintf("%dms", 1+g.r.Int64N(20*minute))
	}
	return g.pick("30s", "1m", "90s", "2m", "5m", "5m", "7m", "10m", "17m", "30m", "1h")
}

func (g *exprs) number() string {
	if g.w.sparse {
		return g.pick("0", "1", "2", "0.5", "10", "100", "1.5", "-1")
	}
	return g.pick("0", "1", "2", "3", "0.5", "10", "100", "-1", "1.5", "1e3", "0.1", "NaN", "+Inf")
}

func (g *exprs) metric() string {
	if g.w.changing && g.r.IntN(8) == 0 {
		return g.pick("stamped", recorded)
	}
	return g.pick("up", "up", "build_info", "temp", "temp", "temp", "reqs_total", "reqs_total", "reqs_total",
		"lat_bucket", "lat_count", "lat_sum", "nat", "nat", "nat_float", "nat_gauge", "nat_custom", "mixed", "nothing")
}

// matchers suit some of the series. No two are for the same label: upstream's
// TSDB sorts the matchers of the parsed expression in place, and what absent()
// makes of two for one label depends on their order.
func (g *exprs) matchers() []string {
	var ms []string
	names := []string{"job", "instance", "code", "le", "zone", "shard", "version", "absent"}
	g.r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for g.r.IntN(3) == 0 && len(names) > 0 {
		i := 0
		if g.r.IntN(2) == 0 { // what all series have
			i = max(0, slices.IndexFunc(names, func(n string) bool { return n == "job" || n == "instance" }))
		}
		ms = append(ms, g.matcher(names[i]))
		names = slices.Delete(names, i, i+1)
	}
	return ms
}

func (g *exprs) matcher(name string) string {
	values := map[string][]string{
		"job": {"api", "db"}, "instance": {"i0", "i1", "i2", "i3"}, "code": {"200", "404", "500"}, "le": {"0.1", "+Inf"},
		"zone": {"z0", "z1"}, "shard": {"a", "b", "c"}, "version": {"1", "2"}, "absent": {""},
	}[name]
	switch g.r.IntN(5) {
	case 0, 1:
		return fmt.Sprintf("%s=%q", name, g.pick(values...))
	case 2:
		return fmt.Sprintf("%s!=%q", name, g.pick(append(values, "")...))
	case 3:
		return fmt.Sprintf("%s=~%q", name, g.pick("i[0-1]|a|z0|api", ".*", ".+|", "[a-z]+.?", "[0-9]+|2..|a|b", ""))
	}
	return fmt.Sprintf("%s!~%q", name, g.pick("i[0-1]", "a", "b|4..|5..", "db", ".*x", "z1|i2|c"))
}

// selector is a vector selector without modifiers.
func (g *exprs) selector(metric string) string {
	ms := g.matchers()
	switch g.r.IntN(20) {
	case 0:
		ms = append(ms, g.pick(`__name__=~"lat_.*"`, `__name__=~"temp|up"`, `__name__!~"nat.*|mixed|lat.*"`, `__name__=~"nat.*"`))
		metric = ""
	case 1:
		ms = append(ms, g.pick(`__name__!=""`, `__name__=~".+"`))
		metric = ""
	}
	if len(ms) == 0 {
		return metric
	}
	return metric + "{" + strings.Join(ms, ",") + "}"
}

// modifiers are offset and @, seldom both.
func (g *exprs) modifiers() string {
	var out string
	if g.r.IntN(6) == 0 {
		out += " offset " + g.pick("", "", "-") + g.duration()
	}
	if g.r.IntN(12) == 0 {
		at := seconds(g.moment())
		out += " @ " + g.pick(at, at, "start()", "end()")
	}
	return out
}

// matrix is a range of a metric, or a subquery.
func (g *exprs) matrix(depth int, metric string) string {
	if g.w.sparse { // of histograms that an expression makes negative, an empty bucket is more than none
		depth = min(depth, 1)
	}
	if depth > 0 && g.r.IntN(4) == 0 {
		step := g.pick("", "", "15s", "30s", "1m", "47s", "90s", "5m", "12345ms")
		return fmt.Sprintf("%s[%s:%s]%s", g.operand(depth-1, metric), g.duration(), step, g.modifiers())
	}
	return fmt.Sprintf("%s[%s]%s", g.selector(metric), g.duration(), g.modifiers())
}

// operand is a vector that can be followed by a bracket or an operator.
func (g *exprs) operand(depth int, metric string) string {
	if depth <= 0 {
		return g.selector(metric)
	}
	return "(" + g.vector(depth) + ")"
}

// scalar is an expression of that type.
func (g *exprs) scalar(depth int) string {
	switch n := g.r.IntN(10); {
	case depth <= 0 || n < 6:
		return g.number()
	case n < 7:
		return "time()"
	case n < 9 && !g.w.sparse: // it may be NaN
		return "scalar(" + g.vector(depth-1) + ")"
	}
	return fmt.Sprintf("(%s %s %s)", g.scalar(depth-1), g.arithmetic("> bool"), g.scalar(depth-1))
}

// vector is an expression of that type, depth operations deep at most.
func (g *exprs) vector(depth int) string {
	if depth <= 0 {
		return g.selector(g.metric()) + g.modifiers()
	}
	depth--
	switch n := g.r.IntN(100); {
	case n < 4:
		return g.selector(g.metric()) + g.modifiers()
	case n < 34:
		return g.overTime(depth)
	case n < 56:
		return g.aggregation(depth)
	case n < 70:
		return g.function(depth)
	case n < 80:
		return g.histogram(depth)
	case n < 95:
		return g.binary(depth)
	}
	return g.labelFunction(depth)
}

// overTime is a function of a range.
func (g *exprs) overTime(depth int) string {
	m := g.matrix(depth, g.metric())
	switch g.r.IntN(30) {
	case 0:
		return fmt.Sprintf("quantile_over_time(%s, %s)", g.scalar(depth), m)
	case 1:
		return fmt.Sprintf("predict_linear(%s, %s)", m, g.pick("0", "60", "3600", "-10"))
	case 2:
		return fmt.Sprintf("double_exponential_smoothing(%s, 0.%d, 0.%d)", m, 1+g.r.IntN(9), 1+g.r.IntN(9))
	case 3:
		return fmt.Sprintf("absent_over_time(%s)", m)
	case 4:
		f := g.pick("rate", "increase", "delta", "resets", g.changes())
		keep := g.pick("anchored", "smoothed")
		if f == "delta" || f == "rate" || f == "increase" || keep == "anchored" {
			return fmt.Sprintf("%s(%s[%s] %s%s)", f, g.selector(g.metric()), g.duration(), keep, g.modifiers())
		}
	case 5, 6, 7:
		return fmt.Sprintf("%s(%s)", g.pick("rate", "increase", "irate"), g.matrix(depth, g.pick("reqs_total", "lat_count", "lat_bucket", "nat", "nat_custom")))
	}
	return fmt.Sprintf("%s(%s)", g.pick(
		"rate", "rate", "rate", "increase", "increase", "delta", "irate", "irate", "idelta", "deriv", g.changes(), "resets",
		"avg_over_time", "min_over_time", "max_over_time", "sum_over_time", "count_over_time", "last_over_time",
		"first_over_time", "present_over_time", "stddev_over_time", "stdvar_over_time", "mad_over_time",
		"ts_of_first_over_time", "ts_of_last_over_time", "ts_of_max_over_time", "ts_of_min_over_time",
	), m)
}

// changes is the function, unless empty buckets count as a change.
func (g *exprs) changes() string {
	if g.w.sparse {
		return "resets"
	}
	return "changes"
}

// labelNames are names of labels for by, without, on and ignoring.
func (g *exprs) labelNames() string {
	return g.pick("job", "job", "instance", "job, instance", "job, instance", "code", "zone", "le", "shard", "job, shard", "", "job, le", "version")
}

// grouping is that of an aggregation, or nothing.
func (g *exprs) grouping() string {
	if g.r.IntN(4) == 0 {
		return ""
	}
	return fmt.Sprintf(" %s (%s)", g.pick("by", "by", "without"), g.labelNames())
}

func (g *exprs) aggregation(depth int) string {
	grouping, v := g.grouping(), g.vector(depth)
	switch g.r.IntN(11) {
	case 0:
		return fmt.Sprintf("%s%s (%s, %s)", g.pick("topk", "bottomk"), grouping, g.pick("1", "2", "3", "7"), v)
	case 1:
		return fmt.Sprintf("quantile%s (%s, %s)", grouping, g.pick("0.3", "0.9", "1", g.scalar(depth)), v)
	case 2:
		return fmt.Sprintf("limitk%s (%s, %s)", grouping, g.pick("1", "2", "5"), v)
	case 3:
		return fmt.Sprintf("limit_ratio%s (%s, %s)", grouping, g.pick("0.5", "-0.5", "0.1"), v)
	}
	op := g.pick("sum", "sum", "sum", "avg", "avg", "min", "max", "count", "group", "stddev", "stdvar")
	if strings.HasPrefix(op, "std") && farFromZero.MatchString(v) {
		v = g.selector(g.metric())
	}
	return fmt.Sprintf("%s%s (%s)", op, grouping, v)
}

// farFromZero are timestamps, whose variance depends on the order of series from the
// seventh digit on: upstream's engine gathers them in a map, so that it has one only by
// chance, and of a few series hardly ever all.
var farFromZero = regexp.MustCompile(`time(stamp)?\(|ts_of`)

// function is a function of a vector.
func (g *exprs) function(depth int) string {
	switch g.r.IntN(16) {
	case 0:
		return "vector(" + g.scalar(depth) + ")"
	case 1:
		return fmt.Sprintf("round(%s, %s)", g.input(depth, "round"), g.pick("0.1", "5", "0.3"))
	case 2:
		return fmt.Sprintf("clamp(%s, %s, %s)", g.vector(depth), g.scalar(depth), g.scalar(depth))
	case 3:
		return fmt.Sprintf("%s(%s, %s)", g.pick("clamp_min", "clamp_max"), g.vector(depth), g.scalar(depth))
	case 4, 5:
		return fmt.Sprintf("absent(%s)", g.vector(depth))
	case 6, 7:
		return fmt.Sprintf("timestamp(%s)", g.vector(g.r.IntN(depth+1)))
	case 8:
		return fmt.Sprintf("%s(%s)", g.pick("sort", "sort_desc"), g.vector(depth))
	case 9:
		return fmt.Sprintf("%s(%s, %q)", g.pick("sort_by_label", "sort_by_label_desc"), g.vector(depth), g.pick("job", "instance", "code"))
	case 10:
		return "-(" + g.vector(depth) + ")"
	case 11:
		return fmt.Sprintf("info(%s%s)", g.vector(depth), g.pick("", `, {version=~".+"}`, `, {__name__="build_info"}`))
	}
	f := g.pick(
		"abs", "ceil", "floor", "exp", "ln", "log2", "log10", "sqrt", "sgn", "sin", "cos", "tanh", "atan", "deg", "rad",
		"hour", "minute", "day_of_week", "days_in_month", "year", "round",
	)
	return fmt.Sprintf("%s(%s)", f, g.input(depth, f))
}

// magnifying are functions that make much of the last digit of a sum.
var magnifying = []string{"ceil", "floor", "round", "sgn", "exp", "sin", "cos"}

// input is a vector for a function.
func (g *exprs) input(depth int, function string) string {
	if g.w.early && slices.Contains(magnifying, function) {
		depth = 0
	}
	return g.vector(depth)
}

// histogram is a function of histograms.
func (g *exprs) histogram(depth int) string {
	h := g.pick("nat", "nat", "nat_float", "nat_gauge", "nat_custom", "mixed")
	arg := g.selector(h) + g.modifiers()
	switch g.r.IntN(4) {
	case 0:
		arg = fmt.Sprintf("%s(%s)", g.pick("rate", "increase", "delta", "irate", "sum_over_time", "avg_over_time", "last_over_time"), g.matrix(depth, h))
	case 1:
		arg = fmt.Sprintf("sum by (%s) (rate(%s))", g.labelNames(), g.matrix(depth, h))
	case 2:
		if g.r.IntN(2) == 0 {
			return fmt.Sprintf("histogram_quantile(%s, sum by (le, job) (rate(%s)))", g.pick("0.5", "0.9", "0.99"), g.matrix(depth, "lat_bucket"))
		}
	}
	switch g.r.IntN(8) {
	case 0, 1:
		return fmt.Sprintf("histogram_quantile(%s, %s)", g.pick("0", "0.1", "0.5", "0.9", "0.99", "1", "2"), arg)
	case 2:
		return fmt.Sprintf("histogram_fraction(%s, %s, %s)", g.pick("0", "-Inf", "0.5"), g.pick("1", "+Inf", "3"), arg)
	case 3:
		return fmt.Sprintf("histogram_quantiles(%s, \"q\", 0.5, 0.9)", arg)
	}
	return fmt.Sprintf("%s(%s)", g.pick("histogram_avg", "histogram_count", "histogram_count", "histogram_sum", "histogram_stddev", "histogram_stdvar"), arg)
}

// arithmetic is one of its operators or of more.
func (g *exprs) arithmetic(more ...string) string {
	if g.w.sparse {
		return g.pick(append(more, "+", "-", "*")...)
	}
	more = append(more, "+", "-", "*", "/", "atan2")
	if !g.w.early { // they make much of the last digit of a sum
		more = append(more, "%", "^")
	}
	return g.pick(more...)
}

// binary is an operator between two vectors, or a vector and a scalar.
func (g *exprs) binary(depth int) string {
	op := g.arithmetic(">", "<", ">=", "<=")
	if !g.w.sparse && g.r.IntN(4) == 0 {
		op = g.pick("==", "!=")
	}
	if strings.ContainsAny(op, "=<>") && g.r.IntN(2) == 0 {
		op += " bool"
	}
	switch g.r.IntN(9) {
	case 0:
		return fmt.Sprintf("%s %s %s", g.operand(depth, g.metric()), op, g.scalar(depth))
	case 1:
		return fmt.Sprintf("%s %s %s", g.scalar(depth), op, g.operand(depth, g.metric()))
	case 2: // both sides alike
		m := g.metric()
		return fmt.Sprintf("%s%s %s %s%s", m, g.modifiers(), op, m, g.modifiers())
	case 3: // two aggregations by the same labels
		by := g.labelNames()
		return fmt.Sprintf("sum by (%s) (%s) %s%s sum by (%s) (%s)", by, g.vector(depth), op, g.fill(op), by, g.vector(depth))
	case 4:
		return fmt.Sprintf("%s %s on (job, instance) group_left (%s) %s", g.operand(depth, g.metric()), op, g.pick("", "version"), g.pick("up", "build_info"))
	case 5:
		return fmt.Sprintf("%s %s on (job, instance) group_right (%s) %s", g.pick("up", "build_info"), op, g.pick("", "version"), g.operand(depth, g.metric()))
	case 6:
		return fmt.Sprintf("%s %s ignoring (%s) %s", g.operand(depth, g.metric()), op, g.pick("code", "zone", "code, zone", "le"), g.operand(depth, g.metric()))
	}
	match := ""
	if g.r.IntN(2) == 0 {
		match = fmt.Sprintf(" %s (%s)", g.pick("on", "ignoring"), g.labelNames())
	}
	return fmt.Sprintf("%s %s%s %s", g.operand(depth, g.metric()), g.pick("and", "or", "unless"), match, g.operand(depth, g.metric()))
}

// fill is a fill modifier, at times.
func (g *exprs) fill(_ string) string {
	if g.r.IntN(4) > 0 {
		return ""
	}
	return " " + g.pick("fill(0)", "fill_left(1)", "fill_right(0)", "fill_left(1) fill_right(2)")
}

func (g *exprs) labelFunction(depth int) string {
	if g.r.IntN(2) == 0 {
		return fmt.Sprintf(`label_join(%s, "both", "-", "job", "instance")`, g.vector(depth))
	}
	return fmt.Sprintf(`label_replace(%s, %q, %q, %q, %q)`, g.vector(depth),
		g.pick("to", "job", "__name__"), g.pick("x$1", "", "$1"), g.pick("instance", "code", "job"), g.pick("(.*)", "i(.)", "a(.)i"))
}
