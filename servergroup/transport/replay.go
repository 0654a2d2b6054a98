package transport

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
)

// Requests only read, so they may be sent again. That is needed where a server or a proxy closes a
// connection that was idle, just when the next request is under way on it.

// replayable is a header that is not sent, as it has no value. net/http sends a POST that has it
// again, as it does with each GET, if a connection had been used before and ends without an answer
// (https://pkg.go.dev/net/http#Transport).
const replayable = "X-Idempotency-Key"

// maxReplays is how often a request is sent again that net/http does not send again.
const maxReplays = 3

// do sends a request. net/http does not send one again whose body was still being written.
func (c *Client) do(sender *http.Client, req *http.Request) (*http.Response, error) {
	if _, configured := req.Header[replayable]; !configured {
		req.Header[replayable] = nil
	}
	var reused atomic.Bool
	ctx := c.Distance.measured(req.Context(), &reused)
	for replays := 0; ; replays++ {
		resp, err := sender.Do(req.WithContext(ctx))
		if err == nil || replays == maxReplays || !reused.Load() || !brokenConnection(ctx, err) {
			return resp, err
		}
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// brokenConnection reports whether a request failed because its connection ended.
func brokenConnection(ctx context.Context, err error) bool {
	var network *net.OpError
	return ctx.Err() == nil && errors.As(err, &network) && !network.Timeout()
}
