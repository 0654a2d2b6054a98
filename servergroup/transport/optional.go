package transport

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
)

// GetOptional decodes the data of GET <path>, an endpoint that not every backend has, into
// data, and returns its warnings. has reports whether the replica has the endpoint.
func (c *Client) GetOptional(ctx context.Context, path string, params url.Values, charge func(int) error, data any) (has bool, warnings []string, err error) {
	if c.dialect.ReadOnly {
		return false, nil, nil
	}
	resp, err := c.get(ctx, path, params)
	if err != nil {
		if without(err) {
			err = nil
		}
		return false, nil, err
	}
	warnings, err = c.text(resp, charge, data)
	return err == nil, warnings, err
}

// withoutTexts are in the errors of a Prometheus agent, of VictoriaMetrics, and of a Prometheus
// for a scrape pool that it does not have.
var withoutTexts = []string{"unavailable with Prometheus Agent", "unsupported path requested", "error retrieving scrape config"}

// without reports whether an error says that the replica does not have what was requested.
func without(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Unsupported() || e.Class == ClassUser && slices.ContainsFunc(withoutTexts, func(text string) bool {
		return strings.Contains(e.Err.Error(), text)
	})
}
