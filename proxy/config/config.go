// Package config reads the configuration file of oneprom, strictly: whatever is
// wrong is an error with file, line, key and what to do about it.
package config

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	upstream "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"gopkg.in/yaml.v3"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

// maxSize bounds a configuration file, in bytes.
const maxSize = 16 << 20

// Config is a configuration file.
type Config struct {
	Global       Global              `yaml:"global"`
	ServerGroups []groupconfig.Group `yaml:"server_groups"`
	QueryRules   []QueryRule         `yaml:"query_rules,omitempty"`
	// Tenants are those who are not shown everything, and administrators. None: everybody
	// is shown everything.
	Tenants []Tenant `yaml:"tenants,omitempty"`
	Rules   Rules    `yaml:"rules,omitempty"`
	// RuleFiles are paths and patterns of paths, as in Prometheus.
	RuleFiles []string `yaml:"rule_files,omitempty"`
	// Alerting and RemoteWrite are Prometheus' own: where alerts go to, and the samples
	// that rules make.
	Alerting    upstream.AlertingConfig       `yaml:"alerting,omitempty"`
	RemoteWrite []*upstream.RemoteWriteConfig `yaml:"remote_write,omitempty"`
	// Tracing is Prometheus' own. Nil: there are no traces.
	Tracing *upstream.TracingConfig `yaml:"tracing,omitempty"`
	// Cache is where answers are kept beside memory. Nil: nowhere.
	Cache *Cache `yaml:"cache,omitempty"`

	places places
}

// Global holds what concerns all server groups.
type Global struct {
	// EvaluationInterval is the step of subqueries that name none, and how often rules are
	// evaluated whose group does not say it.
	EvaluationInterval model.Duration `yaml:"evaluation_interval,omitempty"`
	// RuleQueryOffset is how far in the past rules are evaluated.
	RuleQueryOffset model.Duration `yaml:"rule_query_offset,omitempty"`
	// ExternalLabels are added by /federate, to alerts and by remote write.
	ExternalLabels labels.Labels `yaml:"external_labels,omitempty"`
	// PartialResponse says what becomes of a query that a group did not answer.
	PartialResponse groupconfig.PartialResponse `yaml:"partial_response,omitempty"`
	// Pushdown says whether backends are asked to evaluate, where a group does not
	// say it.
	Pushdown groupconfig.Pushdown `yaml:"pushdown,omitempty"`
	// ReadyWhen says which groups must answer before /-/ready says yes for the first time.
	ReadyWhen ReadyWhen `yaml:"ready_when,omitempty"`
	// QueryLogFile is where queries are logged that were answered; "" is nowhere.
	QueryLogFile string `yaml:"query_log_file,omitempty"`
	// QueryLogMinDuration is how long a query must have taken to be logged.
	QueryLogMinDuration model.Duration `yaml:"query_log_min_duration,omitempty"`
	// TenantHeader is the header that names the tenant; "" is none.
	TenantHeader string `yaml:"tenant_header,omitempty"`
}

// ReadyWhen says of how many groups a replica must have answered.
type ReadyWhen string

// The values of ready_when.
const (
	ReadyNone ReadyWhen = "none"
	ReadyAny  ReadyWhen = "any"
	ReadyAll  ReadyWhen = "all"
)

// DefaultGlobal holds the defaults of `global`.
var DefaultGlobal = Global{
	EvaluationInterval: model.Duration(time.Minute),
	PartialResponse:    groupconfig.PartialWarn,
	Pushdown:           groupconfig.PushdownProvable,
	ReadyWhen:          ReadyNone,
}

// Groups are the server groups with what they take over from `global`.
func (c *Config) Groups() []groupconfig.Group {
	groups := slices.Clone(c.ServerGroups)
	for i := range groups {
		groups[i].Pushdown = cmp.Or(groups[i].Pushdown, c.Global.Pushdown)
		groups[i].PartialResponse = cmp.Or(groups[i].PartialResponse, c.Global.PartialResponse)
	}
	return groups
}

// Load reads a configuration file. Relative paths in it are relative to its
// directory. The error joins one error for each problem.
func Load(path string) (*Config, error) {
	data, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	cfg, err := Parse(data, path)
	if err != nil {
		return nil, err
	}
	cfg.setDirectory(filepath.Dir(path))
	return cfg, nil
}

// ReadFile reads as much of a file as a configuration may have, and a byte more if
// there is one.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSize+1))
}

// setDirectory makes relative paths relative to dir.
func (c *Config) setDirectory(dir string) {
	c.Global.QueryLogFile = commoncfg.JoinDir(dir, c.Global.QueryLogFile)
	for i := range c.ServerGroups {
		c.ServerGroups[i].SetDirectory(dir)
	}
	if c.Tracing != nil {
		c.Tracing.SetDirectory(dir)
	}
	if c.Cache != nil {
		c.Cache.setDirectory(dir)
	}
	for i, file := range c.RuleFiles {
		c.RuleFiles[i] = commoncfg.JoinDir(dir, file)
	}
	c.Alerting.SetDirectory(dir)
	for _, rw := range c.RemoteWrite {
		rw.SetDirectory(dir)
	}
}

// Parse reads a configuration; name stands for the file in errors. The error
// joins one error for each problem, ordered by line, as in
// `oneprom.yml:12: server_groups[1].label: unknown key; did you mean "labels"?`.
func Parse(data []byte, name string) (cfg *Config, err error) {
	err = guarded(data, name, func(c *checker) { cfg = c.read(data) })
	if err != nil {
		return nil, err
	}
	return cfg, nil
}

// Document reads a file as the YAML that it is, within the bounds that Parse sets, and
// with aliases and merged mappings replaced by what they stand for.
func Document(data []byte, name string) (root *yaml.Node, err error) {
	err = guarded(data, name, func(c *checker) { root = c.parse(data) })
	if err != nil {
		return nil, err
	}
	return resolved(root), nil
}

// guarded has a file read, and joins the problems that were found.
func guarded(data []byte, name string, read func(*checker)) (err error) {
	// The YAML library panics on some malformed input.
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("%s: cannot be read as YAML", name)
		}
	}()
	if len(data) > maxSize {
		return fmt.Errorf("%s: more than %d MiB", name, maxSize>>20)
	}
	c := &checker{file: name}
	read(c)
	return c.err()
}

// String writes the configuration as YAML, defaults included and secrets
// redacted.
func (c *Config) String() string {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	var n yaml.Node
	err := n.Encode(c.redacted())
	groupconfig.Redact(&n) // of the Alertmanagers' discovery, and of remote_write
	if err == nil {
		err = enc.Encode(&n)
	}
	if err != nil {
		return fmt.Sprintf("# the configuration cannot be shown: %s\n", err)
	}
	return b.String()
}

// redacted is the configuration without those secrets whose types do not hide them:
// headers.
func (c *Config) redacted() *Config {
	shown := *c
	shown.RemoteWrite = redactedTargets(c.RemoteWrite)
	if c.Tracing != nil {
		tracing := *c.Tracing
		tracing.Headers = redactedHeaders(tracing.Headers)
		shown.Tracing = &tracing
	}
	return &shown
}
