package proxy

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/prometheus/util/httputil"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/request"
)

// mergeSlashes lets clients work whose base URL ends with a slash. A redirect
// would do for GET only.
func mergeSlashes(h http.Handler) http.Handler {
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

// recoverPanics makes of a panic the failure of its request alone. If the answer
// has begun, the connection is cut, so that nobody takes a part for the whole.
func (s *Server) recoverPanics(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		watched := &watchedWriter{ResponseWriter: w}
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.metrics.panics.Inc()
			s.logger.Error("a request handler panicked", "method", r.Method, "path", r.URL.Path, "query", runningOf(r.Context()).text(), "panic", p, "stack", guard.StackOf(p))
			if watched.begun {
				panic(http.ErrAbortHandler)
			}
			w.Header().Del("Content-Encoding")
			respondError(w, &apiError{http.StatusInternalServerError, "internal", fmt.Errorf("panic while answering: %v", p)}, s.logger)
		}()
		h.ServeHTTP(watched, r)
	})
}

// watchedWriter knows whether the answer has begun.
type watchedWriter struct {
	http.ResponseWriter
	begun bool
}

func (w *watchedWriter) WriteHeader(code int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(code)
}

func (w *watchedWriter) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher, which streamed remote read insists on.
func (w *watchedWriter) Flush() {
	w.begun = true
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// compress answers with gzip or deflate if the client asks for it.
func compress(h http.HandlerFunc) http.HandlerFunc {
	return httputil.CompressionHandler{Handler: h}.ServeHTTP
}

// allowOrigin adds the cross-origin headers.
func (s *Server) allowOrigin(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		httputil.SetCORS(w, s.corsOrigin, r)
		h(w, r)
	}
}

// asGet lets a POST reach a handler that knows GET only: Grafana sends these.
func (s *Server) asGet(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			respondError(w, &apiError{http.StatusBadRequest, "bad_data", fmt.Errorf("error parsing form values: %w", err)}, s.logger)
			return
		}
		get := r.Clone(r.Context())
		get.Method = http.MethodGet
		get.URL.RawQuery = r.Form.Encode() // the body's values come first, and win
		get.Form, get.PostForm, get.Body = nil, nil, http.NoBody
		h.ServeHTTP(w, get)
	})
}

// wholeOnly is for answers that have no place for a warning: rather none than a
// part of one.
func wholeOnly(h http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(request.With(r.Context(), func(w *request.Request) { w.Partial = groupconfig.PartialError })))
	}
}

// pushdownHeader lets a request say what `pushdown` is for its queries.
const pushdownHeader = "X-Oneprom-Pushdown"

// requestPushdown heeds pushdownHeader.
func (s *Server) requestPushdown(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch said := groupconfig.Pushdown(r.Header.Get(pushdownHeader)); said {
		case "", groupconfig.PushdownProvable:
			h.ServeHTTP(w, r)
		case groupconfig.PushdownOff:
			h.ServeHTTP(w, r.WithContext(request.With(r.Context(), func(w *request.Request) { w.Pushdown = said })))
		default:
			respondError(w, &apiError{http.StatusBadRequest, "bad_data", fmt.Errorf("header %s: %q is neither provable nor off", pushdownHeader, string(said))}, s.logger)
		}
	})
}

// neverInternal answers 503 where upstream's read handler answers 500, which it
// does to whatever the server groups fail with.
func neverInternal(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&neverInternalWriter{watchedWriter{ResponseWriter: w}}, r)
	})
}

type neverInternalWriter struct{ watchedWriter }

func (w *neverInternalWriter) WriteHeader(code int) {
	if code == http.StatusInternalServerError {
		code = http.StatusServiceUnavailable
	}
	w.watchedWriter.WriteHeader(code)
}

// endsWithServer ends requests that would otherwise last as long as the client
// likes, when the server stops.
func (s *Server) endsWithServer(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.life, cancel)()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}
