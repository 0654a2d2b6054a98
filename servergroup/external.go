package servergroup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/prometheus/prometheus/model/labels"
	"gopkg.in/yaml.v3"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// unknownLabelsError says why it cannot be told which external labels a backend
// adds. It is no failure of the backend.
type unknownLabelsError struct{ why string }

func (e *unknownLabelsError) Error() string { return e.why }

// refused tells an answer that says that the replica does not do what it was
// asked for, and will not do it soon, from a failure that may pass.
func refused(err error) bool {
	var e *transport.Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Unsupported() || e.Class == transport.ClassUser || e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
}

// unreadable is refused, or an answer that nothing can be made of.
func unreadable(err error) bool {
	return refused(err) || transport.ClassOf(err) == transport.ClassContent
}

// findExternalLabels finds the labels that the backend's remote read adds to each
// series. Its configuration tells; a sample series is only compared where that is
// not shown, as a series may have labels of its own of the same names. The error
// is an *unknownLabelsError if neither tells.
func (r *replica) findExternalLabels(ctx context.Context, p *profile) error {
	configured, err := r.configuredLabels(ctx)
	switch {
	case err == nil && len(configured) == 0:
		return nil
	case err == nil:
		oneprom, err := r.isOneprom(ctx)
		switch {
		case err != nil:
			return err
		case oneprom:
			// It has external labels for federation and does not add them here.
			p.Kind = "oneprom"
		default:
			p.external = configured
		}
		return nil
	case !unreadable(err):
		return err
	}
	p.external, err = r.sampledLabels(ctx, p.method)
	return err
}

// configuredLabels reads global.external_labels of the backend's configuration.
func (r *replica) configuredLabels(ctx context.Context) (map[string]string, error) {
	var status struct {
		YAML string `json:"yaml"`
	}
	if err := r.client.Status(ctx, "config", &status); err != nil {
		return nil, err
	}
	var cfg struct {
		Global struct {
			ExternalLabels map[string]string `yaml:"external_labels"`
		} `yaml:"global"`
	}
	if err := yaml.Unmarshal([]byte(status.YAML), &cfg); err != nil {
		return nil, &transport.Error{Class: transport.ClassContent, URL: r.url(), Err: fmt.Errorf("configuration: %w", err)}
	}
	return cfg.Global.ExternalLabels, nil
}

// isOneprom tells whether the backend is another oneprom: it lists its groups.
func (r *replica) isOneprom(ctx context.Context) (bool, error) {
	var groups []struct{}
	err := r.client.Status(ctx, "groups", &groups)
	if err != nil && unreadable(err) {
		return false, nil
	}
	return err == nil, err
}

// sampledLabels compares how the query API and remote read show one series.
func (r *replica) sampledLabels(ctx context.Context, method transport.Method) (map[string]string, error) {
	now := r.now().UnixMilli()
	const notShown = "the backend does not show its configuration, and "
	shown, err := r.client.Sample(ctx, now)
	switch {
	case err != nil && unreadable(err):
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
	read, err := r.client.Fetch(ctx, method, req)
	switch {
	case err != nil && unreadable(err):
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
