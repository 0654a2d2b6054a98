package transport

import (
	"context"
	"net/url"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
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

// ScrapedTargets returns the labels of the targets that the backend scraped last time with success.
func (c *Client) ScrapedTargets(ctx context.Context) ([]labels.Labels, error) {
	var data struct {
		ActiveTargets []struct {
			Labels labels.Labels `json:"labels"`
			Health string        `json:"health"`
		} `json:"activeTargets"`
	}
	_, _, err := c.GetOptional(ctx, "/api/v1/targets", url.Values{"state": {"active"}}, nil, &data)
	var out []labels.Labels
	for _, t := range data.ActiveTargets {
		if t.Health == "up" {
			out = append(out, t.Labels)
		}
	}
	return out, err
}
