package migrate

// Why settings have no place in oneprom, and what does their work.

const (
	noScraping = "oneprom does not scrape: this stays in the Prometheus servers."
	noTuning   = "Not needed: connections are kept as long as servers keep them, and max_concurrency bounds how many there are."
)

// topReasons are those of what stands at the top level.
var topReasons = map[string]string{
	"scrape_configs":      noScraping,
	"scrape_config_files": noScraping,
	"remote_read":         "A store that a Prometheus reads from is a group of its own here. If it holds what has left the Prometheus, give it `time_range: {min_age: …}`.",
	"storage":             "oneprom stores nothing.",
	"otlp":                "oneprom receives nothing.",
	"runtime":             "oneprom sets GOGC itself; the environment variables GOGC and GOMEMLIMIT are heeded.",
	"tls_server_config":   "Put this into a file of its own, for --web.config.file.",
}

// staying is what a Prometheus goes on to do itself.
var staying = map[string]string{
	"scrape_configs":      "stay in the server.",
	"scrape_config_files": "stay in the server.",
	"rule_files":          "stay in the server. What oneprom is to evaluate, over all servers, is a file of its own.",
	"alerting":            "stays in the server.",
	"remote_write":        "stays in the server.",
	"storage":             "stays in the server.",
	"otlp":                "stays in the server.",
	"runtime":             "stays in the server.",
}

var globalReasons = map[string]string{
	"scrape_interval":                    noScraping,
	"scrape_timeout":                     noScraping,
	"scrape_protocols":                   noScraping,
	"scrape_failure_log_file":            noScraping,
	"scrape_native_histograms":           noScraping,
	"convert_classic_histograms_to_nhcb": noScraping,
	"always_scrape_classic_histograms":   noScraping,
	"body_size_limit":                    noScraping,
	"sample_limit":                       noScraping,
	"target_limit":                       noScraping,
	"label_limit":                        noScraping,
	"label_name_length_limit":            noScraping,
	"label_value_length_limit":           noScraping,
	"keep_dropped_targets":               noScraping,
	"metric_name_validation_scheme":      noScraping,
	"metric_name_escaping_scheme":        noScraping,
	"extra_scrape_metrics":               noScraping,
	"runtime":                            topReasons["runtime"],
}

var promxyReasons = map[string]string{
	"alert_templates": "Alerts link to oneprom's own page, as those of Prometheus do.",
}

var groupReasons = map[string]string{
	"anti_affinity":               "Not needed: the scrape interval of each series is found in its data, and only real gaps are filled.",
	"anti_affinity_dynamic":       "Not needed: the scrape interval of each series is found in its data, and only real gaps are filled.",
	"prefer_max":                  "No equal: the first replica that missed nothing answers, and no value is made up from those of two.",
	"metrics_relabel_configs":     "No equal: labels of series are not rewritten. Do it in the servers (write_relabel_configs, external_labels), or give what tells the group apart by `labels`.",
	"label_filter":                "No equal, and seldom needed: matchers on the group's `labels` decide whether it is asked. If the data itself has labels that tell the groups apart, name them in `intrinsic_labels`.",
	"inject_matchers":             "NO EQUAL, AND WITHOUT IT THE GROUP HAS MORE SERIES THAN BEFORE. VictoriaMetrics has the parameters extra_label and extra_filters[], for query_params.",
	"native_histogram":            "Not needed: native histograms are read as they are, by remote read.",
	"align_query_range_with_step": "Not needed: steps that a server moves are found and asked for where they are wanted.",
	"max_idle_conns":              noTuning,
	"max_idle_conns_per_host":     noTuning,
	"idle_conn_timeout":           noTuning,
}

var clientReasons = map[string]string{
	"dial_timeout":   "Not needed: a server that does not answer is found by probes, and another replica is asked meanwhile.",
	"dial_network":   "No equal: both families of addresses are tried.",
	"fallback_delay": "No equal: that of Go, 300ms.",
	"sigv4":          "No equal: put a proxy that signs requests (as aws-sigv4-proxy) before the store.",
}
