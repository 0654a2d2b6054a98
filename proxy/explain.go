package proxy

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"
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
	// Not a server, but what a server makes an engine of.
	s := &Server{opts: o, logger: slog.New(slog.DiscardHandler), registry: prometheus.NewRegistry(), featureRegistry: upstreamfeatures.NewRegistry()}
	s.features = parseFeatures(o.EnableFeatures, s.logger)
	s.parser = parser.NewParser(s.features.parser)
	s.config.Store(cfg)
	engine := promqlx.NewEngine(s.engineOptions(), nil)
	defer engine.Close()
	return explain.Offline(engine, cfg, q, now)
}
