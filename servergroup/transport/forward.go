package transport

import (
	"context"
	"net/http"
	"slices"
)

// clientHeaderKey is the context key of the http.Header of a client.
type clientHeaderKey struct{}

// WithClientHeader returns a context for requests on behalf of a client that sent these
// headers. Requests with any other context are oneprom's own, as those of probes are.
func WithClientHeader(ctx context.Context, header http.Header) context.Context {
	return context.WithValue(ctx, clientHeaderKey{}, header)
}

// ClientHeader returns the headers of the client. ok is false if requests with the context
// are oneprom's own.
func ClientHeader(ctx context.Context) (header http.Header, ok bool) {
	header, ok = ctx.Value(clientHeaderKey{}).(http.Header)
	return header, ok
}

// forward gives a request the headers of the client for whom it is made, and returns the HTTP
// client that sends it. A header that the client did not send is not sent, even if a value is
// configured: that is for oneprom's own requests.
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
