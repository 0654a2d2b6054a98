package transport

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
)

// Requests only read, so they may be sent again. That is needed where a server or a proxy closes a
// connection that was idle, just when the next request is under way on it.

// replayable is a header that is not sent, as it has no value. net/http sends a POST that has it
// again, as it does with each GET, if a connection had been used before and ends without an answer
// (https://pkg.go.dev/net/http#Transport).
const replayable = "X-Idempotency-Key"

// maxReplays is how often a request is sent again that net/http does not send again.
const maxReplays = 3

// do sends a request. net/http does not send one again whose body was still being written, nor one
// whose HTTP/2 connection ended: a server that restarts announces that (GOAWAY), and may then end
// the connection under all requests on it.
func (c *Client) do(sender *http.Client, req *http.Request) (*http.Response, error) {
	if _, configured := req.Header[replayable]; !configured {
		req.Header[replayable] = nil
	}
	for replays := 0; ; replays++ {
		var used connection
		ctx := c.Distance.measured(req.Context(), &used)
		resp, err := sender.Do(req.WithContext(ctx))
		refused := resp != nil // a redirection that is not followed
		switch {
		case err == nil || refused || !brokenConnection(ctx, err):
			return resp, err
		case !used.reused.Load() && used.secure.Load():
			return nil, &endedAfterHandshake{err}
		case !used.reused.Load() || replays == maxReplays:
			return nil, err
		}
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// brokenConnection reports whether a request without an answer failed because its connection ended.
// That is what remains of the errors of net/http and its HTTP/2, whose types are not exported.
func brokenConnection(ctx context.Context, err error) bool {
	var network net.Error
	timeout := errors.As(err, &network) && network.Timeout()
	ofRequest := strings.Contains(err.Error(), "stream error: ") // an HTTP/2 server ended the request, and not the connection
	return ctx.Err() == nil && !timeout && !ofRequest
}
