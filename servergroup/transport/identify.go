package transport

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Identity is what a backend has shown of itself.
type Identity struct {
	Kind Kind
	// Version is "" if the backend does not say.
	Version string
	// Application is what a backend calls itself, "" if that is Prometheus or a known kind.
	Application string
	// Front is what shows that something that changes answers stands before the server; "" if
	// nothing does.
	Front string
	// Engine is how the backend evaluates. It is found out of the kinds that may be asked to.
	Engine Engine
}

// String prints kind and version.
func (id Identity) String() string { return strings.TrimSpace(string(id.Kind) + " " + id.Version) }

// simplest is a query that every backend can evaluate.
const simplest = "vector(1)"

// Alive fails if the backend does not evaluate the simplest query.
func (c *Client) Alive(ctx context.Context) error {
	resp, err := c.form(ctx, "/api/v1/query", url.Values{"query": {simplest}})
	if err != nil {
		return err
	}
	_, err = c.text(resp, nil, new(json.RawMessage))
	return err
}

// Identify finds out what a backend is by what it answers and offers: versions are not told by
// every build, and are chosen by those who build. The kind of a backend that shows nothing that
// is of one kind alone is UnknownKind; one that cannot be reached is an error.
func (c *Client) Identify(ctx context.Context) (Identity, error) {
	id, err := c.byBuildInfo(ctx)
	if err != nil || id.Kind != "" {
		return id, err
	}
	return c.byOffer(ctx, id)
}

// byBuildInfo recognises backends by /api/v1/status/buildinfo and its headers. The kind is "" if
// these do not tell.
func (c *Client) byBuildInfo(ctx context.Context) (Identity, error) {
	resp, err := c.get(ctx, "/api/v1/status/buildinfo", nil)
	var e *Error
	if errors.As(err, &e) && e.header != nil {
		if id, ok := byHeader(e.header); ok {
			return id, nil
		}
	}
	switch {
	case Refused(err):
		return Identity{}, nil
	case err != nil:
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
	id.Version = clip(info.Data.Version)
	switch name := info.Data.Application; {
	case strings.Contains(name, "Mimir") || strings.Contains(name, "Grafana Enterprise Metrics"):
		id.Kind = Mimir
	case strings.Contains(name, "Cortex"):
		id.Kind = Cortex
	case name != "" && name != "Prometheus":
		id.Application = clip(name)
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

// byOffer recognises backends by what else they have: another oneprom lists its groups, Thanos
// its stores, and a Prometheus has flags for its storage. A backend that may be a Prometheus has
// to answer a query as one does, too.
func (c *Client) byOffer(ctx context.Context, id Identity) (Identity, error) {
	groups, err := offer[[]struct{}](ctx, c, "status/groups")
	if err != nil {
		return Identity{}, err
	}
	flags, err := offer[map[string]string](ctx, c, "status/flags")
	if err != nil {
		return Identity{}, err
	}
	if features := flags["enable-feature"]; flags != nil && len(features) <= maxFeatures {
		id.Engine.FlagsShown, id.Engine.Features = true, features
	}
	_, hasStorage := flags["storage.tsdb.path"]
	// What has the flags of a Prometheus and the version of a release is not asked for stores:
	// the query would show a Thanos.
	if groups == nil && (!hasStorage || !isRelease(id.Version)) {
		stores, err := offer[map[string][]struct{}](ctx, c, "stores")
		switch {
		case err != nil:
			return Identity{}, err
		case stores != nil:
			id.Kind, id.Engine = Thanos, Engine{}
			return id, nil
		}
	}
	switch {
	case groups != nil:
		id.Kind = Oneprom
	case hasStorage:
		id.Kind = Prometheus
	case strings.HasPrefix(id.Version, "1."):
		id.Kind = Cortex // Prometheus 1.x has no build info
		return id, nil
	default:
		tsdb, err := offer[struct {
			HeadStats *struct{} `json:"headStats"`
		}](ctx, c, "status/tsdb")
		if err != nil {
			return Identity{}, err
		}
		id.Kind = UnknownKind
		if tsdb.HeadStats != nil {
			id.Kind = Prometheus // one that hides its flags
		}
	}
	return c.tryEngine(ctx, id)
}

// isRelease reports whether a version is like those that releases of Prometheus have had since
// they have build info.
func isRelease(version string) bool {
	major, err := strconv.Atoi(strings.SplitN(version, ".", 2)[0])
	return err == nil && major >= 2
}

// offer returns the data of an endpoint that only some kinds have; the zero value if the backend
// has none of that name and form.
func offer[T any](ctx context.Context, c *Client, name string) (data T, err error) {
	resp, err := c.get(ctx, "/api/v1/"+name, nil)
	if err == nil {
		_, err = c.text(resp, nil, &data)
	}
	if Refused(err) || ClassOf(err) == ClassContent {
		return *new(T), nil
	}
	return data, err
}
