package proxy

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	upstreamfeatures "github.com/prometheus/prometheus/util/features"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/explain"
)

// ExplainOffline explains a query by the configuration file alone, with the engine that a
// server of these options would have.
func ExplainOffline(o Options, q explain.OfflineQuestion) (string, error) {
	if err := o.validate(); err != nil {
		return "", err
	}
	cfg, err := config.Load(o.ConfigFile)
	if err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	now := time.Now()
	if o.Now != nil {
		now = o.Now()
	}
	options := engineOptions(o, parseFeatures(o.EnableFeatures, slog.New(slog.DiscardHandler)), func() *config.Config { return cfg })
	options.Logger, options.Reg, options.FeatureRegistry = slog.New(slog.DiscardHandler), prometheus.NewRegistry(), upstreamfeatures.NewRegistry()
	engine := promqlx.NewEngine(options, nil)
	defer func() { _ = engine.Close() }() // without a query log there is nothing to lose
	return explain.Offline(engine, cfg, q, now)
}
