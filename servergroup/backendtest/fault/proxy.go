// Package fault puts a test's backend behind a listener that makes it fail, in one way at a time, and
// recover.
package fault

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// Proxy serves a backend. Its methods may be called from any goroutine.
type Proxy struct {
	backend http.Handler
	addr    string

	requests atomic.Int64
	open     atomic.Int64 // connections

	fault atomic.Pointer[Fault]

	mtx     sync.Mutex   // guards the fields below
	server  *http.Server // nil while connections are refused, and after Close
	serving sync.WaitGroup
	closed  bool
}

// New serves the backend on a loopback port, without a fault.
func New(backend http.Handler) (*Proxy, error) {
	l, err := listenApart()
	if err != nil {
		return nil, err
	}
	p := &Proxy{backend: backend, addr: l.Addr().String()}
	p.fault.Store(&Fault{})
	p.serve(l)
	return p, nil
}

// listenApart listens on a loopback address that hardly any other process uses, so that none takes the
// port while connections to it are refused. If 127.0.0.1 is the only address, it uses that.
func listenApart() (net.Listener, error) {
	n := rand.Uint32()
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+n%250, 1+n>>8%250, 1+n>>16%250))
	if err != nil {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	return l, err
}

// Addr is the address as host:port. It does not change.
func (p *Proxy) Addr() string { return p.addr }

// Requests is how many requests have come, probes among them.
func (p *Proxy) Requests() int64 { return p.requests.Load() }

// Open is how many connections are open, idle ones among them.
func (p *Proxy) Open() int64 { return p.open.Load() }

// Set makes requests that come from now on fail in this way; with the zero value they succeed. Running
// requests go on as they began, unless connections are refused: that closes open ones, too.
func (p *Proxy) Set(f Fault) error {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	p.fault.Store(&f)
	switch {
	case p.closed:
	case f.refuse:
		p.stop()
	case p.server == nil:
		l, err := net.Listen("tcp", p.addr)
		if err != nil {
			return err
		}
		p.serve(l)
	}
	return nil
}

// Close ends the running requests and waits for them.
func (p *Proxy) Close() {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	p.closed = true
	p.stop()
}

// serve serves a listener in the background. p.mtx is held, or p is not known to anybody yet.
func (p *Proxy) serve(l net.Listener) {
	connections := &sync.WaitGroup{} // a server that is closed does not wait for them
	p.server = &http.Server{Handler: http.HandlerFunc(p.answer), ConnContext: countServed, ConnState: func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			connections.Add(1)
			p.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			p.open.Add(-1)
			connections.Done()
		}
	}}
	server := p.server
	p.serving.Go(func() {
		_ = server.Serve(l) // until stop
		connections.Wait()
	})
}

// stop closes the listener and the connections. p.mtx is held.
func (p *Proxy) stop() {
	if p.server == nil {
		return
	}
	_ = p.server.Close()
	p.server = nil
	p.serving.Wait()
}

func (p *Proxy) answer(w http.ResponseWriter, r *http.Request) {
	p.requests.Add(1)
	// Only once the body is read does net/http notice that a client goes away.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if f := p.fault.Load(); f.answer != nil {
		f.answer(w, r, p.backend)
		return
	}
	p.backend.ServeHTTP(w, r)
}
