package transport

import (
	"context"
	"net/url"
	"slices"
)

// RecordNames returns the sorted names of the series that the backend's recording
// rules write.
func (c *Client) RecordNames(ctx context.Context) ([]string, error) {
	resp, err := c.get(ctx, "/api/v1/rules", url.Values{"type": {"record"}})
	if err != nil {
		return nil, err
	}
	var data struct {
		Groups []struct {
			Rules []struct {
				Name string `json:"name"`
				Type string `json:"type"`
			} `json:"rules"`
		} `json:"groups"`
	}
	if _, err := c.text(resp, nil, &data); err != nil {
		return nil, err
	}
	var names []string
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			if r.Type == "recording" {
				names = append(names, r.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
