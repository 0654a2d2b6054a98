// Package scraper is a Prometheus whose scrapes tests look at: it counts what it is asked
// for, and can hold requests for the samples of `up` back.
package scraper

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/promqltest"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// Scraper is a backend that counts what it is asked for.
type Scraper struct {
	*httptest.Server
	Ups     atomic.Int64 // queries of samples of `up`
	Lookups atomic.Int64 // of series and of values of labels
	Rules   atomic.Int64
	held    atomic.Pointer[chan struct{}] // queries of `up` wait until it is closed
	Arrived chan struct{}                 // gets one for each that waits
	records atomic.Pointer[http.HandlerFunc]
}

// New serves data of every 15 s by samples remote read.
func New(t *testing.T, load string) *Scraper {
	t.Helper()
	data := promqltest.LoadedStorage(t, "load 15s"+load)
	t.Cleanup(func() { _ = data.Close() })
	h := backendtest.NewHandler(backendtest.Options{Queryable: data, RemoteRead: backendtest.SamplesOnly})
	s := &Scraper{Arrived: make(chan struct{}, 100)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := strings.TrimPrefix(r.URL.Path, "/api/v1"); {
		case path == "/read" && readsUp(r):
			s.Ups.Add(1)
			if held := s.held.Load(); held != nil {
				s.Arrived <- struct{}{}
				<-*held
			}
		case strings.HasPrefix(r.URL.Query().Get("match[]")+r.FormValue("match[]"), "{"):
			s.Lookups.Add(1)
		case path == "/rules":
			s.Rules.Add(1)
			if records := s.records.Load(); records != nil {
				(*records)(w, r)
				return
			}
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// readsUp reports whether remote read is asked for the scrapes of all targets. The body can be read again.
func readsUp(r *http.Request) bool {
	return !backendtest.CountsSeries(r) && slices.ContainsFunc(backendtest.ReadQueries(r), func(q *prompb.Query) bool {
		return slices.ContainsFunc(q.Matchers, func(m *prompb.LabelMatcher) bool { return m.Name == labels.MetricName && m.Value == "up" })
	})
}

// Hold makes queries of `up` wait until the returned function is called.
func (s *Scraper) Hold() (release func()) {
	held := make(chan struct{})
	s.held.Store(&held)
	return func() {
		s.held.Store(nil)
		close(held)
	}
}

// AnswerRules has f answer /rules.
func (s *Scraper) AnswerRules(f http.HandlerFunc) { s.records.Store(&f) }

// Away is the data of two targets over three hours of which 40 scrapes of b are missing.
const Away = `
  up{instance="a",job="j"} 1x720
  up{instance="b",job="j"} 1x99 _x40 1x580
  foo{instance="a",job="j"} 1x720
  foo{instance="b",job="j"} 1x99 _x40 1x580`

// There is the same with nothing missing.
const There = `
  up{instance="a",job="j"} 1x720
  up{instance="b",job="j"} 1x720
  foo{instance="a",job="j"} 1x720
  foo{instance="b",job="j"} 1x720`
