package replica

import (
	"context"
	"errors"
	"net/http"

	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// refusedError is a refusal of the credentials that a client sent. It says nothing of
// the replica.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// asClient marks the error of a request that was made for a client, if that was refused.
func (r *Replica) asClient(ctx context.Context, err error) error {
	var e *transport.Error
	if request.From(ctx).Header == nil || !r.group.Forwards() || !errors.As(err, &e) {
		return err
	}
	if e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden {
		return refusedError{err}
	}
	return err
}
