// Package request is what a request to oneprom wishes of the answers of server groups: one
// value, which its context carries.
package request

import (
	"context"
	"net/http"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
)

// Request is what a request to oneprom wishes of the answers of server groups. It is not
// changed once it is in a context.
type Request struct {
	// Partial overrides partial_response; "" leaves it to the configuration.
	Partial config.PartialResponse
	// Pushdown can switch pushdown off, but not on where the configuration says off.
	Pushdown config.Pushdown
	// Restricted says that the request is shown those series only that satisfy all of
	// Shown. Without any matcher it is shown no group at all.
	Restricted bool
	Shown      []*labels.Matcher
	// Header are headers of the client, with canonical names. Each group passes those on
	// to its replicas that its forward_headers name. Nil: the request is not of a client.
	Header http.Header
	// Record receives what the answer lacks; nil: nobody asks for it.
	Record *completeness.Record
}

type requestKey struct{}

// From returns the request of a context. It is never nil.
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

// Alike reports whether two requests have the same answers from groups that pass no headers
// on and have the same partial_response.
func (r *Request) Alike(o *Request) bool {
	return r.Pushdown == o.Pushdown && r.Restricted == o.Restricted &&
		slices.EqualFunc(r.Shown, o.Shown, func(a, b *labels.Matcher) bool { return a.String() == b.String() })
}

// PassesOnLike reports whether a group is passed the same headers of both requests.
func (r *Request) PassesOnLike(o *Request, g *config.Group) bool {
	return !slices.ContainsFunc(g.ForwardedHeaders(), func(name string) bool {
		return !slices.Equal(r.Header[name], o.Header[name])
	})
}
