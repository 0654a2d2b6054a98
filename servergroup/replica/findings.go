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

// doubtIdentity adds a finding if it cannot be told what the server is, or if something that
// changes its answers stands before it. A configured kind is believed all the same.
func (p *Profile) doubtIdentity(configured transport.Kind) {
	var text string
	switch {
	case p.Front != "" && configured != "":
		text = fmt.Sprintf("`kind: %s` is configured, but %s: configure the address of the server behind that", configured, p.Front)
	case p.Front != "":
		text = p.Front + ", so what it answers may be deduplicated, downsampled or old: configure the address of the server behind that, or a `kind`"
	case configured != "" || p.Kind != transport.UnknownKind:
		return
	case p.Application != "":
		text = fmt.Sprintf("the backend calls itself %q, which is no known kind, so its samples may be deduplicated, downsampled or old: configure the `kind` that is most like it", p.Application)
	default:
		text = "the backend does not show what kind it is, so its samples may be deduplicated, downsampled or old: configure its `kind`, or let its /api/v1/status/flags be read"
	}
	p.findings = append(p.findings, text)
	if configured == "" {
		p.Doubts = append(p.Doubts, text)
	}
}

// compareLabels adds findings where the group's labels disagree with the server's configuration.
func (r *Replica) compareLabels(p *Profile) {
	for _, name := range slices.Sorted(maps.Keys(r.group.Labels)) {
		if own, ok := p.configured[name]; ok && own != r.group.Labels[name] {
			text := fmt.Sprintf("the backend's external label %s=%q disagrees with the group's `labels`, which say %q: correct them, or move the target to the group it belongs to", name, own, r.group.Labels[name])
			p.findings = append(p.findings, text)
			p.Doubts = append(p.Doubts, text)
		}
	}
}

// checkForms adds a finding if forms are still lost on their way to the server.
func (r *Replica) checkForms(ctx context.Context, p *Profile) {
	p.Client.CheckForms(ctx)
	if text := lostForms(p.Client); text != "" {
		p.findings = append(p.findings, text)
	}
}

// lostForms returns a finding if forms do not reach the server; else "".
func lostForms(c *transport.Client) string {
	lost := c.Forms.Lost()
	if lost == nil {
		return ""
	}
	return fmt.Sprintf("forms that are sent by POST do not reach the backend, so that it is asked by GET, and long queries may fail: correct the proxy before it (%v)", lost)
}

// CheckData records the findings that the server's data shows about the group's labels.
func (r *Replica) CheckData(ctx context.Context, p *Profile) {
	r.recordDataFindings(r.findInData(ctx, p))
}

// findInData returns the findings that the server's data shows about the group's labels. It
// fails if the server does not answer label lookups.
func (r *Replica) findInData(ctx context.Context, p *Profile) (findings []string, err error) {
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

// dataWindow (ms) is how much of the newest data findInData looks at: label lookups over all
// time are expensive in long-term stores.
const dataWindow = 60 * 60 * 1000

// valuesInData returns at most ten values of a label in the newest data of the group's
// time_range.
func (r *Replica) valuesInData(ctx context.Context, p *Profile, name string) ([]string, error) {
	lo, hi := r.group.TimeRange.Bounds(r.now())
	newest := min(hi, r.now().UnixMilli())
	values, _, err := p.Client.LabelValues(ctx, name, transport.Lookup{MinT: max(lo, newest-dataWindow), MaxT: newest, Limit: 10})
	return values, err
}
