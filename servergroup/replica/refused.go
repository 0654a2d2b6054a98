package replica

import (
	"context"
	"errors"
	"net/http"

	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// credentialsError is a refusal of the credentials that a client sent. It is not a failure of
// the replica.
type credentialsError struct{ error }

func (e credentialsError) Unwrap() error { return e.error }

// markRefused wraps the error of a request in a credentialsError if the replica has refused
// credentials that the client sent.
func (r *Replica) markRefused(ctx context.Context, err error) error {
	var e *transport.Error
	if request.From(ctx).Header == nil || !r.group.Forwards() || !errors.As(err, &e) {
		return err
	}
	if e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden {
		return credentialsError{err}
	}
	return err
}
