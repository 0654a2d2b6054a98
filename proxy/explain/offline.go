package explain

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/proxy/api"
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

// Offline explains a query by a configuration alone. The text is that of
// /api/v1/explain?format=text for the same configuration.
func Offline(engine *promqlx.Engine, cfg *config.Config, q OfflineQuestion, now time.Time) (string, error) {
	asked, err := api.Question(q.request(), now)
	if err != nil {
		return "", err
	}
	e, err := engine.Explain(context.Background(), servergroup.Offline(cfg.Groups(), cfg.Global.PartialResponse, now), asked)
	if err != nil {
		return "", questionError(err)
	}
	return e.Text(), nil
}

// request has the question's parameters.
func (q OfflineQuestion) request() *http.Request {
	form := url.Values{}
	for name, text := range map[string]string{"query": q.Query, "time": q.Time, "start": q.Start, "end": q.End, "step": q.Step} {
		form.Set(name, text)
	}
	return &http.Request{URL: &url.URL{Path: "/explain"}, Form: form}
}
