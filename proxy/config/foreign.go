package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/oneprom/oneprom/servergroup"
)

const (
	noScraping   = "oneprom does not scrape: remove it"
	noRules      = "rules are not evaluated here: leave them in the Prometheus servers"
	noRelabeling = "samples are shown as they are: only targets are relabeled, by `relabel_configs`"
	noTuning     = "connections need no tuning: remove it"
	gapsFromData = "not needed, gaps are found in the data itself: remove it"
	partialness  = "a group that does not answer is told by `global.partial_response`: warn or error"
	timeRange    = "use `time_range` with min_age, max_age, start, end"
)

// foreign tells, for keys of Prometheus and promxy, what is their place here.
var foreign = map[reflect.Type]map[string]string{
	reflect.TypeFor[Config](): {
		"promxy":              "put its server_groups at the top level",
		"scrape_configs":      "oneprom does not scrape: list the Prometheus servers to ask under `server_groups`",
		"scrape_config_files": noScraping,
		"rule_files":          noRules,
		"alerting":            noRules,
		"remote_write":        "not supported: oneprom writes nothing",
		"remote_read":         "give the server a group of its own under `server_groups`",
		"storage":             "not supported: oneprom stores nothing",
		"otlp":                "not supported: oneprom receives nothing",
		"runtime":             "not supported",
	},
	reflect.TypeFor[Global](): {
		"scrape_interval":     noScraping,
		"scrape_timeout":      noScraping,
		"scrape_protocols":    noScraping,
		"rule_query_offset":   noRules,
		"scrape_failure_log":  noScraping,
		"body_size_limit":     noScraping,
		"sample_limit":        noScraping,
		"label_limit":         noScraping,
		"target_limit":        noScraping,
		"always_scrape_class": noScraping,
	},
	reflect.TypeFor[servergroup.Config](): {
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
		t = reflect.TypeFor[servergroup.Config]()
	}
	if hint := foreign[t][key]; hint != "" {
		return hint
	}
	switch {
	case strings.HasSuffix(key, "_ref"):
		return "there is no secret manager: use the key that ends in _file"
	case strings.HasSuffix(key, discoverySuffix) && t == reflect.TypeFor[servergroup.Config]():
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
