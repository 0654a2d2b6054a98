package replica

import (
	"context"
	"fmt"
	"regexp"

	"github.com/prometheus/prometheus/model/labels"
	"gopkg.in/yaml.v3"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// unknownLabelsError is the reason why the external labels of a server cannot be found out. It
// is not a failure of the server.
type unknownLabelsError struct{ why string }

func (e *unknownLabelsError) Error() string { return e.why }

// Unreadable reports whether an error is a refusal, or an answer of the wrong form.
func Unreadable(err error) bool {
	return transport.Refused(err) || transport.ClassOf(err) == transport.ClassContent
}

// readConfiguration reads what matters of a server's configuration: its external labels, which stay nil if
// the server does not show it, and how late its samples may come.
func (r *Replica) readConfiguration(ctx context.Context, p *Profile) error {
	p.Settling = unknownSettling
	if !p.Dialect.ExternalLabels {
		return nil
	}
	cfg, err := r.configuration(ctx)
	if err != nil && !Unreadable(err) {
		return err
	}
	if err == nil {
		p.configured, p.Settling = cfg.Global.ExternalLabels, cfg.settling()
	}
	return nil
}

// findExternalLabels finds the labels that the server's remote read adds to each series: by its
// configuration, or if that is not shown, by one series. A series is less reliable, as it may
// have labels of the same names itself. If neither works, the error is an *unknownLabelsError.
func (r *Replica) findExternalLabels(ctx context.Context, p *Profile) (err error) {
	switch {
	case !p.Dialect.ExternalLabels:
	case p.configured != nil:
		p.External = p.configured
	default:
		p.External, err = r.sampledLabels(ctx, p)
		p.configured = p.External
	}
	return err
}

// configuration reads the configuration of the server. Its external labels are not nil.
func (r *Replica) configuration(ctx context.Context) (cfg configuration, err error) {
	var status struct {
		YAML string `json:"yaml"`
	}
	if err := r.client.Status(ctx, "config", &status); err != nil {
		return cfg, err
	}
	if err := yaml.Unmarshal([]byte(status.YAML), &cfg); err != nil {
		return cfg, &transport.Error{Class: transport.ClassContent, URL: r.URL(), Err: fmt.Errorf("configuration: %w", err)}
	}
	if cfg.Global.ExternalLabels == nil {
		cfg.Global.ExternalLabels = map[string]string{}
	}
	return cfg, nil
}

// sampledLabels returns the labels that one series has by remote read and not by the query API.
func (r *Replica) sampledLabels(ctx context.Context, p *Profile) (map[string]string, error) {
	now := r.now().UnixMilli()
	const notShown = "the backend does not show its configuration, and "
	shown, err := p.Client.UpSeries(ctx, now)
	switch {
	case err != nil && Unreadable(err):
		return nil, &unknownLabelsError{notShown + "does not answer a query: " + err.Error()}
	case err != nil:
		return nil, err
	case len(shown) == 0:
		return nil, &unknownLabelsError{notShown + "has no series `up` to tell them by"}
	}
	own := shown[0]
	noLabels := func(raw []labels.Label) (labels.Labels, string) { return labels.New(cloneLabels(raw)...), "" }
	req := transport.Request{MinT: now - 5*60*1000, MaxT: now, Labels: noLabels}
	own.Range(func(l labels.Label) {
		// A regular expression, as in forRead.
		req.Matchers = append(req.Matchers, labels.MustNewMatcher(labels.MatchRegexp, l.Name, regexp.QuoteMeta(l.Value)))
	})
	read, err := p.Client.Fetch(ctx, p.Method, req)
	switch {
	case err != nil && Unreadable(err):
		return nil, &unknownLabelsError{notShown + "does not answer remote read: " + err.Error()}
	case err != nil:
		return nil, err
	case len(read) != 1:
		return nil, &unknownLabelsError{fmt.Sprintf("%sremote read finds %d series for %s", notShown, len(read), own)}
	}
	external := map[string]string{}
	read[0].Labels.Range(func(l labels.Label) {
		if !own.Has(l.Name) {
			external[l.Name] = l.Value
		}
	})
	return external, nil
}

func cloneLabels(raw []labels.Label) []labels.Label {
	out := make([]labels.Label, len(raw))
	for i, l := range raw {
		out[i] = labels.Label{Name: string([]byte(l.Name)), Value: string([]byte(l.Value))}
	}
	return out
}
