package transport

import (
	"net/url"
	"slices"
	"strconv"
)

// Kind is what a backend is.
type Kind string

// The kinds of backends that are told apart.
const (
	Prometheus      Kind = "prometheus"
	Thanos          Kind = "thanos"
	Mimir           Kind = "mimir"
	Cortex          Kind = "cortex"
	VictoriaMetrics Kind = "victoriametrics"
	InfluxDB        Kind = "influxdb"
	Oneprom         Kind = "oneprom"
	// UnknownKind speaks the Prometheus HTTP API and does not say what it is.
	UnknownKind Kind = "unknown"
)

// Kinds are those that can be configured.
var Kinds = []Kind{Prometheus, Thanos, Mimir, Cortex, VictoriaMetrics, InfluxDB, Oneprom}

// Dialect is how a backend wants to be spoken to, and what it cannot store.
type Dialect struct {
	// Params are sent with every request, unless configured otherwise.
	Params url.Values
	// LookbackParam is the name of the parameter for the lookback; "" is
	// lookback_delta.
	LookbackParam string
	// PartialParam is the name of the parameter by which the backend, which is in
	// front of others, is told whether it may answer without some of them.
	PartialParam string
	// EscapedNames tells that odd characters of label names in selectors are written
	// with a backslash, not in quotes.
	EscapedNames bool
	// NeedsStart tells that lookups without a start are not about all time.
	NeedsStart bool
	// Fronted tells that a front end may sit before it, which caches answers, and moves
	// range queries to multiples of their step.
	Fronted bool
	// ReadPath is where remote read is, if that is not DefaultReadPath.
	ReadPath string
	// Exports tells that the export API returns raw samples.
	Exports bool
	// ReadOnly tells that there is remote read and nothing else of the API.
	ReadOnly bool
	// FindsWithin tells that regular expressions match parts of values, too.
	FindsWithin bool
	// ExternalLabels tells that remote read adds labels which the query API does not.
	ExternalLabels bool
	// WholeReads tells that remote read is refused where its answer would be partial;
	// the query API warns of that instead.
	WholeReads bool
	// LongTerm tells that the backend may hold what others have at first hand: a
	// store that they write to, or what stands in front of them.
	LongTerm bool
	// Lacks is what the backend cannot store.
	Lacks Lacks
}

// Lacks says what kinds of samples a backend drops.
type Lacks struct {
	Histograms   bool // native ones
	StaleMarkers bool
}

// DefaultReadPath is where Prometheus has remote read.
const DefaultReadPath = "/api/v1/read"

// DialectOf returns the dialect of a kind. replicaLabels tells that the group
// names replica labels, so that their series can be merged here.
func DialectOf(k Kind, replicaLabels bool) Dialect {
	switch k {
	case Thanos:
		// Its own merge loses samples.
		return Dialect{
			Params:       url.Values{"dedup": {strconv.FormatBool(!replicaLabels)}, "max_source_resolution": {"0s"}},
			PartialParam: "partial_response",
			Fronted:      true,
			LongTerm:     true,
		}
	case Mimir, Cortex:
		return Dialect{Fronted: true, LongTerm: true}
	case VictoriaMetrics:
		return Dialect{
			Params:        url.Values{"nocache": {"1"}, "latency_offset": {"0"}},
			LookbackParam: "max_lookback",
			EscapedNames:  true,
			NeedsStart:    true,
			Fronted:       true,
			Exports:       true,
			LongTerm:      true,
			Lacks:         Lacks{Histograms: true},
		}
	case InfluxDB:
		return Dialect{
			ReadPath:    "/api/v1/prom/read",
			ReadOnly:    true,
			FindsWithin: true,
			LongTerm:    true,
			Lacks:       Lacks{Histograms: true, StaleMarkers: true},
		}
	case Oneprom:
		return Dialect{WholeReads: true, LongTerm: true}
	}
	return Dialect{ExternalLabels: true, Fronted: k == UnknownKind}
}

// As returns the client that speaks a dialect.
func (c *Client) As(d Dialect) *Client {
	out := *c
	out.dialect = d
	out.Params = url.Values{}
	for _, params := range []url.Values{d.Params, c.Params} {
		for name, values := range params {
			out.Params[name] = slices.Clone(values)
		}
	}
	if d.ReadPath != "" && c.ReadPath == DefaultReadPath {
		out.ReadPath = d.ReadPath
	}
	return &out
}

// AllowPartial returns the client that lets the backend, or does not let it,
// answer without some of what is behind it.
func (c *Client) AllowPartial(allow bool) *Client {
	name := c.dialect.PartialParam
	if _, configured := c.Params[name]; name == "" || configured {
		return c
	}
	text := "false"
	if allow {
		text = "true"
	}
	d := c.dialect
	d.Params = url.Values{name: {text}}
	return c.As(d)
}
