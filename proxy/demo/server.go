package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// plan is a server to be: what it scrapes, and what it does not see.
type plan struct {
	name        string
	says        string // what is special about it, for the reader
	regions     []string
	regionLabel bool          // its data carries the region
	external    labels.Labels // of remote read
	remoteRead  backendtest.RemoteRead
	keep        time.Duration // how old its oldest sample may be; 0 is any age
	shift       time.Duration // by how much its scrapes are later than the others'
	away        []span        // when it was not running
	lost        []time.Time   // scrapes that it missed
	without     string        // the instance that it cannot reach
}

// span is a half-open stretch of time.
type span struct{ from, to time.Time }

func (s span) has(t time.Time) bool { return !t.Before(s.from) && t.Before(s.to) }

// misses reports whether nothing is scraped at t, by the common schedule.
func (p *plan) misses(t time.Time) bool {
	return slices.ContainsFunc(p.away, func(s span) bool { return s.has(t) }) ||
		slices.ContainsFunc(p.lost, t.Equal)
}

// scrapedAt is when the scrape that is due by t on the common schedule took place.
// One that comes later than the schedule is the one before, so that it is not in
// the future; it is also early or late by up to 3 ms.
func (p *plan) scrapedAt(t time.Time) time.Time {
	if p.shift == 0 {
		return t
	}
	jitter := time.Duration(noise(1, t.UnixMilli())*7) - 3
	return t.Add(p.shift - interval + jitter*time.Millisecond)
}

// server is a Prometheus in this process: a TSDB with upstream's API over it.
type server struct {
	plan
	series   []*series
	db       *tsdb.DB
	listener net.Listener
	http     http.Server
	served   chan error // what ended the serving
}

// startServer starts a server without data, its TSDB in dir. The values of its
// targets are anchored at end. The caller stops it.
func startServer(p plan, dir string, end time.Time, now func() time.Time) (*server, error) {
	db, err := backendtest.OpenDB(dir)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &server{plan: p, series: p.seriesOf(end), db: db, listener: listener, served: make(chan error, 1)}
	s.http.Handler = backendtest.NewHandler(backendtest.Options{
		Queryable:      retention{db, p.keep, now},
		ExternalLabels: p.external,
		RemoteRead:     p.remoteRead,
		Metadata:       help,
	})
	go func() { s.served <- s.http.Serve(listener) }()
	return s, nil
}

func (s *server) address() string { return s.listener.Addr().String() }
func (s *server) url() string     { return "http://" + s.address() }

// scrape stores what all targets show at the scrape that is due by t.
func (s *server) scrape(t time.Time) error {
	if s.misses(t) {
		return nil
	}
	ms := s.scrapedAt(t).UnixMilli()
	app := s.db.Appender(context.Background())
	for _, one := range s.series {
		if err := one.appendTo(app, ms); err != nil {
			return errors.Join(fmt.Errorf("%s: %s: %w", s.name, one.labels, err), app.Rollback())
		}
	}
	return app.Commit()
}

// stop ends the server; requests under way have until ctx ends.
func (s *server) stop(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return errors.Join(err, s.db.Close())
}

// retention hides what is older than keep in a TSDB, unless keep is 0. It hides
// whole chunks, so that up to half an hour more is seen. The TSDB by itself deletes
// whole blocks, and has none in the life of a demo.
type retention struct {
	*tsdb.DB
	keep time.Duration
	now  func() time.Time
}

func (r retention) from(mint int64) int64 {
	if r.keep == 0 {
		return mint
	}
	return max(mint, r.now().Add(-r.keep).UnixMilli())
}

// Querier implements storage.Queryable.
func (r retention) Querier(mint, maxt int64) (storage.Querier, error) {
	if mint = r.from(mint); mint > maxt {
		return storage.NoopQuerier(), nil
	}
	return r.DB.Querier(mint, maxt)
}

// ChunkQuerier implements storage.ChunkQueryable.
func (r retention) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	if mint = r.from(mint); mint > maxt {
		return storage.NoopChunkedQuerier(), nil
	}
	return r.DB.ChunkQuerier(mint, maxt)
}
