package servergroup

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// This file is about headers of clients that are passed on to replicas
// (forward_headers). What a replica shows may then depend on who asks: nothing that one
// client was told is for another, and what oneprom finds out with its own requests says
// nothing of what a client is shown.

// WithClientHeader has the groups pass these headers on, each those that its
// forward_headers name. Names are canonical.
func WithClientHeader(ctx context.Context, header http.Header) context.Context {
	return transport.WithClientHeader(ctx, header)
}

// forwardsLike tells whether each group is passed the same of both requests.
func (v *View) forwardsLike(o *View) bool {
	for _, g := range v.groups {
		for _, name := range g.cfg.ForwardedHeaders() {
			if !slices.Equal(v.client[name], o.client[name]) {
				return false
			}
		}
	}
	return true
}

// refusedError is a refusal of the credentials that a client sent. It says nothing of
// the replica.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// asClient marks the error of a request that was made for a client, if that was refused.
func (r *replica) asClient(ctx context.Context, err error) error {
	var e *transport.Error
	if _, ok := transport.ClientHeader(ctx); !ok || !r.group.Forwards() || !errors.As(err, &e) {
		return err
	}
	if e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden {
		return refusedError{err}
	}
	return err
}
