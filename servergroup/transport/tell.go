package transport

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
)

// Tell decodes into data what GET <path> says of the replica itself: its rules, targets,
// statistics. It tells whether the replica has such a thing.
func (c *Client) Tell(ctx context.Context, path string, params url.Values, charge func(int) error, data any) (has bool, warnings []string, err error) {
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

// withoutTexts are in what a Prometheus agent answers, a VictoriaMetrics, and a Prometheus
// that is asked about a scrape pool that it does not have.
var withoutTexts = []string{"unavailable with Prometheus Agent", "unsupported path requested", "error retrieving scrape config"}

// without tells whether an error says that the replica does not have what it was asked for.
func without(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Unsupported() || e.Class == ClassUser && slices.ContainsFunc(withoutTexts, func(text string) bool {
		return strings.Contains(e.Err.Error(), text)
	})
}
