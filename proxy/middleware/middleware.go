// Package middleware is what requests pass on their way to a handler that is of no other room:
// panics, slashes, the headers by which a request chooses (partial response, push-down, headers
// to be forwarded), and the headers that say what an answer lacks.
package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/util/httputil"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup/completeness"
	groupconfig "github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/request"
)

// MergeSlashes lets clients work whose base URL ends with a slash. A redirect
// would do for GET only.
func MergeSlashes(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.EscapedPath(), "//") {
			u := *r.URL
			u.RawPath = ""
			for strings.Contains(u.Path, "//") {
				u.Path = strings.ReplaceAll(u.Path, "//", "/")
			}
			clone := *r
			clone.URL = &u
			r = &clone
		}
		h.ServeHTTP(w, r)
	})
}

// Panics makes of a panic the failure of its request alone.
type Panics struct {
	Count     prometheus.Counter
	QueryText func(context.Context) string // of the query that a request asks, for the log
	Logger    *slog.Logger
}

// Recover answers for a handler that panics. If the answer has begun, the connection is
// cut, so that nobody takes a part for the whole.
func (ps *Panics) Recover(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec, w := api.RecorderOf(w)
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler {
				panic(p)
			}
			ps.Count.Inc()
			ps.Logger.Error("a request handler panicked", "method", r.Method, "path", r.URL.Path, "query", ps.QueryText(r.Context()), "panic", p, "stack", guard.StackOf(p))
			if rec.Begun() {
				panic(http.ErrAbortHandler)
			}
			w.Header().Del("Content-Encoding")
			what := fmt.Sprint(p)
			if request.From(r.Context()).Restricted {
				what = completeness.Withheld
			}
			api.RespondError(w, api.NewError(http.StatusInternalServerError, "internal", errors.New("panic while answering: "+what)), ps.Logger)
		}()
		h.ServeHTTP(w, r)
	})
}

// AllowOrigin adds the cross-origin headers.
func AllowOrigin(origin *regexp.Regexp, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		httputil.SetCORS(w, origin, r)
		h(w, r)
	}
}

// AsGet lets a POST reach a handler that knows GET only: Grafana sends these.
func AsGet(logger *slog.Logger, h http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			api.RespondError(w, api.NewError(http.StatusBadRequest, "bad_data", fmt.Errorf("error parsing form values: %w", err)), logger)
			return
		}
		get := r.Clone(r.Context())
		get.Method = http.MethodGet
		get.URL.RawQuery = r.Form.Encode() // the body's values come first, and win
		get.Form, get.PostForm, get.Body = nil, nil, http.NoBody
		h.ServeHTTP(w, get)
	}
}

// RefusePartial has requests fail whose responses would be partial: these have no place for
// a warning.
func RefusePartial(h http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(request.With(r.Context(), func(req *request.Request) { req.Partial = groupconfig.PartialError })))
	}
}

// pushdownHeader lets a request say what `pushdown` is for its queries.
const pushdownHeader = "X-Oneprom-Pushdown"

// Pushdown heeds pushdownHeader.
func Pushdown(logger *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch said := groupconfig.Pushdown(r.Header.Get(pushdownHeader)); said {
		case "", groupconfig.PushdownProvable:
			h.ServeHTTP(w, r)
		case groupconfig.PushdownOff:
			h.ServeHTTP(w, r.WithContext(request.With(r.Context(), func(req *request.Request) { req.Pushdown = said })))
		default:
			api.RespondError(w, api.NewError(http.StatusBadRequest, "bad_data", fmt.Errorf("header %s: %q is neither provable nor off", pushdownHeader, string(said))), logger)
		}
	})
}

// Cache heeds api.CacheHeader and Cache-Control: a request may say that its answer must not be made of kept
// ones.
func Cache(logger *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said := r.Header.Get(api.CacheHeader)
		fresh := slices.ContainsFunc(strings.Split(strings.Join(r.Header.Values("Cache-Control"), ","), ","), func(directive string) bool {
			return strings.EqualFold(strings.TrimSpace(directive), "no-store")
		})
		switch {
		case said != "" && said != "on" && said != "off":
			api.RespondError(w, api.NewError(http.StatusBadRequest, "bad_data", fmt.Errorf("header %s: %q is neither on nor off", api.CacheHeader, said)), logger)
		case fresh || said == "off":
			h.ServeHTTP(w, r.WithContext(request.With(r.Context(), func(req *request.Request) { req.NoCache = true })))
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// NeverInternal answers 503 where upstream's read handler answers 500, which it
// does to whatever the server groups fail with.
func NeverInternal(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec, w := api.RecorderOf(w)
		defer rec.OnBegin(func(_ http.Header, code int) (int, []byte) {
			if code == http.StatusInternalServerError {
				code = http.StatusServiceUnavailable
			}
			return code, nil
		})()
		h.ServeHTTP(w, r)
	})
}

// EndWith ends requests that would otherwise last as long as the client likes, when the
// life of the server ends.
func EndWith(life context.Context, h http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		h.ServeHTTP(w, r.WithContext(ctx))
	}
}
