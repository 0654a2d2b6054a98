package servergroup

import (
	"io"
	"net/http"
	"sync"
)

// connections are the HTTP connections of an entry to its replicas. Idle ones are kept while the
// entry is in use. After close, queries and probes that still run can finish, and their
// connections are closed as soon as the last one has.
type connections struct {
	http.RoundTripper

	mtx  sync.Mutex // guards the fields below
	busy int        // requests whose responses are being read
	gone bool       // close was called
}

// RoundTrip implements http.RoundTripper.
func (c *connections) RoundTrip(req *http.Request) (*http.Response, error) {
	c.mtx.Lock()
	c.busy++
	c.mtx.Unlock()
	resp, err := c.RoundTripper.RoundTrip(req)
	if err != nil {
		c.ended()
		return nil, err
	}
	resp.Body = &watchedBody{ReadCloser: resp.Body, closed: sync.OnceFunc(c.ended)}
	return resp, nil
}

// ended is called at the end of each request.
func (c *connections) ended() {
	c.mtx.Lock()
	c.busy--
	last := c.gone && c.busy == 0
	c.mtx.Unlock()
	if last {
		c.CloseIdleConnections()
	}
}

// close closes the connections once no request uses them.
func (c *connections) close() {
	c.mtx.Lock()
	c.gone = true
	c.mtx.Unlock()
	c.CloseIdleConnections()
}

// CloseIdleConnections implements what http.Client.CloseIdleConnections looks for.
func (c *connections) CloseIdleConnections() {
	(&http.Client{Transport: c.RoundTripper}).CloseIdleConnections()
}

// watchedBody calls closed when it is closed.
type watchedBody struct {
	io.ReadCloser
	closed func()
}

func (b *watchedBody) Close() error {
	defer b.closed()
	return b.ReadCloser.Close()
}
