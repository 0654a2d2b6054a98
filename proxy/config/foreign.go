package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

const (
	noScraping   = "oneprom does not scrape: remove it"
	noRelabeling = "samples are shown as they are: only targets are relabeled, by `relabel_configs`"
	noTuning     = "connections need no tuning: remove it"
	gapsFromData = "not needed, gaps are found in the data itself: remove it"
	partialness  = "a group that does not answer is told by `global.partial_response`: warn or error"
	webFile      = "it belongs into the file of --web.config.file"
	timeRange    = "use `time_range` with min_age, max_age, start, end"
)

// foreign names, for keys of Prometheus and promxy, their place here.
var foreign = map[reflect.Type]map[string]string{
	reflect.TypeFor[Config](): {
		"promxy":              "put its server_groups at the top level, as `oneprom migrate` does",
		"scrape_configs":      "oneprom does not scrape: list the Prometheus servers to ask under `server_groups`",
		"scrape_config_files": noScraping,
		"remote_read":         "give the server a group of its own under `server_groups`",
		"storage":             "not supported: oneprom stores nothing",
		"otlp":                "not supported: oneprom receives nothing",
		"runtime":             "not supported",
		"users":               "users with passwords belong into `basic_auth_users` of the file of --web.config.file; `users` of an entry of `tenants` says which of them are that tenant",
		"basic_auth_users":    webFile,
		"tls_server_config":   webFile,
		"http_server_config":  webFile,
	},
	reflect.TypeFor[Global](): {
		"scrape_interval":     noScraping,
		"scrape_timeout":      noScraping,
		"scrape_protocols":    noScraping,
		"scrape_failure_log":  noScraping,
		"body_size_limit":     noScraping,
		"sample_limit":        noScraping,
		"label_limit":         noScraping,
		"target_limit":        noScraping,
		"always_scrape_class": noScraping,
	},
	reflect.TypeFor[groupconfig.Group](): {
		"job_name":                    "use `name`",
		"url":                         "use `scheme`, `path_prefix` and `static_configs: [{targets: ['host:port']}]`",
		"metrics_path":                "use `path_prefix`, which comes before /api/v1",
		"params":                      "use `query_params`",
		"external_labels":             "use `labels` for labels that the group's data lacks, `replica_labels` for those that tell replicas apart",
		"scrape_interval":             noScraping,
		"scrape_timeout":              "use `timeout`",
		"scrape_protocols":            noScraping,
		"honor_labels":                noScraping,
		"honor_timestamps":            noScraping,
		"sample_limit":                noScraping,
		"metric_relabel_configs":      noRelabeling,
		"metrics_relabel_configs":     noRelabeling,
		"anti_affinity":               gapsFromData,
		"anti_affinity_dynamic":       gapsFromData,
		"ignore_error":                partialness,
		"downgrade_error":             partialness,
		"prefer_max":                  "not supported: values are never made up from those of two replicas",
		"relative_time_range":         timeRange,
		"absolute_time_range":         timeRange,
		"http_client":                 "put what is below it right into the group",
		"label_filter":                "use `labels` or `intrinsic_labels`: matchers on them decide whether the group is asked",
		"inject_matchers":             "not supported",
		"native_histogram":            "not needed, native histograms are read as they are: remove it",
		"read_recent":                 timeRange,
		"required_matchers":           "not supported",
		"max_idle_conns":              noTuning,
		"max_idle_conns_per_host":     noTuning,
		"idle_conn_timeout":           noTuning,
		"align_query_range_with_step": "not needed, steps are steps: remove it",
	},
}

// foreignKey returns the place here of a key of Prometheus or promxy, or "".
func foreignKey(t reflect.Type, key string) string {
	if t == groupType() {
		t = reflect.TypeFor[groupconfig.Group]()
	}
	if hint := foreign[t][key]; hint != "" {
		return hint
	}
	switch {
	case strings.HasSuffix(key, "_ref"):
		return "there is no secret manager: use the key that ends in _file"
	case strings.HasSuffix(key, discoverySuffix) && slices.Contains(keysOf(t), "static_configs"):
		return noDiscovery(key)
	}
	return ""
}

// discoverySuffix ends the keys of service discoveries.
const discoverySuffix = "_sd_configs"

// noDiscovery says what to do about a service discovery that is not registered: it is
// misspelt, or was left out when the binary was built.
func noDiscovery(key string) string {
	var kinds []string
	for _, name := range keysOf(groupType()) {
		if kind, is := strings.CutSuffix(name, discoverySuffix); is {
			kinds = append(kinds, kind)
		}
	}
	if near := nearest(strings.TrimSuffix(key, discoverySuffix), kinds); near != "" {
		return fmt.Sprintf("did you mean %q?", near+discoverySuffix)
	}
	return "this binary has no such service discovery, only those of " + strings.Join(kinds, ", ") + ": docs/discovery.md says how to build one with others"
}

// prometheusKeys are those that only a file of Prometheus has.
var prometheusKeys = []string{"scrape_configs", "scrape_config_files"}

// IsPrometheus reports whether the root of a file is one of a configuration of Prometheus.
func IsPrometheus(root *yaml.Node) bool { return firstOf(root, prometheusKeys) != nil }

// strangers are files that are given by mistake: what they are, what to do with them, and
// the keys of which they have one.
var strangers = []struct {
	what, advice string
	keys         []string
}{
	{"a configuration of promxy", "`oneprom migrate FILE` writes one of oneprom", []string{"promxy"}},
	{"a configuration of Prometheus", "oneprom does not scrape, but asks the servers that are listed under `server_groups`; `oneprom migrate FILE` writes a file to begin with", prometheusKeys},
	{"a configuration of Mimir or Cortex", "list its query frontend under `server_groups`", []string{"blocks_storage", "multitenancy_enabled", "ingester", "distributor"}},
	{"a list of endpoints of Thanos", "list the Prometheus servers behind its sidecars, or a Thanos Query, under `server_groups`", []string{"endpoints"}},
	{"a file of rules", "`oneprom check rules FILE` checks it, and `rule_files` of a configuration names it", []string{"groups"}},
	{"a configuration of Alertmanager", "that of oneprom begins with `server_groups`: see config.example.yaml", []string{"receivers"}},
	{"a web configuration", "it is for --web.config.file", []string{"tls_server_config", "http_server_config", "basic_auth_users"}},
}

// stranger says that a file is one of another program. What is wrong with its keys would
// hide that.
func (c *checker) stranger(root *yaml.Node) bool {
	n := deref(root)
	if n.Kind == yaml.SequenceNode && len(n.Content) > 0 && firstOf(n.Content[0], []string{"targets"}) != nil {
		c.add(root, nil, "this is a list of targets, not a configuration: name the file in `file_sd_configs` of a server group")
		return true
	}
	if firstOf(n, []string{"server_groups"}) != nil {
		return false
	}
	for _, s := range strangers {
		key := firstOf(n, s.keys)
		if key == nil {
			continue
		}
		c.add(key, groupconfig.Path{key.Value}, "this is %s: %s", s.what, strings.ReplaceAll(s.advice, "FILE", c.file))
		return true
	}
	return false
}

// firstOf returns the first of the keys that is there, if n is a mapping that has one.
func firstOf(n *yaml.Node, keys []string) *yaml.Node {
	for _, key := range keys {
		if found, _ := lookup(n, key); found != nil {
			return found
		}
	}
	return nil
}
