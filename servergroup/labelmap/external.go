package labelmap

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
)

// maxDoubts bounds what is remembered of one fetch.
const maxDoubts = 1000

// Doubts are the signs in responses of remote read that the server's external labels are not the
// known ones. A response has those of its moment, which remote read adds to each series that has no
// label of that name itself. So an external label that is gone is missing from some series, one that
// is new is in all of them, and one that was changed is in some with another value.
//
// The labels of the data may look the same: whoever has doubts must read the configuration. Without
// doubts there is no need to. Doubts are for one goroutine at a time.
type Doubts struct {
	cfg      *config.Group
	external []placed // the known external labels that would be shown
	proven   []string // names that the series have themselves, as the matchers demand them

	any    bool     // whether the present response has a series
	common []placed // labels in all series of the present response
	found  map[labels.Label]struct{}
}

// placed is a label with the place at which the last series had it.
type placed struct {
	labels.Label
	at int
}

// valueIn returns the value that a series has for the name of the label; "" if it has none.
func (p *placed) valueIn(raw []labels.Label) string {
	if p.at < len(raw) && raw[p.at].Name == p.Name {
		return raw[p.at].Value
	}
	p.at = max(0, slices.IndexFunc(raw, func(l labels.Label) bool { return l.Name == p.Name }))
	if len(raw) == 0 || raw[p.at].Name != p.Name {
		return ""
	}
	return raw[p.at].Value
}

// NewDoubts returns the doubts about the responses to matchers, which ForRead has made.
func NewDoubts(cfg *config.Group, external map[string]string, sent []*labels.Matcher) *Doubts {
	d := &Doubts{cfg: cfg, proven: []string{labels.MetricName}, found: map[labels.Label]struct{}{}}
	for _, m := range sent {
		if !m.Matches("") {
			d.proven = append(d.proven, m.Name)
		}
	}
	for name, value := range external {
		if !d.hidden(name) && !slices.Contains(d.proven, name) {
			d.external = append(d.external, placed{Label: labels.Label{Name: name, Value: value}})
		}
	}
	return d
}

// hidden reports whether a label of this name is never shown: then it does not matter whether it
// is external.
func (d *Doubts) hidden(name string) bool { return slices.Contains(d.cfg.ReplicaLabels, name) }

// NextResponse begins with the series of another response.
func (d *Doubts) NextResponse() {
	for _, l := range d.common {
		d.add(l.Label)
	}
	d.common, d.any = d.common[:0], false
}

// Observe looks at a series as the server sent it.
func (d *Doubts) Observe(raw []labels.Label) {
	if !d.any {
		d.any = true
		d.begin(raw)
	}
	kept := d.common[:0]
	for _, l := range d.common {
		if l.valueIn(raw) == l.Value {
			kept = append(kept, l)
		}
	}
	d.common = kept
	for i := range d.external {
		l := &d.external[i]
		if value := l.valueIn(raw); value != l.Value {
			d.add(labels.Label{Name: l.Name, Value: value})
		}
	}
}

// begin takes the labels of the first series of a response for common, but those that cannot be
// external, or are shown alike if they are.
func (d *Doubts) begin(raw []labels.Label) {
	for i, l := range raw {
		known := slices.ContainsFunc(d.external, func(e placed) bool { return e.Name == l.Name })
		injected, ok := d.cfg.Labels[l.Name]
		if known || d.hidden(l.Name) || ok && injected == l.Value || slices.Contains(d.proven, l.Name) {
			continue
		}
		d.common = append(d.common, placed{clone(l), i})
	}
}

func (d *Doubts) add(l labels.Label) {
	if _, ok := d.found[l]; !ok && len(d.found) < maxDoubts {
		d.found[clone(l)] = struct{}{}
	}
}

// clone returns a label that is still valid when the response is not.
func clone(l labels.Label) labels.Label {
	return labels.Label{Name: strings.Clone(l.Name), Value: strings.Clone(l.Value)}
}

// List returns the doubts: labels that may be external, and names without a value of known external
// labels that may not be so any more.
func (d *Doubts) List() []labels.Label {
	d.NextResponse()
	list := make([]labels.Label, 0, len(d.found))
	for l := range d.found {
		list = append(list, l)
	}
	return list
}
