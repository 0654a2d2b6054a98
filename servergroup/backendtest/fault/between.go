package fault

import (
	"compress/gzip"
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
)

// These faults are those of proxies between oneprom and a server.

// Redirects redirects every request with this status to a path below "/real", where the backend is.
func Redirects(status int) Fault {
	const below = "/real"
	return Fault{answer: func(w http.ResponseWriter, r *http.Request, backend http.Handler) {
		if strings.HasPrefix(r.URL.Path, below+"/") {
			http.StripPrefix(below, backend).ServeHTTP(w, r)
			return
		}
		w.Header().Set("Location", below+r.URL.RequestURI())
		w.WriteHeader(status)
	}}
}

// DropsBodies loses the bodies of requests.
func DropsBodies() Fault {
	return Fault{answer: func(w http.ResponseWriter, r *http.Request, backend http.Handler) {
		r.Body, r.ContentLength = http.NoBody, 0
		backend.ServeHTTP(w, r)
	}}
}

// RefusesPost answers every POST with this status.
func RefusesPost(status int) Fault {
	return Fault{answer: func(w http.ResponseWriter, r *http.Request, backend http.Handler) {
		if r.Method == http.MethodPost {
			w.WriteHeader(status)
			return
		}
		backend.ServeHTTP(w, r)
	}}
}

// Compresses sends every body compressed by gzip, whether that was asked for or not.
func Compresses() Fault {
	zipping := edited(func(w http.ResponseWriter, _ *http.Request, a *recorded) {
		coding := "gzip"
		if inner := a.header.Get("Content-Encoding"); inner != "" {
			coding = inner + ", gzip"
		}
		a.header.Set("Content-Encoding", coding)
		a.begin(w)
		zip := gzip.NewWriter(w)
		_, _ = zip.Write(a.body.Bytes())
		_ = zip.Close()
	})
	return Fault{answer: func(w http.ResponseWriter, r *http.Request, backend http.Handler) {
		r.Header.Del("Accept-Encoding") // it compresses itself
		zipping.answer(w, r, backend)
	}}
}

// ClosesIdle closes a connection instead of answering its second request, as if the request and
// the end of an idle connection had met.
func ClosesIdle() Fault {
	return Fault{answer: func(w http.ResponseWriter, r *http.Request, backend http.Handler) {
		if n, ok := r.Context().Value(served{}).(*atomic.Int64); ok && n.Add(1) > 1 {
			reset(w)
			return
		}
		backend.ServeHTTP(w, r)
	}}
}

// served is the key of the number of requests on a connection, in the contexts of these.
type served struct{}

func countServed(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, served{}, &atomic.Int64{})
}
