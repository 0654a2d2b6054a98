package replica

import (
	"time"

	"github.com/prometheus/common/model"
)

const (
	// unknownSettling is how late samples may come to a server that does not show its configuration, as a store
	// that others write to.
	unknownSettling = 10 * time.Minute
	// leastSettling is how late they may come at least: requests take their time, and clocks differ.
	leastSettling = 30 * time.Second
)

// configuration is what matters of the configuration of a Prometheus.
type configuration struct {
	Global struct {
		ExternalLabels     map[string]string `yaml:"external_labels"`
		ScrapeInterval     model.Duration    `yaml:"scrape_interval"`
		EvaluationInterval model.Duration    `yaml:"evaluation_interval"`
		RuleQueryOffset    model.Duration    `yaml:"rule_query_offset"`
	} `yaml:"global"`
	ScrapeConfigs []struct {
		ScrapeInterval model.Duration `yaml:"scrape_interval"`
	} `yaml:"scrape_configs"`
	Storage struct {
		TSDB struct {
			OutOfOrderTimeWindow model.Duration `yaml:"out_of_order_time_window"`
		} `yaml:"tsdb"`
	} `yaml:"storage"`
}

// settling is how long after the time of a sample it may come. A scrape takes less than its interval. The
// markers of a target that has gone come up to two and a tenth of its intervals after their time
// (https://github.com/prometheus/prometheus/blob/main/scrape/scrape.go, endOfRunStaleness). Rules write with the time of their
// evaluation, less the offset.
func (c configuration) settling() time.Duration {
	interval := time.Duration(c.Global.ScrapeInterval)
	for _, s := range c.ScrapeConfigs {
		interval = max(interval, time.Duration(s.ScrapeInterval))
	}
	scraped := interval*21/10 + interval/10
	evaluated := time.Duration(c.Global.EvaluationInterval + c.Global.RuleQueryOffset)
	return max(leastSettling, scraped, evaluated) + time.Duration(c.Storage.TSDB.OutOfOrderTimeWindow)
}
