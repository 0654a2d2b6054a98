package replica

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/oneprom/oneprom/servergroup/pushdown"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// semanticFeatures are the features of Prometheus that change the results of expressions.
var semanticFeatures = []string{"promql-delayed-name-removal", "type-and-unit-labels", "use-start-timestamps"}

// checkPushdown sets p.NoPushdown if the server may evaluate expressions differently.
func (r *Replica) checkPushdown(ctx context.Context, p *Profile) error {
	switch {
	case p.Kind != transport.Prometheus && p.Kind != transport.Oneprom:
		p.NoPushdown = pushdown.Refusal{Why: fmt.Sprintf("%s has its own PromQL", p.Kind), Reason: pushdown.Dialect}
		return nil
	case !p.Engine.Known:
		p.NoPushdown = pushdown.Refusal{Why: "the backend does not show how it evaluates", Reason: pushdown.Unknown}
		return nil
	case !p.Engine.LeftOpen:
		p.NoPushdown = pushdown.Refusal{Why: strings.TrimSpace("Prometheus "+p.Version) + " has windows that are closed on the left", Reason: pushdown.Version}
		return nil
	case !p.Engine.DotAll:
		p.NoPushdown = pushdown.Refusal{Why: strings.TrimSpace("Prometheus "+p.Version) + " has regular expressions whose dot matches no line break", Reason: pushdown.Version}
		return nil
	case !p.Engine.FlagsShown:
		p.NoPushdown = pushdown.Refusal{Why: "the backend does not show its flags", Reason: pushdown.Unknown}
		return nil
	}
	enabled := strings.Split(p.Engine.Features, ",")
	for _, name := range semanticFeatures {
		if slices.Contains(enabled, name) != slices.Contains(r.features, name) {
			p.NoPushdown = pushdown.Refusal{Why: fmt.Sprintf("the feature %s is not the same there and here", name), Reason: pushdown.Features}
			return nil
		}
	}
	return r.checkOwnLabels(ctx, p, slices.Concat(r.group.ReplicaLabels, slices.Sorted(maps.Keys(r.group.Labels))))
}

// checkOwnLabels sets p.NoPushdown if series of any time have one of the labels themselves:
// oneprom shows them with other labels than the server does. If the servers behind another
// oneprom are missing or slow, that is not a failure of that oneprom: it is then not asked to
// evaluate.
func (r *Replica) checkOwnLabels(ctx context.Context, p *Profile, names []string) error {
	if p.Kind == transport.Oneprom && len(names) > 0 {
		reads, err := readsSamplesForLabels(ctx, p)
		switch {
		case err != nil:
			p.NoPushdown = pushdown.Refusal{Why: "the backend does not tell what is behind it", Reason: pushdown.Unknown}
			return nil
		case reads:
			p.NoPushdown = pushdown.Refusal{Why: "the backend would have to read samples to tell the labels of its series", Reason: pushdown.Dialect}
			return nil
		}
	}
	for _, name := range names {
		values, warnings, err := p.Client.LabelValues(ctx, name, transport.Lookup{MinT: math.MinInt64, MaxT: math.MaxInt64, Limit: 1})
		switch {
		case err != nil && (Unreadable(err) || p.Kind == transport.Oneprom):
			p.NoPushdown = pushdown.Refusal{Why: "the backend does not tell the labels of its series", Reason: pushdown.Unknown}
			return nil
		case err != nil:
			return err
		case len(values) > 0:
			p.NoPushdown = pushdown.Refusal{Why: fmt.Sprintf("its series carry the label %q themselves", name), Reason: pushdown.OwnLabels}
			return nil
		case slices.ContainsFunc(warnings, transport.OfData):
			p.NoPushdown = pushdown.Refusal{Why: "the backend does not tell the labels of all its series", Reason: pushdown.Unknown}
			return nil
		}
	}
	return nil
}

// readsSamplesForLabels reports whether another oneprom has to read samples to look labels up,
// because a server behind it has remote read only. To read those of all times every minute
// would be too expensive.
func readsSamplesForLabels(ctx context.Context, p *Profile) (bool, error) {
	var groups []struct {
		Replicas []Status `json:"replicas"`
	}
	err := p.Client.Status(ctx, "groups", &groups)
	for _, g := range groups {
		for _, r := range g.Replicas {
			if transport.DialectOf(transport.Kind(r.Kind), false).ReadOnly {
				return true, err
			}
		}
	}
	return false, err
}
