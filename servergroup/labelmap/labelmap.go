// Package labelmap translates between the labels of a server group's replicas and those that
// oneprom shows: of series on their way up, and of matchers on their way down. It adds injected
// labels, drops replica labels and external labels, and renames labels of the data that have the
// name of an injected one (exported_).
package labelmap

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// ExportedPrefix is put before a label of the data that has the name of an injected label and
// another value, as Prometheus does when it scrapes. It is put again as long as the series has a
// label of that name, too.
const ExportedPrefix = "exported_"

// Rules turn the labels of a replica's series into those that oneprom shows. The result does not
// depend on the transport: external labels, which remote read adds and the query API does not,
// are dropped. Rules are for one goroutine at a time.
type Rules struct {
	inject  map[string]string
	replica map[string]struct{}
	// external are the labels that remote read adds.
	external map[string]string

	builder   labels.ScratchBuilder
	dropped   strings.Builder
	renamed   []labels.Label
	raw       []labels.Label
	names     map[string]string // the distinct results of replicaName
	conflicts map[string]string

	about []*labels.Matcher // see About
	noted []Sighting        // what is to be told of the last series, if anything is

	// See Respell.
	respells          bool
	respelled         bool // whether anything was
	spellings         *Spellings
	canonical         map[string]string // the values of NumberLabels that were seen
	spelled           []labels.Label    // what was respelled in the last series
	unknown, presumed []Sighting
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

// About has the rules tell something (Conflicts, PresumedNumbers) only of series that satisfy the
// matchers once they have the labels to show: those that a request may see. Of others, nothing may
// be said, not even in warnings.
func (r *Rules) About(shown []*labels.Matcher) *Rules {
	r.about = shown
	return r
}

// Apply returns the labels to show for a series, and the labels that were dropped, as one string.
// That distinguishes series whose shown labels are equal. It has the replica labels, and labels
// of the data that equal injected ones, but no external labels, which every series has by
// remote read. If numbers are shown in another spelling, transport.Respelled follows, and theirs.
func (r *Rules) Apply(raw []labels.Label) (labels.Labels, string) {
	r.builder.Reset()
	r.dropped.Reset()
	r.renamed, r.spelled, r.noted = r.renamed[:0], r.spelled[:0], r.noted[:0]
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
				r.noted = append(r.noted, Sighting{Label: l})
			}
			continue
		}
		if r.respells && (l.Name == model.BucketLabel || l.Name == model.QuantileLabel) {
			l.Value = r.respell(l, raw)
		}
		r.builder.Add(l.Name, l.Value)
	}
	for n, v := range r.inject {
		r.builder.Add(n, v)
	}
	r.rename(raw)
	r.builder.Sort()
	shown := r.builder.Labels()
	if len(r.noted) > 0 && MatchesAll(shown, r.about) {
		r.tell()
	}
	return shown, r.replicaName()
}

// tell adds what was noted of the last series to what there is to tell.
func (r *Rules) tell() {
	for _, s := range r.noted {
		if _, injected := r.inject[s.Label.Name]; !injected {
			r.presumed = sight(r.presumed, s.Label, s.Metric)
		} else if _, known := r.conflicts[s.Label.Name]; !known {
			r.conflicts[strings.Clone(s.Label.Name)] = strings.Clone(s.Label.Value)
		}
	}
}

// ApplyTo is Apply to a label set.
func (r *Rules) ApplyTo(ls labels.Labels) (labels.Labels, string) {
	r.raw = r.raw[:0]
	ls.Range(func(l labels.Label) { r.raw = append(r.raw, l) })
	return r.Apply(r.raw)
}

// Conflicts returns the names of the labels that were renamed, each with an example of a value in
// the data.
func (r *Rules) Conflicts() map[string]string { return r.conflicts }

// drop adds a label to the dropped ones.
func (r *Rules) drop(l labels.Label) {
	r.dropped.WriteString(l.Name)
	r.dropped.WriteByte(0xfe) // not in UTF-8, as 0xff
	r.dropped.WriteString(l.Value)
	r.dropped.WriteByte(0xff)
}

// rename adds the labels of the data that have the names of injected ones, with new names.
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

// taken reports whether a name cannot be used for a renamed label of a series.
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

// replicaName returns the dropped labels as a string, which is interned: replicas have few distinct
// ones.
func (r *Rules) replicaName() string {
	if len(r.spelled) > 0 {
		r.dropped.WriteByte(transport.Respelled)
		for _, l := range r.spelled {
			r.drop(l)
		}
	}
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

// ConflictText returns the warning that a label of the data has the name of an injected one.
func ConflictText(name, injected, value string) string {
	return fmt.Sprintf("series carry %s=%q already, and `labels` injects %q: they are shown with %s%s; if the data tells its %s itself, name it under `intrinsic_labels` instead",
		name, value, injected, ExportedPrefix, name, name)
}
