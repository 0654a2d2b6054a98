package grafana

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// Rules is what the alerting pages show of a data source.
type Rules struct {
	ReadOnly bool     // a plain Prometheus; false means Mimir's ruler API
	Groups   []string // names of the rule groups, in order
	Alerts   int      // active alerts
}

// Alerting opens the alerting pages. A 404 of buildinfo would send Grafana down
// the path for Cortex and is an error here, as is a null list.
func (d *DataSource) Alerting(ctx context.Context, filter url.Values) (Rules, error) {
	status, _, body, err := d.call(ctx, http.MethodGet, "/api/v1/status/buildinfo", nil, true)
	info, err := d.data("/api/v1/status/buildinfo", status, body, err)
	if err != nil {
		return Rules{}, err
	}
	var build struct {
		Version  string            `json:"version"`
		Features map[string]string `json:"features"`
	}
	if err := json.Unmarshal(info, &build); err != nil {
		return Rules{}, err
	}
	r := Rules{ReadOnly: len(build.Features) == 0}
	if r.Groups, err = d.ruleGroups(ctx, filter); err != nil {
		return r, err
	}
	data, err := d.Resource(ctx, http.MethodGet, "/api/v1/alerts", nil)
	if err != nil {
		return r, err
	}
	var list struct {
		Alerts []json.RawMessage `json:"alerts"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return r, err
	}
	if list.Alerts == nil {
		return r, errors.New("alerts is null")
	}
	r.Alerts = len(list.Alerts)
	return r, nil
}

// ruleGroups sends every filter in both spellings, `file` and `file[]`.
func (d *DataSource) ruleGroups(ctx context.Context, filter url.Values) ([]string, error) {
	both := url.Values{}
	for k, v := range filter {
		both[k] = v
		if k == "file" || k == "rule_group" || k == "rule_name" {
			both[k+"[]"] = v
		}
	}
	data, err := d.Resource(ctx, http.MethodGet, "/api/v1/rules", both)
	if err != nil {
		return nil, err
	}
	var list struct {
		Groups []struct {
			Name  string            `json:"name"`
			Rules []json.RawMessage `json:"rules"`
		} `json:"groups"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	if list.Groups == nil {
		return nil, errors.New("groups is null")
	}
	names := []string{}
	for _, g := range list.Groups {
		if g.Rules == nil {
			return nil, fmt.Errorf("rules of group %s is null", g.Name)
		}
		names = append(names, g.Name)
	}
	return names, nil
}
