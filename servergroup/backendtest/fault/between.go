package fault

import (
	"compress/gzip"
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
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

// TakesTurns is a load balancer before the backend and another one, for each request.
func TakesTurns(other http.Handler) Fault {
	var n atomic.Int64
	return Fault{answer: func(w http.ResponseWriter, r *http.Request, backend http.Handler) {
		if n.Add(1)%2 == 0 {
			backend = other
		}
		backend.ServeHTTP(w, r)
	}}
}

// TakesTurnsByConnection is one that chooses for each connection, as a Service of Kubernetes does.
func TakesTurnsByConnection(other http.Handler) Fault {
	var mtx sync.Mutex
	of := map[any]int{} // by connection
	return Fault{answer: func(w http.ResponseWriter, r *http.Request, backend http.Handler) {
		conn := r.Context().Value(served{})
		mtx.Lock()
		if _, known := of[conn]; !known {
			of[conn] = len(of) % 2
		}
		turn := of[conn]
		mtx.Unlock()
		if turn == 1 {
			backend = other
		}
		backend.ServeHTTP(w, r)
	}}
}

// Replaces is a backend in the place of the other.
func Replaces(other http.Handler) Fault {
	return Fault{answer: func(w http.ResponseWriter, r *http.Request, _ http.Handler) { other.ServeHTTP(w, r) }}
}

// served is the key of the number of requests on a connection, in the contexts of these.
type served struct{}

func countServed(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, served{}, &atomic.Int64{})
}
