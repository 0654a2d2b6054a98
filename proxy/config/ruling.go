package config

import (
	"maps"
	"path/filepath"
	"slices"

	"github.com/prometheus/common/model"
	upstream "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/relabel"
	"gopkg.in/yaml.v3"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

// Rules says how rules are evaluated.
type Rules struct {
	// PartialResponse says what becomes of the evaluation of a rule that a server
	// group did not answer.
	PartialResponse groupconfig.PartialResponse `yaml:"partial_response,omitempty"`
	// Groups are the groups of rules, by name, for which something else holds.
	Groups map[string]RuleGroup `yaml:"groups,omitempty"`
	// OwnAlerts says whether there are alerts for rules that cannot be evaluated, and
	// for samples that are not written.
	OwnAlerts bool `yaml:"own_alerts"`
}

// RuleGroup says how the rules of one group are evaluated.
type RuleGroup struct {
	PartialResponse groupconfig.PartialResponse `yaml:"partial_response,omitempty"`
}

// DefaultRules holds the defaults of `rules`.
var DefaultRules = Rules{PartialResponse: groupconfig.PartialError, OwnAlerts: true}

// PartialResponseOf says what becomes of the evaluation of a rule of a group of rules
// that a server group did not answer.
func (r *Rules) PartialResponseOf(ruleGroup string) groupconfig.PartialResponse {
	if said := r.Groups[ruleGroup].PartialResponse; said != "" {
		return said
	}
	return r.PartialResponse
}

// Upstream is what upstream's notifier and remote write read of a configuration.
func (c *Config) Upstream() *upstream.Config {
	out := &upstream.Config{AlertingConfig: c.Alerting}
	out.GlobalConfig.ExternalLabels = c.Global.ExternalLabels
	out.GlobalConfig.MetricNameValidationScheme = model.UTF8Validation
	for _, rw := range c.RemoteWrite {
		silent := *rw
		silent.MetadataConfig.Send = false // there is none: it comes from scraping
		out.RemoteWriteConfigs = append(out.RemoteWriteConfigs, &silent)
	}
	return out
}

// readRuling decodes and checks the sections about rules that are clean.
func (c *checker) readRuling(root *yaml.Node, cfg *Config) {
	section := func(name string, into any) (n *yaml.Node, ok bool) {
		key, n := lookup(root, name)
		if n == nil || isNull(n) || !c.clean(name) {
			return nil, false
		}
		if err := n.Decode(into); err != nil {
			c.add(key, groupconfig.Path{name}, "%s", plain(err))
			return nil, false
		}
		return n, true
	}
	if n, ok := section("rules", &cfg.Rules); ok {
		c.checkRules(n, &cfg.Rules)
	}
	if n, ok := section("rule_files", &cfg.RuleFiles); ok {
		for i, pattern := range cfg.RuleFiles {
			if _, err := filepath.Match(pattern, ""); err != nil || pattern == "" {
				c.add(locate(n, groupconfig.Path{i}, n), groupconfig.Path{"rule_files", i}, "not the path of a file, or of files with *, ? and […]")
			}
		}
	}
	if n, ok := section("alerting", &cfg.Alerting); ok {
		c.checkRelabeling(n, groupconfig.Path{"alerting"}, "alert_relabel_configs", cfg.Alerting.AlertRelabelConfigs)
		for i, am := range cfg.Alerting.AlertmanagerConfigs {
			path := groupconfig.Path{"alertmanagers", i}
			at := locate(n, path, n)
			_, list := lookup(n, "alertmanagers")
			c.checkRelabeling(deref(list).Content[i], append(groupconfig.Path{"alerting"}, path...), "relabel_configs", am.RelabelConfigs)
			c.checkRelabeling(deref(list).Content[i], append(groupconfig.Path{"alerting"}, path...), "alert_relabel_configs", am.AlertRelabelConfigs)
			c.checkAlertmanagers(deref(list).Content[i], append(groupconfig.Path{"alerting"}, path...), am)
			if len(am.ServiceDiscoveryConfigs) == 0 {
				c.add(at, append(groupconfig.Path{"alerting"}, path...), "no Alertmanager can be found: add `static_configs: [{targets: ['host:port']}]` or another *_sd_configs")
			}
		}
	}
	if n, ok := section("remote_write", &cfg.RemoteWrite); ok {
		c.checkRemoteWrite(deref(n), cfg.RemoteWrite)
	}
}

func (c *checker) checkRules(n *yaml.Node, r *Rules) {
	partial := func(said groupconfig.PartialResponse, path ...any) {
		if said != "" && said != groupconfig.PartialWarn && said != groupconfig.PartialError {
			c.add(locate(n, path, n), append(groupconfig.Path{"rules"}, path...), "%q is neither warn nor error", string(said))
		}
	}
	partial(r.PartialResponse, "partial_response")
	for _, name := range slices.Sorted(maps.Keys(r.Groups)) {
		partial(r.Groups[name].PartialResponse, "groups", name, "partial_response")
	}
}

// checkRelabeling says what is wrong with the relabelling below a key of n, which path
// leads to.
func (c *checker) checkRelabeling(n *yaml.Node, path groupconfig.Path, key string, list []*relabel.Config) {
	for i, r := range list {
		if err := r.Validate(model.UTF8Validation); err != nil {
			below := groupconfig.Path{key, i}
			c.add(locate(n, below, n), append(slices.Clone(path), below...), "%s", err)
		}
	}
}

// checkRemoteWrite finds what upstream would only find when it begins to write.
func (c *checker) checkRemoteWrite(list *yaml.Node, targets []*upstream.RemoteWriteConfig) {
	names, seen := map[string]int{}, map[string]int{}
	for i, rw := range targets {
		n, path := list.Content[i], groupconfig.Path{"remote_write", i}
		c.checkRelabeling(n, path, "write_relabel_configs", rw.WriteRelabelConfigs)
		text, err := yaml.Marshal(rw)
		if err != nil {
			c.add(n, path, "%s", plain(err))
			continue
		}
		first, twice := seen[string(text)]
		named, taken := names[rw.Name]
		switch {
		case rw.Name != "" && taken:
			at := locate(n, groupconfig.Path{"name"}, n)
			c.add(at, append(path, "name"), "%q is the name of remote_write[%d] too: rename one of them", rw.Name, named)
		case twice:
			c.add(n, path, "the same as remote_write[%d]: remove one, or give each a name", first)
		}
		names[rw.Name], seen[string(text)] = i, i
	}
}

// redactedTargets are targets without the values of headers, whose type does not hide
// them.
func redactedTargets(targets []*upstream.RemoteWriteConfig) []*upstream.RemoteWriteConfig {
	out := slices.Clone(targets)
	for i, rw := range out {
		shown := *rw
		shown.Headers = redactedHeaders(rw.Headers)
		out[i] = &shown
	}
	return out
}

// redactedHeaders are headers without their values.
func redactedHeaders(headers map[string]string) map[string]string {
	if len(headers) == 0 {
		return headers
	}
	out := make(map[string]string, len(headers))
	for name := range headers {
		out[name] = "<secret>"
	}
	return out
}
