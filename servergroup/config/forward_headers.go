package config

import (
	"fmt"
	"net/http"
	"slices"

	commoncfg "github.com/prometheus/common/config"
)

// mostForwarded bounds the names of forward_headers.
const mostForwarded = 32

// connectionHeaders are about a connection or a body, and so are nobody else's, or are
// passed on as it is (the trace).
var connectionHeaders = []string{
	"Accept", "Content-Length", "Expect", "Forwarded", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Range", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Traceparent", "Tracestate", "Baggage",
}

// validateForwarded checks forward_headers.
func (c *Group) validateForwarded(errs *FieldErrors) {
	if len(c.ForwardHeaders) > mostForwarded {
		errs.Add(fmt.Sprintf("more than %d headers", mostForwarded), "forward_headers")
	}
	seen := map[string]bool{}
	for i, name := range c.ForwardHeaders {
		canonical := http.CanonicalHeaderKey(name)
		_, reserved := commoncfg.ReservedHeaders[canonical]
		switch {
		case !isToken(name):
			errs.Add("not the name of an HTTP header", "forward_headers", i)
		case canonical == "Traceparent", canonical == "Tracestate", canonical == "Baggage":
			errs.Add("tracing passes this header on of itself: remove it", "forward_headers", i)
		case reserved && canonical != "Authorization", slices.Contains(connectionHeaders, canonical):
			errs.Add("requests set this header themselves: remove it", "forward_headers", i)
		case seen[canonical]:
			errs.Add("the header is there twice: remove one", "forward_headers", i)
		case c.addsHeader(canonical):
			errs.Add("`http_headers` adds this header too: set oneprom's own value under `headers`, which the client's replaces", "forward_headers", i)
		}
		seen[canonical] = true
	}
}

// addsHeader reports whether http_headers add a header, which they do to whatever else
// is sent.
func (c *Group) addsHeader(canonical string) bool {
	if c.HTTPClientConfig.HTTPHeaders == nil {
		return false
	}
	for name := range c.HTTPClientConfig.HTTPHeaders.Headers {
		if http.CanonicalHeaderKey(name) == canonical {
			return true
		}
	}
	return false
}

// ForwardedHeaders are the canonical names of ForwardHeaders.
func (c *Group) ForwardedHeaders() []string {
	var names []string
	for _, name := range c.ForwardHeaders {
		names = append(names, http.CanonicalHeaderKey(name))
	}
	return names
}

// Forwards reports whether the replicas are passed headers of clients.
func (c *Group) Forwards() bool { return len(c.ForwardHeaders) > 0 }

// ForwardsAuthorization reports whether clients are to be known to the replicas by
// credentials of their own, and oneprom has others.
func (c *Group) ForwardsAuthorization() bool {
	h := c.HTTPClientConfig
	own := h.BasicAuth != nil || h.Authorization != nil || h.OAuth2 != nil
	return own && slices.Contains(c.ForwardedHeaders(), "Authorization")
}

// PublicFindings are those of some findings about data that everybody may see. They give series
// as examples, which not every client of a group that passes headers on would be shown.
func (c *Group) PublicFindings(findings []string) []string {
	if len(findings) > 0 && c.Forwards() {
		return []string{fmt.Sprintf("the data has shown %d mistakes in the group's configuration: they are in the log only, because of `forward_headers`", len(findings))}
	}
	return findings
}
