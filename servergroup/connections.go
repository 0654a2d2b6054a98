package servergroup

import (
	"io"
	"net/http"
	"sync"
)

// connections are those of a group to its replicas. They are kept for further requests
// while the group is in use, and end with it. Queries and probes that still use them then
// go on; what they leave behind ends after them, and does not wait to become too old.
type connections struct {
	http.RoundTripper

	mtx  sync.Mutex // guards the fields below
	busy int        // requests whose answers are still read
	gone bool       // the group is
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

// ended is told of the end of each request.
func (c *connections) ended() {
	c.mtx.Lock()
	c.busy--
	last := c.gone && c.busy == 0
	c.mtx.Unlock()
	if last {
		c.CloseIdleConnections()
	}
}

// close is told that the group is gone.
func (c *connections) close() {
	c.mtx.Lock()
	c.gone = true
	c.mtx.Unlock()
	c.CloseIdleConnections()
}

// CloseIdleConnections is for http.Client.
func (c *connections) CloseIdleConnections() {
	(&http.Client{Transport: c.RoundTripper}).CloseIdleConnections()
}

// watchedBody tells that it was closed.
type watchedBody struct {
	io.ReadCloser
	closed func()
}

func (b *watchedBody) Close() error {
	defer b.closed()
	return b.ReadCloser.Close()
}
