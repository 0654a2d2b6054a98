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

	"github.com/oneprom/oneprom/servergroup"
)

// maxSize bounds a configuration file, in bytes.
const maxSize = 16 << 20

// Config is a configuration file.
type Config struct {
	Global       Global               `yaml:"global"`
	ServerGroups []servergroup.Config `yaml:"server_groups"`
	QueryRules   []QueryRule          `yaml:"query_rules,omitempty"`
	// Tenants are those who are not shown everything, and administrators. None: everybody
	// is shown everything.
	Tenants []Tenant `yaml:"tenants,omitempty"`
	// Tracing is Prometheus' own. Nil: there are no traces.
	Tracing *upstream.TracingConfig `yaml:"tracing,omitempty"`
}

// Global holds what concerns all server groups.
type Global struct {
	// EvaluationInterval is the step of subqueries that name none.
	EvaluationInterval model.Duration `yaml:"evaluation_interval,omitempty"`
	// ExternalLabels are added by /federate.
	ExternalLabels labels.Labels `yaml:"external_labels,omitempty"`
	// PartialResponse says what becomes of a query that a group did not answer.
	PartialResponse servergroup.PartialResponse `yaml:"partial_response,omitempty"`
	// Pushdown says whether backends are asked to evaluate, where a group does not
	// say it.
	Pushdown servergroup.Pushdown `yaml:"pushdown,omitempty"`
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
	PartialResponse:    servergroup.PartialWarn,
	Pushdown:           servergroup.PushdownProvable,
	ReadyWhen:          ReadyNone,
}

// Groups are the server groups with what they take over from `global`.
func (c *Config) Groups() []servergroup.Config {
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
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
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

// setDirectory makes relative paths relative to dir.
func (c *Config) setDirectory(dir string) {
	c.Global.QueryLogFile = commoncfg.JoinDir(dir, c.Global.QueryLogFile)
	for i := range c.ServerGroups {
		c.ServerGroups[i].SetDirectory(dir)
	}
	if c.Tracing != nil {
		c.Tracing.SetDirectory(dir)
	}
}

// Parse reads a configuration; name stands for the file in errors. The error
// joins one error for each problem, ordered by line, as in
// `oneprom.yml:12: server_groups[1].label: unknown key; did you mean "labels"?`.
func Parse(data []byte, name string) (cfg *Config, err error) {
	// The YAML library panics on some malformed input.
	defer func() {
		if recover() != nil {
			cfg, err = nil, fmt.Errorf("%s: cannot be read as YAML", name)
		}
	}()
	if len(data) > maxSize {
		return nil, fmt.Errorf("%s: more than %d MiB", name, maxSize>>20)
	}
	c := &checker{file: name}
	cfg = c.read(data)
	if err := c.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// String writes the configuration as YAML, defaults included and secrets
// redacted.
func (c *Config) String() string {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(c.redacted()); err != nil {
		return fmt.Sprintf("# the configuration cannot be shown: %s\n", err)
	}
	return b.String()
}

// redacted is the configuration without those secrets whose types do not hide them:
// the headers for traces.
func (c *Config) redacted() *Config {
	if c.Tracing == nil || len(c.Tracing.Headers) == 0 {
		return c
	}
	shown, tracing := *c, *c.Tracing
	tracing.Headers = make(map[string]string, len(c.Tracing.Headers))
	for name := range c.Tracing.Headers {
		tracing.Headers[name] = "<secret>"
	}
	shown.Tracing = &tracing
	return &shown
}
