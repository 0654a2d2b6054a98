package views

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/index"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// Noop stands for the parts of a Prometheus that a proxy does not have: scraping and a TSDB.
// Each answer is empty, never absent, so that clients find the schema that they know.
var Noop interface {
	v1.ScrapePoolsRetriever
	v1.TargetRetriever
	v1.TSDBAdminStats
} = noop{}

type noop struct{}

var errNoStorage = errors.New("oneprom stores no samples")

func (noop) ScrapePools() []string                       { return []string{} }
func (noop) TargetsActive() map[string][]*scrape.Target  { return map[string][]*scrape.Target{} }
func (noop) TargetsDropped() map[string][]*scrape.Target { return map[string][]*scrape.Target{} }
func (noop) TargetsDroppedCounts() map[string]int        { return map[string]int{} }

func (noop) ScrapePoolConfig(pool string) (*config.ScrapeConfig, error) {
	return nil, fmt.Errorf("scrape pool %q not found", pool)
}

func (noop) CleanTombstones() error      { return errNoStorage }
func (noop) Snapshot(string, bool) error { return errNoStorage }

func (noop) Delete(context.Context, int64, int64, ...*labels.Matcher) error {
	return errNoStorage
}

// Stats has the time bounds that the empty head of a TSDB has.
func (noop) Stats(string, int) (*tsdb.Stats, error) {
	return &tsdb.Stats{MinTime: math.MaxInt64, MaxTime: math.MinInt64, IndexPostingStats: &index.PostingsStats{}}, nil
}

func (noop) WALReplayStatus() (tsdb.WALReplayStatus, error) { return tsdb.WALReplayStatus{}, nil }
func (noop) BlockMetas() ([]tsdb.BlockMeta, error)          { return []tsdb.BlockMeta{}, nil }

// NoChunks says to the API that there are no chunks; without this metric it would
// show the integer that NaN happens to become.
func NoChunks() prometheus.Gatherer {
	r := prometheus.NewRegistry()
	r.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "prometheus_tsdb_head_chunks",
		Help: "Number of chunks in the head block. Always 0: oneprom stores none.",
	}))
	return r
}
