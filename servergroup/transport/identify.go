package transport

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Identity is what a backend says it is.
type Identity struct {
	Kind Kind
	// Version is "" if the backend does not say.
	Version string
}

// String prints kind and version.
func (id Identity) String() string { return strings.TrimSpace(string(id.Kind) + " " + id.Version) }

// Alive fails if the backend does not evaluate the simplest query.
func (c *Client) Alive(ctx context.Context) error {
	resp, err := c.form(ctx, "/api/v1/query", url.Values{"query": {"vector(1)"}})
	if err != nil {
		return err
	}
	_, err = c.text(resp, nil, new(json.RawMessage))
	return err
}

// Identify finds out what a backend is. The kind of one that does not say is UnknownKind; one
// that cannot be reached is an error.
func (c *Client) Identify(ctx context.Context) (Identity, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.endpoint("/api/v1/status/buildinfo", nil), nil)
	if err != nil {
		return Identity{}, err
	}
	resp, err := c.send(req, typeJSON)
	var e *Error
	if errors.As(err, &e) && e.header != nil {
		if id, ok := byHeader(e.header); ok {
			return id, nil
		}
	}
	if err != nil {
		return Identity{Kind: UnknownKind}, err
	}
	defer resp.Body.Close()
	id, known := byHeader(resp.Header)
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBody))
	if err != nil {
		return Identity{}, c.bodyError(ctx, err)
	}
	if known {
		return id, nil
	}
	var info struct {
		Data struct {
			Version     string `json:"version"`
			Application string `json:"application"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return Identity{Kind: UnknownKind}, c.contentError(errors.New("buildinfo is not what Prometheus answers"))
	}
	id = Identity{Kind: byBuildInfo(info.Data.Application, info.Data.Version), Version: clip(info.Data.Version)}
	if id.Kind == Prometheus {
		return c.confirmPrometheus(ctx, id)
	}
	return id, nil
}

// byHeader recognises backends by the headers that they add to every response.
func byHeader(h http.Header) (Identity, bool) {
	switch {
	case h.Get("X-Influxdb-Version") != "":
		return Identity{Kind: InfluxDB, Version: clip(h.Get("X-Influxdb-Version"))}, true
	case h.Get("X-Server-Hostname") != "":
		// The version in the build info of VictoriaMetrics is that of an old Prometheus.
		return Identity{Kind: VictoriaMetrics}, true
	}
	return Identity{}, false
}

// byBuildInfo recognises backends by /api/v1/status/buildinfo.
func byBuildInfo(application, version string) Kind {
	switch {
	case strings.Contains(application, "Mimir") || strings.Contains(application, "Grafana Enterprise Metrics"):
		return Mimir
	case strings.Contains(application, "Cortex"):
		return Cortex
	case application != "" && application != "Prometheus":
		return UnknownKind
	case strings.HasPrefix(version, "1."):
		return Cortex // Prometheus 1.x has no such endpoint
	case version == "":
		return UnknownKind
	}
	return Prometheus
}

// confirmPrometheus finds out whether a backend with the build info of a Prometheus is one:
// Thanos lists its stores, and another oneprom its groups.
func (c *Client) confirmPrometheus(ctx context.Context, id Identity) (Identity, error) {
	kind, path, data := Oneprom, "/api/v1/status/groups", any(&[]struct{}{})
	if strings.HasPrefix(id.Version, "0.") { // Thanos has no version 1.0 yet; Prometheus has the endpoint since 2.14
		kind, path, data = Thanos, "/api/v1/stores", any(&map[string]any{})
	}
	resp, err := c.get(ctx, path, nil)
	if err == nil {
		_, err = c.text(resp, nil, data)
	}
	switch {
	case err == nil:
		id.Kind = kind
	case !Refused(err) && ClassOf(err) != ClassContent:
		return Identity{}, err
	}
	return id, nil
}
