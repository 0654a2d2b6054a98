package transport

import (
	"net/url"
	"slices"
	"strconv"
)

// Kind is what a backend is.
type Kind string

// The kinds of backends.
const (
	Prometheus      Kind = "prometheus"
	Thanos          Kind = "thanos"
	Mimir           Kind = "mimir"
	Cortex          Kind = "cortex"
	VictoriaMetrics Kind = "victoriametrics"
	InfluxDB        Kind = "influxdb"
	Oneprom         Kind = "oneprom"
	// UnknownKind is a backend with the Prometheus HTTP API that does not show what it is.
	UnknownKind Kind = "unknown"
)

// Kinds lists the kinds that can be configured.
var Kinds = []Kind{Prometheus, Thanos, Mimir, Cortex, VictoriaMetrics, InfluxDB, Oneprom}

// Dialect is in which ways a backend differs from a Prometheus: how it wants to be asked, and
// what it cannot store.
type Dialect struct {
	// Params are sent with every request, unless configured otherwise.
	Params url.Values
	// LookbackParam is the name of the parameter for the lookback; "" stands for
	// lookback_delta.
	LookbackParam string
	// PartialParam is the name of the parameter that allows a backend in front of others to
	// leave out those that fail; "" if it has none.
	PartialParam string
	// EscapedNames reports whether odd characters of label names in selectors are written
	// with a backslash, not in quotes.
	EscapedNames bool
	// ReservedName is a label name that selectors cannot be about, as a matcher on it means
	// something else; "" if there is none.
	ReservedName string
	// NamesNone reports whether __name__ is listed as a label name where there is no series.
	NamesNone bool
	// Current reports whether a selector means there what it means here, in any case: its engine
	// is known to be that of a Prometheus 3. A dot matches line breaks, and any UTF-8 is a name.
	Current bool
	// NeedsStart reports whether lookups without a start are not about all time.
	NeedsStart bool
	// WholeDays reports whether lookups may be answered for whole days, whatever their window.
	WholeDays bool
	// Fronted reports whether there may be a front end that caches responses and aligns range
	// queries to multiples of their step.
	Fronted bool
	// ReadPath is the path of remote read, if that is not DefaultReadPath.
	ReadPath string
	// Exports reports whether there is an export API, which returns raw samples.
	Exports bool
	// ReadOnly reports whether there is remote read and nothing else of the API.
	ReadOnly bool
	// UnanchoredRegexps reports whether regular expressions also match parts of values.
	UnanchoredRegexps bool
	// RegexpShortcuts reports whether some regular expressions are taken for simpler ones that
	// match other values; see portable.
	RegexpShortcuts bool
	// ExternalLabels reports whether remote read adds labels that the query API does not.
	ExternalLabels bool
	// RefusesPartialReads reports whether remote read fails if data is missing; the query
	// API warns of that instead.
	RefusesPartialReads bool
	// LongTerm reports whether the backend may hold data of other backends, which write to it
	// or which it queries.
	LongTerm bool
	// Lacks is what the backend cannot store.
	Lacks Lacks
}

// Lacks are the kinds of samples that a backend drops.
type Lacks struct {
	Histograms   bool // native ones
	StaleMarkers bool
}

// DefaultReadPath is the path of remote read of a Prometheus.
const DefaultReadPath = "/api/v1/read"

// DialectOf returns the dialect of a kind. replicaLabels reports whether the group has
// replica labels configured, so that series which differ by them can be merged here.
func DialectOf(k Kind, replicaLabels bool) Dialect {
	switch k {
	case Thanos:
		// With replica labels, series are merged here: Thanos' own merge loses samples.
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
			Params:          url.Values{"nocache": {"1"}, "latency_offset": {"0"}},
			LookbackParam:   "max_lookback",
			EscapedNames:    true,
			ReservedName:    "__graphite__",
			NamesNone:       true,
			NeedsStart:      true,
			WholeDays:       true,
			Fronted:         true,
			Exports:         true,
			RegexpShortcuts: true,
			LongTerm:        true,
			Lacks:           Lacks{Histograms: true},
		}
	case InfluxDB:
		return Dialect{
			ReadPath:          "/api/v1/prom/read",
			ReadOnly:          true,
			UnanchoredRegexps: true,
			LongTerm:          true,
			Lacks:             Lacks{Histograms: true, StaleMarkers: true},
		}
	case Oneprom:
		return Dialect{RefusesPartialReads: true, LongTerm: true}
	}
	d := Dialect{ExternalLabels: true}
	if k == UnknownKind {
		// What hides it may hide a Thanos or a VictoriaMetrics. Others ignore the parameters.
		hidden := DialectOf(Thanos, replicaLabels)
		d.Params, d.PartialParam, d.Fronted, d.WholeDays = hidden.Params, hidden.PartialParam, true, true
		d.Params.Set("nocache", "1")
	}
	return d
}

// As returns a client that speaks the dialect. Configured parameters take precedence.
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

// AllowPartial returns a client that allows the backend, or forbids it, to leave out backends
// behind it that fail. It is c if the backend has no such parameter or if that is configured.
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
