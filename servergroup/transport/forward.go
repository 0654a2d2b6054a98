package transport

import (
	"net/http"
	"slices"
)

// ForClient returns the client whose requests are those of a client of oneprom's that sent
// these headers: it passes those on that Forward names. Nil stands for oneprom's own requests,
// such as those of probes.
func (c *Client) ForClient(header http.Header) *Client {
	if header == nil || len(c.Forward) == 0 {
		return c
	}
	out := *c
	out.passedOn = header
	return &out
}

// forward gives a request the headers of the client for whom it is made, and returns the HTTP
// client that sends it. A header that the client did not send is not sent, even if a value is
// configured: that is for oneprom's own requests.
func (c *Client) forward(req *http.Request) *http.Client {
	if c.passedOn == nil {
		return c.HTTP
	}
	for _, name := range c.Forward {
		req.Header.Del(name)
		if values := c.passedOn[name]; len(values) > 0 {
			req.Header[name] = slices.Clone(values)
		}
	}
	if c.Forwarding != nil {
		return c.Forwarding
	}
	return c.HTTP
}
