package transport

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
)

// GetOptional decodes the data of GET <path>, an endpoint that not every backend has, into
// data, and returns its warnings. supported reports whether the replica has
// the endpoint.
func (c *Client) GetOptional(ctx context.Context, path string, params url.Values, charge func(int) error, data any) (supported bool, warnings []string, err error) {
	if c.dialect.ReadOnly {
		return false, nil, nil
	}
	resp, err := c.get(ctx, path, params)
	if err != nil {
		if unsupported(err) {
			err = nil
		}
		return false, nil, err
	}
	warnings, err = c.text(resp, charge, data)
	return err == nil, warnings, err
}

// unsupportedTexts are in the errors of a Prometheus agent, of VictoriaMetrics, and of a Prometheus
// for a scrape pool that it does not have.
var unsupportedTexts = []string{"unavailable with Prometheus Agent", "unsupported path requested", "error retrieving scrape config"}

// unsupported reports whether an error means that the replica does not have what was requested.
func unsupported(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Unsupported() || e.Class == ClassUser && slices.ContainsFunc(unsupportedTexts, func(text string) bool {
		return strings.Contains(e.Err.Error(), text)
	})
}
