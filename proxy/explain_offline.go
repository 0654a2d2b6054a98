package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"
	upstreamfeatures "github.com/prometheus/prometheus/util/features"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/servergroup"
)

// OfflineQuestion is a query to be explained, as a command line says it. The names
// and formats are those of /api/v1/explain.
type OfflineQuestion struct {
	Query, Time, Start, End, Step string
}

// AddFlags defines the flags and the argument of a command.
func (q *OfflineQuestion) AddFlags(cmd *kingpin.CmdClause) {
	cmd.Arg("expression", "The query to explain.").Required().StringVar(&q.Query)
	cmd.Flag("time", "Explain an instant query at this time (RFC 3339, or seconds since 1970). Defaults to now.").StringVar(&q.Time)
	cmd.Flag("start", "Explain a range query: its start. Needs --end and --step.").StringVar(&q.Start)
	cmd.Flag("end", "End of a range query.").StringVar(&q.End)
	cmd.Flag("step", "Step of a range query: a duration, or seconds.").StringVar(&q.Step)
}

// ExplainOffline explains a query by the configuration file alone. The text is that
// of /api/v1/explain?format=text for the same configuration.
func ExplainOffline(o Options, q OfflineQuestion) (string, error) {
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
	asked, err := question(q.request(), now)
	if err != nil {
		return "", err
	}
	// Not a server, but what a server makes an engine of.
	s := &Server{opts: o, logger: slog.New(slog.DiscardHandler), registry: prometheus.NewRegistry(), featureRegistry: upstreamfeatures.NewRegistry()}
	s.features = parseFeatures(o.EnableFeatures, s.logger)
	s.parser = parser.NewParser(s.features.parser)
	s.config.Store(cfg)
	engine := promqlx.NewEngine(s.engineOptions(), nil)
	defer func() { _ = engine.Close() }() // without a query log there is nothing to lose
	e, err := engine.Explain(context.Background(), servergroup.Offline(cfg.Groups(), cfg.Global.PartialResponse, now), asked)
	if err != nil {
		return "", badParameter("query", err)
	}
	return e.Text(), nil
}

// request has the question's parameters.
func (q OfflineQuestion) request() *http.Request {
	form := url.Values{}
	for name, text := range map[string]string{"query": q.Query, "time": q.Time, "start": q.Start, "end": q.End, "step": q.Step} {
		form.Set(name, text)
	}
	return &http.Request{Form: form}
}
