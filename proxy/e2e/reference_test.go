package e2e

import (
	"cmp"
	"context"
	"math"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/notifier"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/prometheus/prometheus/web"
	"github.com/stretchr/testify/require"
)

// Here lives the reference: a whole upstream Prometheus, in-process, without
// scraping. oneprom's answers are compared with its answers, and it is the
// healthy backend that oneprom asks.

// history is the hour of data that begins at the epoch, a sample every 30 s.
const history = `
load 30s
  up{job="a",instance="0"} 1x120
  up{job="a",instance="1"} 1x120
  up{job="b",instance="0"} 1x120
  m{job="a",instance="0"} 0+1x120
  m{job="a",instance="1"} 0+2x120
  m{job="b",instance="0"} 5x120
  reqs_total{job="a",instance="0"} 0+30x120
  reqs_total{job="a",instance="1"} 0+15x60 0+15x59
  gaps{job="a"} 1x10 _x40 2x10 stale
  lat_bucket{le="0.1"} 0+1x120
  lat_bucket{le="1"} 0+2x120
  lat_bucket{le="+Inf"} 0+3x120
  nh{job="a"} {{schema:0 sum:8 count:6 z_bucket:1 z_bucket_w:0.001 buckets:[1 2] n_buckets:[2]}}x120
  {"utf8.metric","lab el"="x",job="a"} 1x120
  {"utf8.metric","lab el"="y",job="b"} 2x120
`

// numbers are the values of the series numbers{case}, at 600 s.
var numbers = map[string]float64{
	"tiny": 1e-7, "small": 1e-6, "huge": 1e21, "large": 123456789012345680000, "third": 1.0 / 3,
	"inf": math.Inf(1), "neginf": math.Inf(-1), "nan": math.NaN(), "negzero": math.Copysign(0, -1),
}

// ruleFile holds one rule of each kind; BIsUp fires on the recent samples.
const ruleFile = `
groups:
  - name: records
    rules:
      - record: job:up:sum
        expr: sum by (job) (up)
  - name: alerts
    rules:
      - alert: BIsUp
        expr: up{job="b"} == 1
        labels: {severity: page}
        annotations: {summary: "{{ $labels.instance }}"}
`

// metadataBody stands for what scraping would have taught about the metrics.
const metadataBody = `{"status":"success","data":{"reqs_total":[{"type":"counter","help":"Requests.","unit":""}],"up":[{"type":"gauge","help":"","unit":""}]}}`

// datasets finds a dataset by the host:port of a Prometheus that serves it.
var datasets sync.Map

// dataset is the data behind one Prometheus.
type dataset struct {
	storage storage.Storage
	local   *localDB
}

// localDB adds to a test storage what the status endpoints ask for.
type localDB struct{ *teststorage.TestStorage }

func (d *localDB) BlockMetas() ([]tsdb.BlockMeta, error) { return d.DB.BlockMetas(), nil }

func (d *localDB) Stats(label string, limit int) (*tsdb.Stats, error) {
	return d.Head().Stats(label, limit), nil
}

func (*localDB) WALReplayStatus() (tsdb.WALReplayStatus, error) {
	return tsdb.WALReplayStatus{Min: 0, Max: 0, Current: 0}, nil
}

// newDataset makes a storage out of promqltest load commands.
func newDataset(t *testing.T, load string) *dataset {
	t.Helper()
	s := promqltest.LoadedStorage(t, load)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return &dataset{storage: s, local: &localDB{s}}
}

// reference starts a Prometheus that holds the history, exemplars, and a
// quarter of an hour of `up` and `recent_total` that ends now, a sample every
// 15 s. It returns the base URL.
func reference(t *testing.T, flags ...string) (baseURL string) {
	t.Helper()
	w := newDataset(t, history)
	app := w.storage.Appender(t.Context())
	add := func(ts int64, v float64, l ...string) {
		_, err := app.Append(0, labels.FromStrings(l...), ts, v)
		require.NoError(t, err)
	}
	for name, v := range numbers {
		add(600_000, v, "__name__", "numbers", "case", name)
	}
	for i, job := range []string{"a", "b"} {
		e := exemplar.Exemplar{Labels: labels.FromStrings("trace_id", job), Value: float64(i) + 0.5, Ts: 600_500, HasTs: true}
		_, err := app.Append(0, labels.FromStrings("__name__", "ex_total", "job", job), 600_000, 1)
		require.NoError(t, err)
		_, err = app.AppendExemplar(0, labels.FromStrings("__name__", "ex_total", "job", job), e)
		require.NoError(t, err)
	}
	now := time.Now().Truncate(15 * time.Second)
	for i := 0; i <= 60; i++ {
		ts := now.Add(time.Duration(i-60) * 15 * time.Second).UnixMilli()
		add(ts, 1, "__name__", "up", "job", "a", "instance", "0")
		add(ts, 1, "__name__", "up", "job", "b", "instance", "0")
		add(ts, float64(i), "__name__", "recent_total", "job", "a", "instance", "0")
	}
	require.NoError(t, app.Commit())
	return startPrometheus(t, w, flags...)
}

// startPrometheus serves a dataset as upstream does, with the metadata added. The
// base URL contains the route prefix.
func startPrometheus(t *testing.T, w *dataset, flags ...string) (baseURL string) {
	t.Helper()
	given := map[string]string{}
	for _, f := range flags {
		name, value, _ := strings.Cut(strings.TrimPrefix(f, "--"), "=")
		given[name] = value
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	options := webOptions(t, w, l.Addr().String(), given)
	h := web.New(nil, options)
	conf, err := config.Load("global: {external_labels: {replica: r0}}", promslog.NewNopLogger())
	require.NoError(t, err)
	require.NoError(t, h.ApplyConfig(conf))
	h.SetReady(web.Ready)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx, []net.Listener{l}, "") }()
	t.Cleanup(func() { stop(); require.NoError(t, <-ended) })

	baseURL = serve(t, metadataFront(t, l.Addr().String()))
	datasets.Store(hostPort(t, baseURL), w)
	return baseURL + strings.TrimSuffix(options.RoutePrefix, "/")
}

// metadataFront passes everything to the Prometheus at addr but /metadata,
// which only scraping could fill.
func metadataFront(t *testing.T, addr string) http.Handler {
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	pass := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", addr },
		// A client that leaves aborts the copy; that is no news.
		ErrorHandler:  func(rw http.ResponseWriter, _ *http.Request, _ error) { rw.WriteHeader(http.StatusBadGateway) },
		FlushInterval: -1,
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, refused := strconv.Atoi(cmp.Or(r.URL.Query().Get("limit"), "0"))
		if strings.HasSuffix(r.URL.Path, "/api/v1/metadata") && r.Method == http.MethodGet && refused == nil {
			rw.Header().Set("Content-Type", "application/json")
			_, _ = rw.Write([]byte(metadataBody))
			return
		}
		pass.ServeHTTP(rw, r)
	})
}

func webOptions(t *testing.T, w *dataset, addr string, flags map[string]string) *web.Options {
	external := &url.URL{Scheme: "http", Host: addr, Path: "/"}
	if text := flags["web.external-url"]; text != "" {
		var err error
		external, err = url.Parse(text)
		require.NoError(t, err)
		external.Path = "/" + strings.Trim(external.Path, "/")
	}
	prefix := external.Path
	if p := flags["web.route-prefix"]; p != "" {
		prefix = "/" + strings.Trim(p, "/")
	}
	engine := newEngine(t, flags)
	registry := prometheus.NewRegistry()
	notes := notifications.NewNotifications(4, registry)
	scraper, err := scrape.NewManager(nil, nil, nil, w.storage, nil, registry)
	require.NoError(t, err)
	// The TSDB wants some directory to name; it is never written to.
	return &web.Options{
		Context: t.Context(), TSDBDir: w.local.Dir(),
		LocalStorage: w.local, Storage: w.storage, ExemplarStorage: w.local,
		QueryEngine: engine, LookbackDelta: 5 * time.Minute,
		ScrapeManager:       scraper,
		RuleManager:         loadedRules(t, w, engine, external),
		Notifier:            notifier.NewManager(&notifier.Options{Registerer: registry}, model.UTF8Validation, nil),
		Version:             &web.PrometheusVersion{Version: "3.15.0", Revision: "r", Branch: "b", BuildUser: "u", BuildDate: "d", GoVersion: "g"},
		NotificationsGetter: notes.Get, NotificationsSub: notes.Sub,
		Flags: flags, ListenAddresses: []string{addr}, CORSOrigin: regexp.MustCompile("^(?:.*)$"),
		MaxConnections: 512, ExternalURL: external, RoutePrefix: prefix, AppName: "Prometheus Server",
		MaxSearchLimit: 10_000, RemoteReadSampleLimit: 5e7, RemoteReadConcurrencyLimit: 10, RemoteReadBytesInFrame: 1 << 20,
		Gatherer: registry, Registerer: registry, FeatureRegistry: features.NewRegistry(),
		Parser: parser.NewParser(promqltest.TestParserOpts),
	}
}

func newEngine(t *testing.T, flags map[string]string) *promql.Engine {
	maxSamples := 50_000_000
	if text := flags["query.max-samples"]; text != "" {
		var err error
		maxSamples, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: maxSamples, Timeout: 2 * time.Minute, LookbackDelta: 5 * time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true, EnableNegativeOffset: true,
		Parser: parser.NewParser(promqltest.TestParserOpts),
	})
	t.Cleanup(func() { require.NoError(t, engine.Close()) })
	return engine
}

// loadedRules is a rule manager whose groups were evaluated once, just now, and
// will not be evaluated again on their own.
func loadedRules(t *testing.T, w *dataset, engine *promql.Engine, external *url.URL) *rules.Manager {
	file := filepath.Join(t.TempDir(), "rules.yaml")
	require.NoError(t, os.WriteFile(file, []byte(ruleFile), 0o600))
	manager := rules.NewManager(&rules.ManagerOptions{
		ExternalURL: external,
		QueryFunc:   rules.EngineQueryFunc(engine, w.local),
		NotifyFunc:  func(context.Context, string, ...*rules.Alert) {},
		Context:     t.Context(), Appendable: discard{}, Queryable: w.local,
		Registerer: prometheus.NewRegistry(),
		Parser:     parser.NewParser(promqltest.TestParserOpts),
	})
	var running sync.WaitGroup
	running.Go(manager.Run)
	t.Cleanup(func() { manager.Stop(); running.Wait() })
	never := func(context.Context, *rules.Group, time.Time) {}
	require.NoError(t, manager.Update(time.Hour, []string{file}, labels.EmptyLabels(), external.String(), never))
	for _, g := range manager.RuleGroups() {
		g.Eval(t.Context(), time.Now())
	}
	return manager
}

// discard takes the results of recording rules, so that evaluating them does
// not change the data.
type discard struct{}

func (discard) Appender(context.Context) storage.Appender { return discardAppender{} }

type discardAppender struct{ storage.Appender }

func (discardAppender) SetOptions(*storage.AppendOptions) {}
func (discardAppender) Commit() error                     { return nil }
func (discardAppender) Rollback() error                   { return nil }
func (discardAppender) Append(storage.SeriesRef, labels.Labels, int64, float64) (storage.SeriesRef, error) {
	return 1, nil
}
