package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/dialect"
)

// What backends of other kinds refuse, lack or get wrong shows, or is worked around.

func TestDialects_PartialAnswersOfABackendAreSaid(t *testing.T) {
	c := plainClient(t)
	a, b := loaded(t, "load 30s\n m{i=\"0\"} 1x240"), loaded(t, "load 30s\n m{i=\"1\"} 1x240")
	thanos := dialect.NewThanos(dialect.ThanosOptions{Stores: euPair(a, b), ReplicaLabels: []string{"replica"}})
	thanos.SetDown("10.0.0.2:10901", true)
	config := oneBackend([]string{hostPort(t, serve(t, thanos))}, dropEU)
	warns, fails := oneprom(t, config), oneprom(t, "global: {partial_response: error}\n"+config)

	for _, path := range []string{instantQuery("count(m)", 600), rangeQuery("count(m)", 0, 600, 60), instantQuery("count(count_over_time(m[5m]))", 600)} {
		r := c.ask(t, warns, probe{path: path})
		require.Equal(t, http.StatusOK, r.status, r.body)
		var e struct{ Warnings []string }
		require.NoError(t, json.Unmarshal([]byte(r.body), &e))
		require.Contains(t, strings.Join(e.Warnings, "\n"), `server group "a"`)
		require.Contains(t, strings.Join(e.Warnings, "\n"), "10.0.0.2:10901")
		requireFailure(t, c.ask(t, fails, probe{path: path}), "10.0.0.2:10901")
	}
	for _, path := range []string{"/api/v1/series?match[]=m", "/api/v1/label/i/values"} {
		require.Contains(t, c.ask(t, warns, probe{path: path}).body, "10.0.0.2:10901", path)
		require.NotEqual(t, http.StatusOK, c.ask(t, fails, probe{path: path}).status, path)
	}
	thanos.SetDown("10.0.0.2:10901", false)
	r := c.ask(t, fails, probe{path: instantQuery("count(m)", 600)})
	require.Equal(t, http.StatusOK, r.status, r.body)
	require.NotContains(t, r.body, "warnings")
}

// Remote read cannot say that it is partial; the query API of Cortex can.
func TestDialects_PartialAnswersOfCortex(t *testing.T) {
	c := plainClient(t)
	cortex := dialect.NewCortex(dialect.CortexOptions{Data: loaded(t, "load 30s\n m{i=\"0\"} 1x9\n m{i=\"1\"} 1x9"), Prefix: "/api/prom"})
	cortex.SetPartial(true)
	base := oneprom(t, oneBackend([]string{hostPort(t, serve(t, cortex))}, cortexPath, asTenant, neverRead))
	require.Contains(t, c.ask(t, base, probe{path: instantQuery("count(m)", 60)}).body, "query result may contain partial data")
}

func TestDialects_MissingTenantIsAClearError(t *testing.T) {
	c := plainClient(t)
	data := loaded(t, "load 30s\n m 1x9")
	for name, b := range map[string]foreign{
		"mimir":             {handler: dialect.NewMimir(dialect.MimirOptions{Data: data}), options: []string{mimirPath}},
		"mimir by queries":  {handler: dialect.NewMimir(dialect.MimirOptions{Data: data}), options: []string{mimirPath, neverRead}},
		"cortex":            {handler: dialect.NewCortex(dialect.CortexOptions{Data: data, Prefix: "/api/prom"}), options: []string{cortexPath}},
		"cortex configured": {handler: dialect.NewCortex(dialect.CortexOptions{Data: data, Prefix: "/api/prom"}), options: []string{cortexPath, "kind: cortex"}},
	} {
		t.Run(name, func(t *testing.T) {
			address := hostPort(t, serve(t, b.handler))
			base := oneprom(t, oneBackend([]string{address}, b.options...))
			for _, path := range []string{instantQuery("m", 60), rangeQuery("m", 0, 60, 10), "/api/v1/series?match[]=m"} {
				r := c.ask(t, base, probe{path: path})
				requireFailure(t, r, address)
				require.Contains(t, r.body, "no org id")
				require.Contains(t, r.body, `server group \"a\"`)
			}
		})
	}
}

// A grid of steps that a backend moves to another one must not pass for the one that was asked for.
func TestDialects_MovedStepsAreNeverSilentlyWrong(t *testing.T) {
	c := plainClient(t)
	whole, bare := loaded(t, twoHours(`cluster="eu"`)), loaded(t, twoHours(`x=""`))
	want := truth(t, whole)
	for name, b := range map[string]foreign{
		"mimir that aligns": {handler: dialect.NewMimir(dialect.MimirOptions{Data: whole, Align: true}), options: []string{mimirPath, asTenant, neverRead}},
		"thanos that is distributed": {
			handler: dialect.NewThanos(dialect.ThanosOptions{Stores: euPair(bare, bare), ReplicaLabels: []string{"replica"}, Distributed: true}),
			options: []string{dropEU},
		},
	} {
		t.Run(name, func(t *testing.T) {
			base := oneprom(t, oneBackend([]string{hostPort(t, serve(t, b.handler))}, b.options...))
			for _, path := range dialectQueries() {
				if got := c.ask(t, base, probe{path: path}); got.status == http.StatusOK {
					assertEqual(t, inOrder(t, path, c.ask(t, want, probe{path: path})), inOrder(t, path, got), path)
				} else {
					t.Logf("%d for %s: %s", got.status, path, got.body)
				}
			}
		})
	}
}

// lookback-delta is oneprom's own, whatever a backend makes of the parameter.
func TestDialects_LookbackIsOneproms(t *testing.T) {
	c := plainClient(t)
	data := loaded(t, twoHours(`cluster="eu"`))
	const flag = "--query.lookback-delta=40s"
	for name, o := range map[string]dialect.MimirOptions{"old": {Data: data, NoLookbackDelta: true}, "new": {Data: data}} {
		base := oneprom(t, oneBackend([]string{hostPort(t, serve(t, dialect.NewMimir(o)))}, mimirPath, asTenant, neverRead), flag)
		for _, path := range []string{instantQuery("ends", 635), instantQuery("ends", 645), rangeQuery("gaps", 0, 7200, 13), rangeQuery("flaps", 0, 900, 7)} {
			want := c.ask(t, truth(t, data), probe{path: path + "&lookback_delta=40"})
			assertEqual(t, inOrder(t, path, want), inOrder(t, path, c.ask(t, base, probe{path: path})), name+" "+path)
		}
	}
}

// What was written after a query was cached is in the answer to the same query.
func TestDialects_CachesOfABackendAreNotBelieved(t *testing.T) {
	c := plainClient(t)
	data := loaded(t, "load 30s\n m 0+1x10")
	base := oneprom(t, oneBackend([]string{hostPort(t, serve(t, dialect.NewMimir(dialect.MimirOptions{Data: data, Cache: true})))}, mimirPath, asTenant, neverRead), keepsNothing)
	path := rangeQuery("m", 270, 330, 30)
	before := c.ask(t, base, probe{path: path})
	require.Equal(t, http.StatusOK, before.status, before.body)
	app := data.Appender(t.Context())
	_, err := app.Append(0, labels.FromStrings("__name__", "m"), 330_000, 77)
	require.NoError(t, err)
	require.NoError(t, app.Commit())
	requireSame(t, c, truth(t, data), base, path)
}

func TestDialects_KindThatChangesIsNoticed(t *testing.T) {
	c := plainClient(t)
	whole, bare := loaded(t, twoHours(`cluster="eu"`)), loaded(t, twoHours(`x=""`))
	want := truth(t, whole)
	prometheus := dialect.NewPrometheus(backendtest.Options{Queryable: whole}, nil)
	thanos := dialect.NewThanos(dialect.ThanosOptions{Stores: euPair(bare, bare), ReplicaLabels: []string{"replica"}})
	changing := dialect.NewChanging(prometheus)
	base := oneprom(t, oneBackend([]string{hostPort(t, serve(t, changing))}, dropEU))

	paths := []string{instantQuery("m", 600), rangeQuery("rate(reqs_total[5m])", 300, 3000, 31)}
	requireSame(t, c, want, base, paths...)
	kind, transport := replicaKind(t, c, base)
	require.Equal(t, "prometheus", kind)
	require.Contains(t, transport, "read")

	changing.Become(thanos)
	requireSame(t, c, want, base, paths...)
	kind, transport = replicaKind(t, c, base)
	require.Equal(t, "thanos", kind)
	require.NotContains(t, transport, "read")
}

// limited is a backend that refuses something.
type limited struct {
	name    string
	limits  *dialect.Limits
	handler func(data storage.Storage, l *dialect.Limits) http.Handler
	options []string
}

func plainPrometheus(read backendtest.RemoteRead) func(storage.Storage, *dialect.Limits) http.Handler {
	return func(data storage.Storage, l *dialect.Limits) http.Handler {
		return dialect.NewPrometheus(backendtest.Options{Queryable: data, RemoteRead: read}, l)
	}
}

func limitedThanos(data storage.Storage, l *dialect.Limits) http.Handler {
	return dialect.NewThanos(dialect.ThanosOptions{
		Stores:        []dialect.Store{{Name: "s", Labels: labels.FromStrings("replica", "a"), Data: data}},
		ReplicaLabels: []string{"replica"}, Limits: l,
	})
}

func limitedMimir(data storage.Storage, l *dialect.Limits) http.Handler {
	return dialect.NewMimir(dialect.MimirOptions{Data: data, Limits: l})
}

func limitedCortex(data storage.Storage, l *dialect.Limits) http.Handler {
	return dialect.NewCortex(dialect.CortexOptions{Data: data, Limits: l, Prefix: "/api/prom", BuildInfo: true})
}

// works starts oneprom in front of the backend and wants the paths answered as the truth does, the
// limit having been met if met.
func (b limited) works(t *testing.T, data storage.Storage, met bool, paths ...string) {
	t.Helper()
	base := oneprom(t, oneBackend([]string{hostPort(t, serve(t, b.handler(data, b.limits)))}, b.options...))
	requireSame(t, plainClient(t), truth(t, data), base, paths...)
	if met {
		require.Positive(t, b.limits.Refused(), "the limit was never met: this shows nothing")
	}
}

func TestDialects_MoreStepsThanABackendAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: make test-race runs it")
	}
	data := loaded(t, "load 30s\n m{i=\"0\"} 0+1x700 stale\n m{i=\"1\"} 5x300 _x100 7x300")
	// oneprom refuses what Prometheus refuses, but a subquery has no such limit.
	steps := instantQuery("sum_over_time(sum(m)[20000s:1s])", 20000)
	ranges := rangeQuery("m", 7, 20000, 2)
	for _, b := range []limited{
		{"prometheus by queries", &dialect.Limits{Points: 11000, Words: dialect.PrometheusWords}, plainPrometheus(backendtest.Streamed), []string{neverRead}},
		{"prometheus", &dialect.Limits{Points: 11000, Words: dialect.PrometheusWords}, plainPrometheus(backendtest.Streamed), nil},
		{"thanos", &dialect.Limits{Points: 11000, Words: dialect.ThanosWords}, limitedThanos, []string{dropEU}},
		{"mimir by queries", &dialect.Limits{Points: 11000, Words: dialect.MimirWords}, limitedMimir, []string{mimirPath, asTenant, neverRead}},
		{"cortex by queries", &dialect.Limits{Points: 11000, Words: dialect.CortexWords}, limitedCortex, []string{cortexPath, asTenant, neverRead}},
	} {
		t.Run(b.name, func(t *testing.T) { b.works(t, data, false, steps, ranges) })
	}
	for _, b := range []limited{
		{"prometheus of 1,000 points", &dialect.Limits{Points: 1000, Words: dialect.PrometheusWords}, plainPrometheus(backendtest.NoRemoteRead), nil},
		{"thanos of 1,000 points", &dialect.Limits{Points: 1000, Words: dialect.ThanosWords}, limitedThanos, []string{dropEU}},
		{"victoriametrics' words", &dialect.Limits{Points: 1000, Words: dialect.VictoriaMetricsWords}, plainPrometheus(backendtest.NoRemoteRead), nil},
	} {
		t.Run(b.name, func(t *testing.T) { b.works(t, data, true, steps, ranges) })
	}
}

// thirtyDays has a sample every five minutes, and a series that stops in between.
func thirtyDays(t *testing.T) storage.Storage {
	t.Helper()
	return loaded(t, `load 5m
		m{i="0"} 0+1.1x8640
		m{i="1"} 0+3x4000 0+2x4639
		m{i="2"} 7x3000 stale _x1000 9x500`)
}

func TestDialects_ThirtyDaysRawOfABackendWithLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: make test-race runs it")
	}
	data := thirtyDays(t)
	const month = 30 * 86400
	paths := []string{
		instantQuery("count_over_time(m[30d])", month),
		instantQuery("increase(m[30d])", month),
		instantQuery("m[30d]", month),
		instantQuery("sum(sum_over_time(m[29d] offset 1h))", month),
	}
	samples := func(w dialect.Words) *dialect.Limits { return &dialect.Limits{Samples: 5000, Words: w} }
	bytes := func(w dialect.Words) *dialect.Limits { return &dialect.Limits{ChunkBytes: 4000, Words: w} }
	for _, b := range []limited{
		{"prometheus by queries", samples(dialect.PrometheusWords), plainPrometheus(backendtest.NoRemoteRead), nil},
		{"prometheus that reads samples", samples(dialect.PrometheusWords), plainPrometheus(backendtest.SamplesOnly), nil},
		{"thanos", samples(dialect.ThanosWords), limitedThanos, []string{dropEU}},
		{"mimir", bytes(dialect.MimirWords), limitedMimir, []string{mimirPath, asTenant, "remote_read: always"}},
		{"mimir by queries", bytes(dialect.MimirWords), limitedMimir, []string{mimirPath, asTenant, neverRead}},
		{"cortex", bytes(dialect.CortexWords), limitedCortex, []string{cortexPath, asTenant, "remote_read: always"}},
		{"cortex by queries", bytes(dialect.CortexWords), limitedCortex, []string{cortexPath, asTenant, neverRead}},
		{"victoriametrics' words", samples(dialect.VictoriaMetricsWords), plainPrometheus(backendtest.NoRemoteRead), nil},
	} {
		t.Run(b.name, func(t *testing.T) { b.works(t, data, true, paths...) })
	}
}

// A limit that no split in time helps against is an error in the backend's words, and soon.
func TestDialects_LimitsThatCannotBeWorkedAround(t *testing.T) {
	c := plainClient(t)
	data := thirtyDays(t)
	for _, b := range []limited{
		{"mimir", &dialect.Limits{Series: 2, Words: dialect.MimirWords}, limitedMimir, []string{mimirPath, asTenant, "remote_read: always"}},
		{"mimir by queries", &dialect.Limits{Series: 2, Words: dialect.MimirWords}, limitedMimir, []string{mimirPath, asTenant, neverRead}},
		{"cortex", &dialect.Limits{Series: 2, Words: dialect.CortexWords}, limitedCortex, []string{cortexPath, asTenant, "remote_read: always"}},
		{"thanos", &dialect.Limits{Series: 2, Words: dialect.ThanosWords}, limitedThanos, []string{dropEU}},
	} {
		t.Run(b.name, func(t *testing.T) {
			address := hostPort(t, serve(t, b.handler(data, b.limits)))
			base := oneprom(t, oneBackend([]string{address}, b.options...))
			for _, path := range []string{instantQuery("count_over_time(m[30d])", 2_592_000), rangeQuery("m", 0, 600_000, 600)} {
				before := b.limits.Refused()
				r := c.ask(t, base, probe{path: path})
				requireFailure(t, r, address)
				require.Contains(t, r.body, strings.SplitN(fmt.Sprintf(b.limits.Words.Series, 2), " (", 2)[0])
				require.Less(t, b.limits.Refused()-before, 60, "requests that a hopeless query made")
			}
		})
	}
}

// The emulators hold what the tests say that they hold.
func TestDialects_QueriesParse(t *testing.T) {
	require.Greater(t, len(dialectQueries()), 40)
	p := parser.NewParser(promqltest.TestParserOpts)
	for _, path := range dialectQueries() {
		r, err := http.NewRequest(http.MethodGet, path, nil)
		require.NoError(t, err)
		_, err = p.ParseExpr(r.FormValue("query"))
		require.NoError(t, err)
	}
}
