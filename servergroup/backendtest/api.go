package backendtest

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// handler serves an API. Upstream's takes long to make: it renders an OpenAPI document, which was half
// of the processor time of all tests. So the API of a handler that nobody holds any more is used again,
// where it differs in nothing but what is behind it.
type handler struct {
	mux http.ServeMux
	api *v1.API
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mux.ServeHTTP(w, r)
	runtime.KeepAlive(h) // until here, the API is this handler's
}

// kind is what an API was made with and cannot change.
type kind struct {
	earlyNames, plain bool
	maxBytesInFrame   int
}

// spareAPI is an API without a handler.
type spareAPI struct {
	kind   kind
	api    *v1.API
	behind *behind
}

var spare = struct {
	sync.Mutex
	of map[kind][]spareAPI
}{of: map[kind][]spareAPI{}}

func newHandler(o Options) *handler {
	if o.Engine != nil || o.Parser != nil || o.Features != nil {
		return &handler{api: newAPI(o, newBehind(o))}
	}
	k := kind{o.EarlyNames, o.Plain, o.MaxBytesInFrame}
	u := take(k)
	if u.api == nil {
		u = spareAPI{kind: k, behind: newBehind(o)}
		u.api = newAPI(o, u.behind)
	}
	u.behind.set(o)
	h := &handler{api: u.api}
	runtime.AddCleanup(h, give, u)
	return h
}

// take returns a spare API of a kind, or the zero value.
func take(k kind) spareAPI {
	spare.Lock()
	defer spare.Unlock()
	all := spare.of[k]
	if len(all) == 0 {
		return spareAPI{}
	}
	u := all[len(all)-1]
	spare.of[k] = all[:len(all)-1]
	return u
}

func give(u spareAPI) {
	u.behind.set(Options{Queryable: Empty{}}) // so that the data of a test that is over can go
	spare.Lock()
	defer spare.Unlock()
	spare.of[u.kind] = append(spare.of[u.kind], u)
}

// behind is what an API shows: the data and the configuration of the handler that it serves now.
type behind struct{ now atomic.Pointer[shown] }

type shown struct {
	storage.SampleAndChunkQueryable
	storage.ExemplarQueryable
	config  config.Config
	started time.Time
}

func newBehind(o Options) *behind {
	b := new(behind)
	b.set(o)
	return b
}

func (b *behind) set(o Options) {
	s := &shown{o.Queryable, o.Exemplars, config.DefaultConfig, time.Now()}
	if s.ExemplarQueryable == nil {
		s.ExemplarQueryable = noExemplars{}
	}
	s.config.GlobalConfig.ExternalLabels = o.ExternalLabels
	b.now.Store(s)
}

// Querier implements storage.Queryable.
func (b *behind) Querier(from, to int64) (storage.Querier, error) {
	return b.now.Load().Querier(from, to)
}

// ChunkQuerier implements storage.ChunkQueryable.
func (b *behind) ChunkQuerier(from, to int64) (storage.ChunkQuerier, error) {
	return b.now.Load().ChunkQuerier(from, to)
}

// ExemplarQuerier implements storage.ExemplarQueryable.
func (b *behind) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	return b.now.Load().ExemplarQuerier(ctx)
}

// Stats provides /api/v1/status/tsdb: the statistics of a TSDB, or zeros for any other storage.
func (b *behind) Stats(label string, limit int) (*tsdb.Stats, error) {
	if db, ok := b.now.Load().SampleAndChunkQueryable.(interface{ Head() *tsdb.Head }); ok {
		return db.Head().Stats(label, limit), nil
	}
	return &tsdb.Stats{IndexPostingStats: &index.PostingsStats{}}, nil
}

// BlockMetas provides /api/v1/status/tsdb/blocks: the blocks of a TSDB, or none.
func (b *behind) BlockMetas() ([]tsdb.BlockMeta, error) {
	if db, ok := b.now.Load().SampleAndChunkQueryable.(interface{ BlockMetas() []tsdb.BlockMeta }); ok {
		return db.BlockMetas(), nil
	}
	return []tsdb.BlockMeta{}, nil
}

func newAPI(o Options, b *behind) *v1.API {
	flags := o.flags()
	o = o.withDefaults()
	version := Version
	if o.Plain {
		version = ""
	}
	return v1.NewAPI(
		o.Engine, b, nil, nil, b,
		func(context.Context) v1.ScrapePoolsRetriever { return nothing{} },
		func(context.Context) v1.TargetRetriever { return nothing{} },
		func(context.Context) v1.AlertmanagerRetriever { return nothing{} },
		func() config.Config { return b.now.Load().config },
		flags,
		v1.GlobalURLOptions{},
		func(f http.HandlerFunc) http.HandlerFunc { return f },
		admin{b}, "",
		false, false, 0, // admin API, search API, its limit
		promslog.NewNopLogger(),
		func(context.Context) v1.RulesRetriever { return nothing{} },
		readSampleLimit, readConcurrency, o.MaxBytesInFrame,
		false, // agent
		regexp.MustCompile(".*"),
		func() (v1.RuntimeInfo, error) {
			started := b.now.Load().started
			return v1.RuntimeInfo{
				StartTime: started, ServerTime: time.Now().UTC(), LastConfigTime: started, ReloadConfigSuccess: true,
				GoroutineCount: runtime.NumGoroutine(), GOMAXPROCS: runtime.GOMAXPROCS(0),
			}, nil
		},
		&v1.PrometheusVersion{Version: version, Branch: "HEAD", GoVersion: runtime.Version()},
		func() []notifications.Notification { return nil },
		func() (<-chan notifications.Notification, func(), bool) { return nil, nil, false },
		prometheus.NewRegistry(), nil, nil,
		false, nil, // remote write
		false, false, false, // OTLP
		false, 5*time.Minute, false, false, // zero injection, lookback and labels of OTLP, metadata
		nil, o.Features,
		v1.OpenAPIOptions{IncludePaths: []string{"none"}}, // its paths alone took half of the time of tests
		o.Parser,
	)
}
