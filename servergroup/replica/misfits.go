package replica

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// compare compares the group's labels with the backend's configuration.
func (r *Replica) compare(p *Profile) {
	for _, name := range slices.Sorted(maps.Keys(r.group.Labels)) {
		if own, ok := p.configured[name]; ok && own != r.group.Labels[name] {
			text := fmt.Sprintf("the backend's external label %s=%q disagrees with the group's `labels`, which say %q: correct them, or move the target to the group it belongs to", name, own, r.group.Labels[name])
			p.findings = append(p.findings, text)
			p.Doubts = append(p.Doubts, text)
		}
	}
}

// CheckData looks for what the backend's data shows to be wrong with the group's labels, and
// remembers it.
func (r *Replica) CheckData(ctx context.Context, p *Profile) { r.lookedAt(r.misfitsInData(ctx, p)) }

// misfitsInData returns what the backend's data shows to be wrong with the group's
// labels. An error says that the backend does not tell.
func (r *Replica) misfitsInData(ctx context.Context, p *Profile) (findings []string, err error) {
	defer guard.Recover(&err)
	if p.Dialect.ReadOnly {
		return nil, nil
	}
	for _, name := range r.group.ReplicaLabels {
		if _, ok := p.configured[name]; ok || p.configured == nil && p.Dialect.ExternalLabels {
			continue // an external label, or perhaps one
		}
		values, err := r.valuesInData(ctx, p, name)
		if err != nil {
			return nil, err
		}
		names, err := r.valuesInData(ctx, p, labels.MetricName)
		if err != nil {
			return nil, err
		}
		if len(values) == 0 && len(names) > 0 {
			findings = append(findings, fmt.Sprintf("replica label %q is neither in the data nor an external label: remove it from `replica_labels`, or correct its name", name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.group.Labels)) {
		values, err := r.valuesInData(ctx, p, name)
		if err != nil {
			return nil, err
		}
		values = slices.DeleteFunc(values, func(v string) bool { return v == r.group.Labels[name] })
		if len(values) > 0 {
			findings = append(findings, labelmap.ConflictText(name, r.group.Labels[name], values[0]))
		}
	}
	return findings, nil
}

// checkedTime is how much (ms) of the newest data misfitsInData looks at: label lookups over
// all time are dear in long-term stores.
const checkedTime = 60 * 60 * 1000

// valuesInData returns some values of a label in the newest of a backend's data that
// the group is asked for.
func (r *Replica) valuesInData(ctx context.Context, p *Profile, name string) ([]string, error) {
	lo, hi := r.group.TimeRange.Bounds(r.now())
	newest := min(hi, r.now().UnixMilli())
	values, _, err := p.Client.LabelValues(ctx, name, transport.Lookup{MinT: max(lo, newest-checkedTime), MaxT: newest, Limit: 10})
	return values, err
}
