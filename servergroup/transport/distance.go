package transport

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// nearby is the round-trip time below which responses are wanted uncompressed: compressing
// JSON takes a server as long as many small queries, and saves nothing within a data centre.
const nearby = 2 * time.Millisecond

// Distance is what the opening of connections to a replica, or to the proxy before it, has shown:
// the round-trip time, and how many were opened. It is safe for concurrent use.
type Distance struct {
	shortest atomic.Int64 // ns; 0 if not known
	opened   atomic.Int64 // connections
}

// Opened returns how many connections have been opened.
func (d *Distance) Opened() int64 { return d.opened.Load() }

// near reports whether the round-trip time is known and short.
func (d *Distance) near() bool {
	if d == nil {
		return false
	}
	rtt := time.Duration(d.shortest.Load())
	return rtt > 0 && rtt < nearby
}

// observe takes the time that opening a connection took; the shortest one counts.
func (d *Distance) observe(rtt time.Duration) {
	for {
		known := d.shortest.Load()
		if known > 0 && known <= int64(rtt) || d.shortest.CompareAndSwap(known, max(1, int64(rtt))) {
			return
		}
	}
}

// connection is what is known of the connection that a request used.
type connection struct {
	reused atomic.Bool // it was used before
	secure atomic.Bool // a TLS handshake was made for the request, and succeeded
}

// measured returns a context that measures the connections opened with it. They may be
// opened to several addresses at once, and after the request has used another one.
func (d *Distance) measured(ctx context.Context, used *connection) context.Context {
	hooks := &httptrace.ClientTrace{
		GotConn:          func(info httptrace.GotConnInfo) { used.reused.Store(info.Reused) },
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) { used.secure.Store(err == nil) },
	}
	if d != nil {
		var began sync.Map // time.Time by address
		hooks.ConnectStart = func(_, addr string) { began.Store(addr, time.Now()) }
		hooks.ConnectDone = func(_, addr string, err error) {
			if at, ok := began.Load(addr); ok && err == nil {
				d.opened.Add(1)
				d.observe(time.Since(at.(time.Time)))
			}
		}
	}
	return httptrace.WithClientTrace(ctx, hooks)
}
