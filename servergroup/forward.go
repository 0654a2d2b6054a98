package servergroup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	commoncfg "github.com/prometheus/common/config"

	"github.com/oneprom/oneprom/servergroup/transport"
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
func (c *Config) validateForwarded(errs *fieldErrors) {
	if len(c.ForwardHeaders) > mostForwarded {
		errs.add(fmt.Sprintf("more than %d headers", mostForwarded), "forward_headers")
	}
	seen := map[string]bool{}
	for i, name := range c.ForwardHeaders {
		canonical := http.CanonicalHeaderKey(name)
		_, reserved := commoncfg.ReservedHeaders[canonical]
		switch {
		case !isToken(name):
			errs.add("not the name of an HTTP header", "forward_headers", i)
		case canonical == "Traceparent", canonical == "Tracestate", canonical == "Baggage":
			errs.add("tracing passes this header on of itself: remove it", "forward_headers", i)
		case reserved && canonical != "Authorization", slices.Contains(connectionHeaders, canonical):
			errs.add("requests set this header themselves: remove it", "forward_headers", i)
		case seen[canonical]:
			errs.add("the header is there twice: remove one", "forward_headers", i)
		case c.addsHeader(canonical):
			errs.add("`http_headers` adds this header too: set oneprom's own value under `headers`, which the client's replaces", "forward_headers", i)
		}
		seen[canonical] = true
	}
}

// addsHeader tells whether http_headers add a header, which they do to whatever else
// is sent.
func (c *Config) addsHeader(canonical string) bool {
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

// forwards tells whether the replicas are passed headers of clients.
func (c *Config) forwards() bool { return len(c.ForwardHeaders) > 0 }

// forwardsAuthorization tells whether clients are to be known to the replicas by
// credentials of their own, and oneprom has others.
func (c *Config) forwardsAuthorization() bool {
	h := c.HTTPClientConfig
	own := h.BasicAuth != nil || h.Authorization != nil || h.OAuth2 != nil
	return own && slices.Contains(canonical(c.ForwardHeaders), "Authorization")
}

func withoutCredentials(h commoncfg.HTTPClientConfig) commoncfg.HTTPClientConfig {
	h.BasicAuth, h.Authorization, h.OAuth2 = nil, nil, nil
	return h
}

func canonical(names []string) []string {
	var out []string
	for _, name := range names {
		out = append(out, http.CanonicalHeaderKey(name))
	}
	return out
}

// shown are those of some findings about data that everybody may see. They give series
// as examples, which not every client of a group that passes headers on would be shown.
func (c *Config) shown(findings []string) []string {
	if len(findings) > 0 && c.forwards() {
		return []string{fmt.Sprintf("the data has shown %d mistakes in the group's configuration: they are in the log only, because of `forward_headers`", len(findings))}
	}
	return findings
}

// refusedError is a refusal of the credentials that a client sent. It says nothing of
// the replica.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// asClient marks the error of a request that was made for a client, if that was refused.
func (r *replica) asClient(ctx context.Context, err error) error {
	var e *transport.Error
	if RequestOf(ctx).Header == nil || !r.group.forwards() || !errors.As(err, &e) {
		return err
	}
	if e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden {
		return refusedError{err}
	}
	return err
}
