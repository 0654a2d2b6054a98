// Package request has the options of one request to oneprom that server groups follow, as one value
// that its context carries: whether its answer may be partial, what may be pushed down, what a
// tenant may see, which headers are passed on, for whom servers are asked, and where gaps are
// recorded.
package request

import (
	"context"
	"net/http"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/health"
)

// Request is the options of one request to oneprom. It is not changed once it is in a context.
type Request struct {
	// Partial overrides partial_response; "" leaves it to the configuration.
	Partial config.PartialResponse
	// WholeSeries reports whether a partial answer must consist of series that are as if nothing
	// were missing: series of the missing groups may be missing, but those of several groups must
	// not lack what one of them has. Other partial answers are errors.
	WholeSeries bool
	// Pushdown can turn pushdown off, but not on where the configuration turns it off.
	Pushdown config.Pushdown
	// NoCache reports whether the answer must not be made of kept ones, and is not kept.
	NoCache bool
	// Restricted reports whether the request may see only series that satisfy all matchers of
	// Shown. Without any matcher it sees no group at all.
	Restricted bool
	Shown      []*labels.Matcher
	// Header is the headers of the client, with canonical names, of which each group sends its
	// replicas those in its forward_headers; nil if oneprom itself makes the request.
	Header http.Header
	// Asker is for whom servers are asked; nil if that is oneprom itself.
	Asker *health.Asker
	// Record receives the gaps in the answer, unless it is nil.
	Record *completeness.Record
}

type requestKey struct{}

// From returns the request of a context, a zero one if there is none. It is never nil.
func From(ctx context.Context) *Request {
	if r, ok := ctx.Value(requestKey{}).(*Request); ok {
		return r
	}
	return &Request{}
}

// With returns a context whose request is that of ctx with some changes.
func With(ctx context.Context, change func(*Request)) context.Context {
	r := *From(ctx)
	change(&r)
	return context.WithValue(ctx, requestKey{}, &r)
}

// Alike reports whether two requests have the same answers from groups that forward no headers and
// have the same partial_response.
func (r *Request) Alike(o *Request) bool {
	return r.WholeSeries == o.WholeSeries && r.Pushdown == o.Pushdown && r.NoCache == o.NoCache && r.Restricted == o.Restricted &&
		slices.EqualFunc(r.Shown, o.Shown, func(a, b *labels.Matcher) bool { return a.String() == b.String() })
}

// PassesOnLike reports whether a group forwards the same headers for both requests.
func (r *Request) PassesOnLike(o *Request, g *config.Group) bool {
	return !slices.ContainsFunc(g.ForwardedHeaders(), func(name string) bool {
		return !slices.Equal(r.Header[name], o.Header[name])
	})
}
