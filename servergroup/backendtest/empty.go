package backendtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// Empty is a storage without data: what a backend serves before it has one.
type Empty struct{}

// Querier implements storage.Queryable.
func (Empty) Querier(_, _ int64) (storage.Querier, error) { return storage.NoopQuerier(), nil }

// ChunkQuerier implements storage.ChunkQueryable.
func (Empty) ChunkQuerier(_, _ int64) (storage.ChunkQuerier, error) {
	return storage.NoopChunkedQuerier(), nil
}

// nothing replaces the parts of a server that a storage does not have: it has no scrape pools, targets,
// rules or Alertmanagers.
type nothing struct{}

func (nothing) ScrapePools() []string                       { return []string{} }
func (nothing) TargetsActive() map[string][]*scrape.Target  { return nil }
func (nothing) TargetsDropped() map[string][]*scrape.Target { return nil }
func (nothing) TargetsDroppedCounts() map[string]int        { return map[string]int{} }
func (nothing) Alertmanagers() []*url.URL                   { return nil }
func (nothing) DroppedAlertmanagers() []*url.URL            { return nil }
func (nothing) RuleGroups() []*rules.Group                  { return nil }
func (nothing) AlertingRules() []*rules.AlertingRule        { return nil }
func (nothing) ScrapePoolConfig(pool string) (*config.ScrapeConfig, error) {
	return nil, fmt.Errorf("scrape pool %q not found", pool)
}

type noExemplars struct{}

func (noExemplars) ExemplarQuerier(context.Context) (storage.ExemplarQuerier, error) {
	return noExemplars{}, nil
}

func (noExemplars) Select(_, _ int64, _ ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	return []exemplar.QueryResult{}, nil
}

// admin is the statistics of an API with the admin methods, which are never called: NewHandler leaves
// the admin API off.
type admin struct{ *behind }

func (admin) WALReplayStatus() (tsdb.WALReplayStatus, error) { return tsdb.WALReplayStatus{}, nil }
func (admin) CleanTombstones() error                         { return errAdmin }
func (admin) Snapshot(string, bool) error                    { return errAdmin }
func (admin) Delete(context.Context, int64, int64, ...*labels.Matcher) error {
	return errAdmin
}

var errAdmin = errors.New("admin APIs disabled")
