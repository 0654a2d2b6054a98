package transport

import (
	"context"
	"net/http"
	"slices"
)

// This file passes headers of clients on to replicas.

type clientHeaderKey struct{}

// WithClientHeader has the requests made with the context be those of a client that sent
// these headers. Without it they are oneprom's own, as those of probes are.
func WithClientHeader(ctx context.Context, header http.Header) context.Context {
	return context.WithValue(ctx, clientHeaderKey{}, header)
}

// ClientHeader returns the headers of the client; ok is false if the requests made with
// the context are oneprom's own.
func ClientHeader(ctx context.Context) (header http.Header, ok bool) {
	header, ok = ctx.Value(clientHeaderKey{}).(http.Header)
	return header, ok
}

// forward gives a request the headers of the client that it is made for, and returns
// what is to send it. What the client did not send is not sent: the configured value
// of such a header is for oneprom's own requests, and nobody else borrows it.
func (c *Client) forward(req *http.Request) *http.Client {
	sent, ok := ClientHeader(req.Context())
	if !ok || len(c.Forward) == 0 {
		return c.HTTP
	}
	for _, name := range c.Forward {
		req.Header.Del(name)
		if values := sent[name]; len(values) > 0 {
			req.Header[name] = slices.Clone(values)
		}
	}
	if c.Forwarding != nil {
		return c.Forwarding
	}
	return c.HTTP
}
