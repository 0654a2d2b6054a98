package replica

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// telling are the features of Prometheus that change what an expression is worth.
var telling = []string{"promql-delayed-name-removal", "type-and-unit-labels", "use-start-timestamps"}

// windowsLeftOpen is the major version of Prometheus since which a window leaves
// out its first millisecond, as it does here.
const windowsLeftOpen = 3

// findEvaluates finds out why the backend is not asked to evaluate; "" if it is. A
// oneprom tells the version of the Prometheus whose engine it has.
func (r *Replica) findEvaluates(ctx context.Context, p *Profile) error {
	major, _, _ := strings.Cut(p.Version, ".")
	n, err := strconv.Atoi(major)
	switch {
	case p.Kind != transport.Prometheus && p.Kind != transport.Oneprom:
		p.Local = fmt.Sprintf("%s has its own PromQL", p.Kind)
		return nil
	case err != nil || n < windowsLeftOpen:
		p.Local = fmt.Sprintf("Prometheus %s has windows that are closed on the left", p.Version)
		return nil
	}
	var flags map[string]string
	err = p.Client.Status(ctx, "flags", &flags)
	switch {
	case err != nil && Unreadable(err):
		p.Local = "the backend does not show its flags"
		return nil
	case err != nil:
		return err
	}
	enabled := strings.Split(flags["enable-feature"], ",")
	for _, name := range telling {
		if there, here := slices.Contains(enabled, name), slices.Contains(r.features, name); there != here {
			p.Local = fmt.Sprintf("the feature %s is not the same there and here", name)
			return nil
		}
	}
	return r.findOwn(ctx, p, slices.Concat(r.group.ReplicaLabels, slices.Sorted(maps.Keys(r.group.Labels))))
}

// findOwn looks for series that carry one of the labels themselves, of all times:
// here they would be shown with other labels than there. That what a oneprom stands in
// front of is missing, or slow, is no failure of its own: it is then not asked to
// evaluate.
func (r *Replica) findOwn(ctx context.Context, p *Profile, names []string) error {
	if p.Kind == transport.Oneprom && len(names) > 0 {
		reads, err := readsToTell(ctx, p)
		switch {
		case err != nil:
			p.Local = "the backend does not tell what is behind it"
			return nil
		case reads:
			p.Local = "the backend would have to read samples to tell the labels of its series"
			return nil
		}
	}
	for _, name := range names {
		values, warnings, err := p.Client.LabelValues(ctx, name, transport.Lookup{MinT: math.MinInt64, MaxT: math.MaxInt64, Limit: 1})
		switch {
		case err != nil && (Unreadable(err) || p.Kind == transport.Oneprom):
			p.Local = "the backend does not tell the labels of its series"
			return nil
		case err != nil:
			return err
		case len(values) > 0:
			p.Local = fmt.Sprintf("its series carry the label %q themselves", name)
			return nil
		case slices.ContainsFunc(warnings, transport.OfData):
			p.Local = "the backend does not tell the labels of all its series"
			return nil
		}
	}
	return nil
}

// readsToTell reports whether a oneprom has to read samples to tell labels: it stands in
// front of a backend that has remote read and nothing else. To read those of all times
// every minute would be too dear.
func readsToTell(ctx context.Context, p *Profile) (bool, error) {
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
