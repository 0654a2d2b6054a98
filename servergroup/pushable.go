package servergroup

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// This file finds out whether a backend may be asked to evaluate: whether what it
// makes of its samples is what upstream's engine makes of them here.

// telling are the features of Prometheus that change what an expression is worth.
var telling = []string{"promql-delayed-name-removal", "type-and-unit-labels", "use-start-timestamps"}

// windowsLeftOpen is the major version of Prometheus since which a window leaves
// out its first millisecond, as it does here.
const windowsLeftOpen = 3

// findEvaluates finds out why the backend is not asked to evaluate; "" if it is. A
// oneprom tells the version of the Prometheus whose engine it has.
func (r *replica) findEvaluates(ctx context.Context, p *profile) error {
	major, _, _ := strings.Cut(p.Version, ".")
	n, err := strconv.Atoi(major)
	switch {
	case p.Kind != transport.Prometheus && p.Kind != transport.Oneprom:
		p.local = fmt.Sprintf("%s has its own PromQL", p.Kind)
		return nil
	case err != nil || n < windowsLeftOpen:
		p.local = fmt.Sprintf("Prometheus %s has windows that are closed on the left", p.Version)
		return nil
	}
	var flags map[string]string
	err = p.client.Status(ctx, "flags", &flags)
	switch {
	case err != nil && unreadable(err):
		p.local = "the backend does not show its flags"
		return nil
	case err != nil:
		return err
	}
	enabled := strings.Split(flags["enable-feature"], ",")
	for _, name := range telling {
		if there, here := slices.Contains(enabled, name), slices.Contains(r.features, name); there != here {
			p.local = fmt.Sprintf("the feature %s is not the same there and here", name)
			return nil
		}
	}
	return r.findOwn(ctx, p, slices.Concat(r.group.ReplicaLabels, sortedKeys(r.group.Labels)))
}

// findOwn looks for series that carry one of the labels themselves, of all times:
// here they would be shown with other labels than there. That what a oneprom stands in
// front of is missing, or slow, is no failure of its own: it is then not asked to
// evaluate.
func (r *replica) findOwn(ctx context.Context, p *profile, names []string) error {
	if p.Kind == transport.Oneprom && len(names) > 0 {
		reads, err := readsToTell(ctx, p)
		switch {
		case err != nil:
			p.local = "the backend does not tell what is behind it"
			return nil
		case reads:
			p.local = "the backend would have to read samples to tell the labels of its series"
			return nil
		}
	}
	for _, name := range names {
		values, warnings, err := p.client.LabelValues(ctx, name, transport.Lookup{MinT: math.MinInt64, MaxT: math.MaxInt64, Limit: 1})
		switch {
		case err != nil && (unreadable(err) || p.Kind == transport.Oneprom):
			p.local = "the backend does not tell the labels of its series"
			return nil
		case err != nil:
			return err
		case len(values) > 0:
			p.local = fmt.Sprintf("its series carry the label %q themselves", name)
			return nil
		case slices.ContainsFunc(warnings, ofData):
			p.local = "the backend does not tell the labels of all its series"
			return nil
		}
	}
	return nil
}

// readsToTell tells whether a oneprom has to read samples to tell labels: it stands in
// front of a backend that has remote read and nothing else. To read those of all times
// every minute would be too dear.
func readsToTell(ctx context.Context, p *profile) (bool, error) {
	var groups []GroupStatus
	err := p.client.Status(ctx, "groups", &groups)
	return slices.ContainsFunc(groups, func(g GroupStatus) bool {
		return slices.ContainsFunc(g.Replicas, func(r ReplicaStatus) bool {
			return transport.DialectOf(transport.Kind(r.Kind), false).ReadOnly
		})
	}), err
}
