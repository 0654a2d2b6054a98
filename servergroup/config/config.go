// Package config is one entry of `server_groups`: its keys, their defaults, their validation, and
// how it is shown without secrets. What service discovery finds is in package targets.
package config

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	_ "github.com/prometheus/prometheus/discovery/file" // file_sd_configs
	_ "github.com/prometheus/prometheus/discovery/http" // http_sd_configs
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// Group is one entry of `server_groups`. It reads like a scrape_config of
// Prometheus.
type Group struct {
	// Name identifies the group in warnings, metrics and status. Required, unique.
	Name string `yaml:"name"`
	// Region is the failure domain the group lives in.
	Region string `yaml:"region,omitempty"`
	// Kind is what the replicas are, one of transport.Kinds; "" finds it out.
	Kind transport.Kind `yaml:"kind,omitempty"`
	// Labels are injected into every series of the group (partition labels that
	// the data itself lacks). A matcher on one of them decides whether the group
	// is asked, and is not sent.
	Labels map[string]string `yaml:"labels,omitempty"`
	// IntrinsicLabels are the partition labels that the data already carries.
	IntrinsicLabels []string `yaml:"intrinsic_labels,omitempty"`
	// ReplicaLabels are labels by which the series of replicas differ. They are dropped.
	ReplicaLabels []string `yaml:"replica_labels,omitempty"`
	// GroupBy makes a group of the targets for which these labels have the same values,
	// and injects them as partition labels. Without it, all targets are one group.
	GroupBy []string `yaml:"group_by,flow,omitempty"`
	// GroupLimit is how many groups GroupBy may make; ForgetAfter is how long one is
	// missed whose last target has gone.
	GroupLimit  int            `yaml:"group_limit,omitempty"`
	ForgetAfter model.Duration `yaml:"forget_after"`
	// TimeRange bounds the samples that the group is asked for.
	TimeRange TimeRange `yaml:"time_range,omitempty"`
	// Holds are selectors of series that are in this group, and in no other one that does not
	// say so, too. The group may have other series. See Portions.
	Holds []string `yaml:"holds,omitempty"`
	// CopiesOf are the names of entries of which the group has copies: each of its series is one of
	// theirs, but for those that Holds names.
	CopiesOf []string `yaml:"copies_of,flow,omitempty"`
	// Portion is which series are meant; nil for all.
	Portion *Portion `yaml:"-"`

	// Scheme is http or https; PathPrefix comes before /api/v1.
	Scheme     string `yaml:"scheme,omitempty"`
	PathPrefix string `yaml:"path_prefix,omitempty"`
	// Headers and QueryParams are added to each request. Their values may be secret
	// and are never shown.
	Headers     map[string]commoncfg.Secret   `yaml:"headers,omitempty"`
	QueryParams map[string][]commoncfg.Secret `yaml:"query_params,omitempty"`
	// ForwardHeaders are the headers of clients that are passed on to the replicas. No
	// others are.
	ForwardHeaders []string `yaml:"forward_headers,omitempty"`
	// RemoteRead is whether remote read is used; RemoteReadPath is its path
	// below PathPrefix.
	RemoteRead     RemoteRead `yaml:"remote_read,omitempty"`
	RemoteReadPath string     `yaml:"remote_read_path,omitempty"`
	// Replicas is how the replicas' samples become one series.
	Replicas Replicas `yaml:"replicas,omitempty"`
	// Pushdown is whether the replicas are asked to evaluate expressions; "" is what `global`
	// says.
	Pushdown Pushdown `yaml:"pushdown,omitempty"`
	// PartialResponse is what happens to an answer that lacks data of this group; "" is
	// what `global` says.
	PartialResponse PartialResponse `yaml:"partial_response,omitempty"`
	// Settle is how long after its time a sample may still come to the replicas: answers that need younger
	// ones are not cached. 0 finds it out.
	Settle model.Duration `yaml:"settle,omitempty"`
	// Timeout bounds each request to a replica.
	Timeout model.Duration `yaml:"timeout,omitempty"`
	// MaxConcurrency is how many requests may be under way at a replica; further ones
	// wait.
	MaxConcurrency int `yaml:"max_concurrency,omitempty"`

	HTTPClientConfig        commoncfg.HTTPClientConfig `yaml:",inline"`
	ServiceDiscoveryConfigs discovery.Configs          `yaml:"-"`
	// RelabelConfigs change the labels of targets, or drop targets.
	RelabelConfigs []*relabel.Config `yaml:"relabel_configs,omitempty"`
}

// RemoteRead is whether a group is read by remote read.
type RemoteRead string

// The values of remote_read.
const (
	RemoteReadAuto   RemoteRead = "auto"   // where the backend has it
	RemoteReadAlways RemoteRead = "always" // or the replica fails
	RemoteReadNever  RemoteRead = "never"  // the query API only
)

// Replicas is how the samples of a group's replicas become one series.
type Replicas string

// The values of replicas.
const (
	WholeFirst Replicas = "whole_first" // one that missed nothing answers alone
	MergeAll   Replicas = "merge"       // all are merged, always
)

// DefaultGroup holds the defaults of a group.
var DefaultGroup = Group{
	Scheme:           "http",
	RemoteRead:       RemoteReadAuto,
	RemoteReadPath:   transport.DefaultReadPath,
	Replicas:         WholeFirst,
	Timeout:          model.Duration(30 * time.Second),
	MaxConcurrency:   20,
	GroupLimit:       1000,
	ForgetAfter:      model.Duration(5 * time.Minute),
	HTTPClientConfig: commoncfg.DefaultHTTPClientConfig,
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (c *Group) UnmarshalYAML(unmarshal func(any) error) error {
	*c = DefaultGroup
	return discovery.UnmarshalYAMLWithInlineConfigs(c, unmarshal)
}

// SetDirectory makes relative paths of files relative to dir.
func (c *Group) SetDirectory(dir string) {
	c.HTTPClientConfig.SetDirectory(dir)
	if o := c.HTTPClientConfig.OAuth2; o != nil { // upstream forgets this one
		o.ClientCertificateKeyFile = commoncfg.JoinDir(dir, o.ClientCertificateKeyFile)
	}
	c.ServiceDiscoveryConfigs.SetDirectory(dir)
}

// A Path leads to a setting: keys (string) and indices of lists (int).
type Path []any

// String writes a path as in `static_configs[0].targets`.
func (p Path) String() string {
	var b strings.Builder
	for _, step := range p {
		key, isKey := step.(string)
		switch {
		case !isKey:
			fmt.Fprintf(&b, "[%d]", step)
		case !isToken(key) || strings.Contains(key, "."):
			fmt.Fprintf(&b, "[%q]", key)
		case b.Len() == 0:
			b.WriteString(key)
		default:
			b.WriteString("." + key)
		}
	}
	return b.String()
}

// A FieldError is a setting that makes no sense. Path leads to it from the
// group, and to the group itself if it is empty.
type FieldError struct {
	Path Path
	Msg  string
}

func (e *FieldError) Error() string {
	if len(e.Path) == 0 {
		return e.Msg
	}
	return e.Path.String() + ": " + e.Msg
}

// FieldErrors collects what is wrong with a group: a *FieldError each.
type FieldErrors []error

// Add notes a problem with the setting that path leads to.
func (e *FieldErrors) Add(msg string, path ...any) {
	*e = append(*e, &FieldError{Path: path, Msg: msg})
}

// Validate checks what a type cannot say, but for the targets: that is targets.Validate.
// Its error joins a *FieldError for each problem found. It moves a bearer token to where
// HTTP clients look for it.
func (c *Group) Validate() error {
	var errs FieldErrors
	switch {
	case c.Name == "":
		errs.Add("the group has no name: add `name: …`, unique among the groups", "name")
	case !printable(c.Name):
		errs.Add("must be printable: it appears in warnings and headers", "name")
	}
	if !printable(c.Region) {
		errs.Add("must be printable: it appears in warnings and headers", "region")
	}
	if c.Kind != "" && !slices.Contains(transport.Kinds, c.Kind) {
		errs.Add(fmt.Sprintf("%q is none of %v: leave it out, and it is found out", string(c.Kind), transport.Kinds), "kind")
	}
	if c.Timeout <= 0 {
		errs.Add("must be longer than 0s", "timeout")
	}
	if c.MaxConcurrency < 1 {
		errs.Add("must be at least 1", "max_concurrency")
	}
	if c.GroupLimit < 1 {
		errs.Add("must be at least 1", "group_limit")
	}
	c.validateLabels(&errs)
	c.TimeRange.validate(&errs)
	c.validateHolds(&errs)
	c.validateCopies(&errs)
	c.validateRequests(&errs)
	c.validateHTTPClient(&errs)
	if len(c.ServiceDiscoveryConfigs) == 0 {
		errs.Add("the group has no targets: add `static_configs`, `file_sd_configs` or another service discovery")
	}
	return errors.Join(errs...)
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func (c *Group) validateLabels(errs *FieldErrors) {
	seen := map[string]string{}
	use := func(name, key string, path ...any) {
		switch {
		case !model.UTF8Validation.IsValidLabelName(name):
			errs.Add(fmt.Sprintf("%q is not a label name", name), path...)
		case name == model.MetricNameLabel:
			errs.Add(fmt.Sprintf("%s cannot be one of the %s", name, key), path...)
		case seen[name] == key:
			errs.Add(fmt.Sprintf("label %q is there twice", name), path...)
		case seen[name] != "":
			errs.Add(fmt.Sprintf("label %q is in %s too: a label can have one role only", name, seen[name]), path...)
		}
		seen[name] = key
	}
	for _, name := range slices.Sorted(maps.Keys(c.Labels)) {
		use(name, "labels", "labels", name)
		switch value := c.Labels[name]; {
		case value == "":
			errs.Add("an empty value is the same as no label", "labels", name)
		case !utf8.ValidString(value):
			errs.Add("the value is not UTF-8", "labels", name)
		}
	}
	for i, name := range c.IntrinsicLabels {
		use(name, "intrinsic_labels", "intrinsic_labels", i)
	}
	for i, name := range c.ReplicaLabels {
		use(name, "replica_labels", "replica_labels", i)
	}
	for i, name := range c.GroupBy {
		use(name, "group_by", "group_by", i)
		if strings.HasPrefix(name, model.ReservedLabelPrefix) {
			errs.Add("labels that begin with __ do not survive relabeling: copy it to another one by `relabel_configs`", "group_by", i)
		}
	}
}

// ReservedParams are the URL parameters that requests have of themselves.
var ReservedParams = []string{"query", "time", "start", "end", "step", "timeout", "limit", "lookback_delta", "match[]", "metric"}

// validateRequests checks what shapes the requests to replicas.
func (c *Group) validateRequests(errs *FieldErrors) {
	if c.Scheme != "http" && c.Scheme != "https" {
		errs.Add(fmt.Sprintf("%q is neither http nor https", c.Scheme), "scheme")
	}
	switch c.RemoteRead {
	case RemoteReadAuto, RemoteReadAlways, RemoteReadNever:
	case "true", "yes", "on":
		errs.Add("write auto (the default: where the replica has it) or always", "remote_read")
	case "false", "no", "off":
		errs.Add("write never", "remote_read")
	default:
		errs.Add(fmt.Sprintf("%q is none of auto, always, never", string(c.RemoteRead)), "remote_read")
	}
	if c.Replicas != WholeFirst && c.Replicas != MergeAll {
		errs.Add(fmt.Sprintf("%q is neither whole_first nor merge", string(c.Replicas)), "replicas")
	}
	if c.Pushdown != "" && c.Pushdown != PushdownProvable && c.Pushdown != PushdownOff {
		errs.Add(fmt.Sprintf("%q is neither provable nor off", string(c.Pushdown)), "pushdown")
	}
	if c.PartialResponse != "" && c.PartialResponse != PartialWarn && c.PartialResponse != PartialError {
		errs.Add(fmt.Sprintf("%q is neither warn nor error", string(c.PartialResponse)), "partial_response")
	}
	if c.PathPrefix != "" {
		validatePath(errs, c.PathPrefix, "path_prefix")
	}
	validatePath(errs, c.RemoteReadPath, "remote_read_path")
	for _, name := range slices.Sorted(maps.Keys(c.QueryParams)) {
		if slices.Contains(ReservedParams, name) {
			errs.Add("requests set this parameter themselves: remove it", "query_params", name)
		}
	}
	spelt := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		canonical := http.CanonicalHeaderKey(name)
		_, reserved := commoncfg.ReservedHeaders[canonical]
		switch {
		case !isToken(name):
			errs.Add("not the name of an HTTP header", "headers", name)
		case canonical == "Authorization":
			errs.Add("use `basic_auth`, `authorization` or `oauth2` instead", "headers", name)
		case reserved:
			errs.Add("requests set this header themselves: remove it", "headers", name)
		case spelt[canonical] != "":
			errs.Add("the same header as "+spelt[canonical], "headers", name)
		case strings.ContainsFunc(string(c.Headers[name]), func(r rune) bool { return r != '\t' && unicode.IsControl(r) }):
			errs.Add("the value has control characters, which HTTP does not allow", "headers", name)
		}
		spelt[canonical] = name
	}
	c.validateForwarded(errs)
}

// isToken reports whether s can be the name of an HTTP header.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !isTokenChar(r) })
}

func isTokenChar(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

func validatePath(errs *FieldErrors, path, key string) {
	if problem := PathProblem(path); problem != "" {
		errs.Add(problem, key)
	}
}

// PathProblem returns what is wrong with a path that is put before others; "" if nothing is.
func PathProblem(path string) string {
	u, err := url.Parse("http://host" + path)
	switch {
	case !strings.HasPrefix(path, "/"):
		return fmt.Sprintf("%q must start with a slash", path)
	case err != nil || strings.ContainsAny(path, "?#"):
		return "not the path of a URL: parameters belong into `query_params`"
	case strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/api/v1"):
		return "/api/v1 is added to it: leave that out"
	}
	return ""
}

// validateHTTPClient checks what upstream makes the HTTP client of.
func (c *Group) validateHTTPClient(errs *FieldErrors) {
	h := &c.HTTPClientConfig
	if err := h.Validate(); err != nil {
		var path Path
		for _, part := range []struct {
			key string
			set bool
		}{
			{"basic_auth", h.BasicAuth != nil},
			{"authorization", h.Authorization != nil},
			{"oauth2", h.OAuth2 != nil},
			{"proxy_connect_header", h.ProxyConnectHeader != nil},
			{"proxy_from_environment", h.ProxyFromEnvironment},
			{"no_proxy", h.NoProxy != ""},
			{"header", h.HTTPHeaders != nil},
		} {
			if part.set && path == nil && strings.Contains(err.Error(), part.key) {
				path = Path{strings.Replace(part.key, "header", "http_headers", 1)}
			}
		}
		errs.Add(err.Error(), path...)
	}
	if h.HTTPHeaders != nil {
		for _, name := range slices.Sorted(maps.Keys(h.HTTPHeaders.Headers)) {
			if !isToken(name) {
				errs.Add("not the name of an HTTP header", "http_headers", name)
			}
		}
	}
	if t := h.TLSConfig; t.MaxVersion != 0 && t.MinVersion > t.MaxVersion {
		errs.Add("min_version is above max_version", "tls_config", "min_version")
	}
	validateProxy(errs, h.ProxyConfig, "proxy_url")
	if o := h.OAuth2; o != nil {
		validateProxy(errs, o.ProxyConfig, "oauth2", "proxy_url")
		u, err := url.Parse(o.TokenURL)
		switch {
		case o.TokenURL == "": // reported by upstream
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			errs.Add("not the URL of an http or https server", "oauth2", "token_url")
		case u.User != nil:
			errs.Add("credentials belong into `client_id` and `client_secret`", "oauth2", "token_url")
		}
	}
}

func validateProxy(errs *FieldErrors, p commoncfg.ProxyConfig, path ...any) {
	u := p.ProxyURL.URL
	if u == nil || *u == (url.URL{}) {
		return
	}
	if u.Host == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
		errs.Add("not the URL of a proxy, as http://host:port or socks5://host:port", path...)
	}
}

// AsksLike reports whether a URL, asked by either of the groups, is asked for the
// same data. With other credentials, headers or parameters it may well be that
// of another tenant.
func (c *Group) AsksLike(o *Group) bool {
	request := func(c *Group) []any {
		h := c.HTTPClientConfig
		return []any{c.QueryParams, c.Headers, c.ForwardHeaders, h.BasicAuth, h.Authorization, h.OAuth2, h.HTTPHeaders}
	}
	return reflect.DeepEqual(request(c), request(o))
}
