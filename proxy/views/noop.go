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

// Noop stands for the parts of a Prometheus that a proxy does not have:
// scraping and a TSDB. Each answer is empty, never absent, so
// that clients find the schema that they know.
type Noop struct{}

var (
	_ v1.ScrapePoolsRetriever = Noop{}
	_ v1.TargetRetriever      = Noop{}
	_ v1.TSDBAdminStats       = Noop{}
)

var errNoStorage = errors.New("oneprom stores no samples")

func (Noop) ScrapePools() []string                       { return []string{} }
func (Noop) TargetsActive() map[string][]*scrape.Target  { return map[string][]*scrape.Target{} }
func (Noop) TargetsDropped() map[string][]*scrape.Target { return map[string][]*scrape.Target{} }
func (Noop) TargetsDroppedCounts() map[string]int        { return map[string]int{} }

func (Noop) ScrapePoolConfig(pool string) (*config.ScrapeConfig, error) {
	return nil, fmt.Errorf("scrape pool %q not found", pool)
}

func (Noop) CleanTombstones() error      { return errNoStorage }
func (Noop) Snapshot(string, bool) error { return errNoStorage }

func (Noop) Delete(context.Context, int64, int64, ...*labels.Matcher) error {
	return errNoStorage
}

// Stats has the time bounds that the empty head of a TSDB has.
func (Noop) Stats(string, int) (*tsdb.Stats, error) {
	return &tsdb.Stats{MinTime: math.MaxInt64, MaxTime: math.MinInt64, IndexPostingStats: &index.PostingsStats{}}, nil
}

func (Noop) WALReplayStatus() (tsdb.WALReplayStatus, error) { return tsdb.WALReplayStatus{}, nil }
func (Noop) BlockMetas() ([]tsdb.BlockMeta, error)          { return []tsdb.BlockMeta{}, nil }

// NoChunks tells the API that there are no chunks; without this metric it would
// show the integer that NaN happens to become.
func NoChunks() prometheus.Gatherer {
	r := prometheus.NewRegistry()
	r.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "prometheus_tsdb_head_chunks",
		Help: "Number of chunks in the head block. Always 0: oneprom stores none.",
	}))
	return r
}
