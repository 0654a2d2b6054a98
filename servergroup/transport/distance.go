package transport

import (
	"context"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// nearby is the round trip below which answers are asked for as they are: to compress
// JSON takes a server as long as many small queries, and within a data centre it saves
// nothing.
const nearby = 2 * time.Millisecond

// Distance is the time of a round trip to a replica, as opening connections to it, or
// to the proxy before it, has shown. It is safe for concurrent use.
type Distance struct {
	shortest atomic.Int64 // ns; 0 if not known
}

// near tells whether the replica is known to be nearby.
func (d *Distance) near() bool {
	if d == nil {
		return false
	}
	rtt := time.Duration(d.shortest.Load())
	return rtt > 0 && rtt < nearby
}

// took takes over how long it took to open a connection.
func (d *Distance) took(rtt time.Duration) {
	for {
		known := d.shortest.Load()
		if known > 0 && known <= int64(rtt) || d.shortest.CompareAndSwap(known, max(1, int64(rtt))) {
			return
		}
	}
}

// measured has the connections that a request opens measured. They may be opened for
// several addresses at once, and after the request has gone on with another one.
func (d *Distance) measured(ctx context.Context) context.Context {
	if d == nil {
		return ctx
	}
	var began sync.Map // time.Time by address
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectStart: func(_, addr string) { began.Store(addr, time.Now()) },
		ConnectDone: func(_, addr string, err error) {
			if at, ok := began.Load(addr); ok && err == nil {
				d.took(time.Since(at.(time.Time)))
			}
		},
	})
}
