package queries

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx"
)

// newQueries are queries that are not logged.
func newQueries() *Queries {
	return New(Options{Logged: func() (bool, time.Duration) { return false, 0 }, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
}

func unwatched(h http.Handler) http.Handler { return h }

// ask sends a request; a form makes it a form-encoded body.
func ask(h http.Handler, method, target, form string) {
	r := httptest.NewRequest(method, target, strings.NewReader(form))
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	h.ServeHTTP(httptest.NewRecorder(), r)
}

func TestQueries_BoundedList(t *testing.T) {
	qs := newQueries()
	for i := range maxListed + 2 {
		q := &query{path: "/query"}
		if i > 0 { // the first is not known to be one
			q.asked = &promqlx.Question{Query: strconv.Itoa(i)}
		}
		qs.add(q)
	}
	found, err := qs.List(httptest.NewRequest(http.MethodGet, "/status/queries", nil))
	require.NoError(t, err)
	list := found.Data.([]Listed)
	require.Len(t, list, maxListed)
	for i, q := range list {
		require.Equal(t, strconv.Itoa(i+1), q.Query)
	}
	require.Len(t, found.Warnings, 1)
	require.ErrorContains(t, found.Warnings.AsErrors()[0], "1 younger queries are not listed")
}

// What is taken for the query is what its handler reads, and when that has read it.
func TestObserveQueries_ReadsWhatTheHandlerReads(t *testing.T) {
	qs := newQueries()
	long := strings.Repeat("ä", maxQueryText)
	f := func(method, target, form string, want *promqlx.Question) {
		t.Helper()
		var known *promqlx.Question
		h := qs.Observe(unwatched, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			q := runningOf(r.Context())
			if method == http.MethodPost {
				require.Nil(t, q.question(), "the body has not been read")
			}
			require.NotEmpty(t, r.FormValue("query"), "there is still something to read")
			qs.Asked(r)
			known = q.question()
		}))
		ask(h, method, target, form)
		require.Equal(t, want, known)
	}
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }
	f(http.MethodGet, "/query?query=up&time=60", "", &promqlx.Question{Query: "up", Start: at(60), End: at(60)})
	f(http.MethodGet, "/query?query=up&time=x", "", &promqlx.Question{Query: "up"})
	f(http.MethodPost, "/query?query=no", "query=up&time=60&start=1", &promqlx.Question{Query: "up", Start: at(60), End: at(60)})
	f(http.MethodPost, "/query_range?end=120", "query=up&start=60&step=15", &promqlx.Question{Query: "up", Start: at(60), End: at(120), Interval: 15 * time.Second})
	f(http.MethodPost, "/query_range", "query=up&start=60", &promqlx.Question{Query: "up", Start: at(60)})
	f(http.MethodPost, "/query", "time=60&query="+url.QueryEscape(long), &promqlx.Question{Query: long[:maxQueryText] + "…", Start: at(60), End: at(60)})
	f(http.MethodPost, "/explain", "query=up&time=60&analyze=true", &promqlx.Question{Query: "up", Start: at(60), End: at(60)})
	f(http.MethodPost, "/explain", "query=up&time=60", nil)
	f(http.MethodGet, "/explain?query=up", "", nil)
}

func TestObserveQueries_LeavesOthersAlone(t *testing.T) {
	qs := newQueries()
	for method, target := range map[string]string{http.MethodOptions: "/query", http.MethodGet: "/labels", http.MethodPost: "/query_exemplars"} {
		called := false
		ask(qs.Observe(unwatched, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			called = true
			require.Nil(t, runningOf(r.Context()))
		})), method, target, "")
		require.True(t, called)
	}
	require.Empty(t, runningOf(context.Background()).text())
}
