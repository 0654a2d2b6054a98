package toxics

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// zone is a server group: a pair of servers that hold the same. It is the value of the label `zone`.
type zone struct{ name, region string }

var zones = []zone{{"eu", "eu"}, {"us-east", "us"}, {"us-west", "us"}}

const (
	scrapeEvery = 15 * time.Second
	history     = time.Hour
	// wrongBy is how wrong a clock is that is wrong.
	wrongBy = 3 * time.Minute
)

// world is the servers and the truth: one Prometheus with the data of all zones.
type world struct {
	servers map[string]http.Handler // by name: the zone's and -a or -b
	shifted map[string]http.Handler // the same servers, if their clocks are wrong
	truth   http.Handler            // see without

	dir string
	dbs []*tsdb.DB
}

var (
	theWorld  *world
	worldOnce sync.Once
)

// sharedWorld is the world of all tests, which only read it.
func sharedWorld() *world {
	worldOnce.Do(func() {
		w, err := newWorld()
		if err != nil {
			panic(fmt.Sprintf("the world cannot be made: %v", err))
		}
		theWorld = w
	})
	return theWorld
}

func closeWorld() {
	if theWorld == nil {
		return
	}
	errs := []error{}
	for _, db := range theWorld.dbs {
		errs = append(errs, db.Close())
	}
	if err := errors.Join(append(errs, os.RemoveAll(theWorld.dir))...); err != nil {
		panic(fmt.Sprintf("the world cannot be closed: %v", err))
	}
}

func newWorld() (*world, error) {
	dir, err := os.MkdirTemp("", "toxics")
	if err != nil {
		return nil, err
	}
	w := &world{servers: map[string]http.Handler{}, shifted: map[string]http.Handler{}, dir: dir}
	all, err := w.open("truth")
	if err != nil {
		return nil, err
	}
	for i, z := range zones {
		if err := load(all, i, z, labels.FromStrings("zone", z.name), 0); err != nil {
			return nil, err
		}
		for into, shift := range map[*map[string]http.Handler]time.Duration{&w.servers: 0, &w.shifted: wrongBy} {
			db, err := w.open(z.name + shift.String())
			if err != nil {
				return nil, err
			}
			if err := load(db, i, z, labels.EmptyLabels(), shift); err != nil {
				return nil, err
			}
			for _, replica := range []string{"a", "b"} {
				(*into)[z.name+"-"+replica] = backendtest.NewHandler(backendtest.Options{
					Queryable: db, Exemplars: db, EarlyNames: true, ExternalLabels: labels.FromStrings("replica", replica),
				})
			}
		}
	}
	w.truth = backendtest.NewHandler(backendtest.Options{Queryable: partly{all}, Exemplars: partly{all}, EarlyNames: true})
	return w, nil
}

func (w *world) open(name string) (*tsdb.DB, error) {
	db, err := backendtest.OpenDB(w.dir + "/" + name)
	if err == nil {
		w.dbs = append(w.dbs, db)
	}
	return db, err
}

// load writes what the targets of the i-th zone had to say, at times that are shifted. No zone has the
// values of another.
func load(db *tsdb.DB, i int, z zone, more labels.Labels, shift time.Duration) error {
	app := db.AppenderV2(context.Background())
	add := func(at time.Duration, value float64, exemplars []exemplar.Exemplar, pairs ...string) error {
		b := labels.NewBuilder(labels.FromStrings(pairs...))
		more.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		_, err := app.Append(0, b.Labels(), 0, (at + shift).Milliseconds(), value, nil, nil, storage.AOptions{Exemplars: exemplars})
		return err
	}
	factor := float64(i + 1)
	for n := 0; time.Duration(n)*scrapeEvery <= history; n++ {
		at := time.Duration(n) * scrapeEvery
		for _, instance := range []string{"0", "1"} {
			var traced []exemplar.Exemplar
			if n%8 == 0 {
				id := labels.FromStrings("trace_id", fmt.Sprintf("%s-%s-%d", z.name, instance, n))
				traced = []exemplar.Exemplar{{Labels: id, Value: factor, Ts: (at + shift).Milliseconds(), HasTs: true}}
			}
			err := errors.Join(
				add(at, 1, nil, "__name__", "up", "job", "a", "instance", instance),
				add(at, factor*float64(n), nil, "__name__", "m", "job", "a", "instance", instance),
				add(at, 30*factor*float64(n), traced, "__name__", "reqs_total", "job", "a", "instance", instance),
				add(at, 1, nil, "__name__", "info", "job", "a", "instance", instance, "is_in_"+strings.ReplaceAll(z.name, "-", "_"), "yes"),
			)
			if err != nil {
				return err
			}
		}
	}
	return app.Commit()
}

type withoutKey struct{}

// without has the truth be what it would be without some zones.
func without(ctx context.Context, zones []string) context.Context {
	return context.WithValue(ctx, withoutKey{}, zones)
}

// partly narrows what is selected to the zones that the context leaves.
type partly struct{ *tsdb.DB }

func (p partly) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := p.DB.Querier(mint, maxt)
	return partlyQuerier{q}, err
}

func (p partly) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	q, err := p.DB.ExemplarQuerier(ctx)
	return partlyExemplars{ctx, q}, err
}

func left(ctx context.Context, ms []*labels.Matcher) []*labels.Matcher {
	gone, _ := ctx.Value(withoutKey{}).([]string)
	if len(gone) == 0 {
		return ms
	}
	return append(slices.Clone(ms), labels.MustNewMatcher(labels.MatchNotRegexp, "zone", strings.Join(gone, "|")))
}

type partlyQuerier struct{ storage.Querier }

func (q partlyQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	return q.Querier.Select(ctx, sorted, hints, left(ctx, ms)...)
}

func (q partlyQuerier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.Querier.LabelValues(ctx, name, hints, left(ctx, ms)...)
}

func (q partlyQuerier) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.Querier.LabelNames(ctx, hints, left(ctx, ms)...)
}

type partlyExemplars struct {
	ctx context.Context // the interface has none
	storage.ExemplarQuerier
}

func (q partlyExemplars) Select(start, end int64, selectors ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	narrowed := make([][]*labels.Matcher, len(selectors))
	for i, ms := range selectors {
		narrowed[i] = left(q.ctx, ms)
	}
	return q.ExemplarQuerier.Select(start, end, narrowed...)
}
