// Package labelmap is what the labels of a server group do: to the series that its replicas
// have (injected labels are added, replica labels and external labels dropped, labels of
// the same name renamed to exported_), and to the matchers that they are asked with.
package labelmap

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
)

// ExportedPrefix is put before a label of the data that has the name of an
// injected label and another value, as Prometheus does when it scrapes, and once
// more as long as the series has a label of that name too.
const ExportedPrefix = "exported_"

// Rules turn the labels that a backend has into those that oneprom shows.
// The result does not depend on the transport: external labels, which remote read
// adds and the query API does not, are dropped.
type Rules struct {
	inject  map[string]string
	replica map[string]struct{}
	// external are labels that the backend's remote read adds.
	external map[string]string

	builder   labels.ScratchBuilder
	dropped   strings.Builder
	renamed   []labels.Label
	raw       []labels.Label
	names     map[string]string // the distinct results of replicaName
	conflicts map[string]string
}

// NewRules returns the rules of a group for a replica whose remote read adds the external
// labels.
func NewRules(cfg *config.Group, external map[string]string) *Rules {
	r := &Rules{
		inject:    cfg.Labels,
		replica:   map[string]struct{}{},
		external:  external,
		builder:   labels.NewScratchBuilder(16),
		names:     map[string]string{},
		conflicts: map[string]string{},
	}
	for _, n := range cfg.ReplicaLabels {
		r.replica[n] = struct{}{}
	}
	return r
}

// Apply returns the labels to show for a series, and what tells it apart from
// others that show the same: the replica labels and own labels equal to injected
// ones, which are not shown twice. External labels are not among these: by remote
// read every series has them. It is for one goroutine at a time.
func (r *Rules) Apply(raw []labels.Label) (labels.Labels, string) {
	r.builder.Reset()
	r.dropped.Reset()
	r.renamed = r.renamed[:0]
	for _, l := range raw {
		if _, ok := r.replica[l.Name]; ok {
			r.drop(l)
			continue
		}
		if v, ok := r.external[l.Name]; ok && v == l.Value {
			continue
		}
		if v, ok := r.inject[l.Name]; ok {
			if v == l.Value {
				r.drop(l)
			} else {
				r.renamed = append(r.renamed, l)
				if _, known := r.conflicts[l.Name]; !known {
					r.conflicts[strings.Clone(l.Name)] = strings.Clone(l.Value)
				}
			}
			continue
		}
		r.builder.Add(l.Name, l.Value)
	}
	for n, v := range r.inject {
		r.builder.Add(n, v)
	}
	r.rename(raw)
	r.builder.Sort()
	return r.builder.Labels(), r.replicaName()
}

// ApplyTo is Apply to a label set.
func (r *Rules) ApplyTo(ls labels.Labels) (labels.Labels, string) {
	r.raw = r.raw[:0]
	ls.Range(func(l labels.Label) { r.raw = append(r.raw, l) })
	return r.Apply(r.raw)
}

// Conflicts gives an example of the value for each label of the data that has the name of
// an injected one and another value, and so was renamed.
func (r *Rules) Conflicts() map[string]string { return r.conflicts }

// drop notes a label that is not shown.
func (r *Rules) drop(l labels.Label) {
	r.dropped.WriteString(l.Name)
	r.dropped.WriteByte(0xfe) // not in UTF-8, as 0xff
	r.dropped.WriteString(l.Value)
	r.dropped.WriteByte(0xff)
}

// rename adds the labels whose names injected labels have taken.
func (r *Rules) rename(raw []labels.Label) {
	// In the order of their names, so that the result does not depend on raw's.
	slices.SortFunc(r.renamed, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
	for i, l := range r.renamed {
		name := ExportedPrefix + l.Name
		for r.taken(name, raw) || slices.ContainsFunc(r.renamed[:i], func(l labels.Label) bool { return l.Name == name }) {
			name = ExportedPrefix + name
		}
		r.renamed[i].Name = name
		r.builder.Add(name, l.Value)
	}
}

// taken reports whether a series cannot be given a label of this name.
func (r *Rules) taken(name string, raw []labels.Label) bool {
	if _, ok := r.inject[name]; ok {
		return true
	}
	if _, ok := r.replica[name]; ok {
		return true
	}
	return slices.ContainsFunc(raw, func(l labels.Label) bool {
		v, external := r.external[name]
		return l.Name == name && (!external || v != l.Value)
	})
}

// replicaName interns the dropped labels: a backend has few of them.
func (r *Rules) replicaName() string {
	if r.dropped.Len() == 0 {
		return ""
	}
	name, ok := r.names[r.dropped.String()]
	if !ok {
		name = strings.Clone(r.dropped.String())
		r.names[name] = name
	}
	return name
}

// ConflictText says that series of the data have a label of the name of an injected one.
func ConflictText(name, injected, value string) string {
	return fmt.Sprintf("series carry %s=%q already, and `labels` injects %q: they are shown with %s%s; if the data tells its %s itself, name it under `intrinsic_labels` instead",
		name, value, injected, ExportedPrefix, name, name)
}
