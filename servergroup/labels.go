package servergroup

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// exportedPrefix is put before a label of the data that has the name of an
// injected label and another value, as Prometheus does when it scrapes, and once
// more as long as the series has a label of that name too.
const exportedPrefix = "exported_"

// labelRules turn the labels that a backend has into those that oneprom shows.
// The result does not depend on the transport: external labels, which remote read
// adds and the query API does not, are dropped.
type labelRules struct {
	inject  map[string]string
	replica map[string]struct{}
	// external are labels that the backend's remote read adds.
	external map[string]string

	builder labels.ScratchBuilder
	dropped strings.Builder
	renamed []labels.Label
	raw     []labels.Label
	names   map[string]string // the distinct results of replicaName
	ousted  map[string]string // an example of the value, of each label that was renamed
}

func newLabelRules(cfg *Config, external map[string]string) *labelRules {
	r := &labelRules{
		inject:   cfg.Labels,
		replica:  map[string]struct{}{},
		external: external,
		builder:  labels.NewScratchBuilder(16),
		names:    map[string]string{},
		ousted:   map[string]string{},
	}
	for _, n := range cfg.ReplicaLabels {
		r.replica[n] = struct{}{}
	}
	return r
}

// apply returns the labels to show for a series, and what tells it apart from
// others that show the same: the replica labels and own labels equal to injected
// ones, which are not shown twice. External labels are not among these: by remote
// read every series has them. It is for one goroutine at a time.
func (r *labelRules) apply(raw []labels.Label) (labels.Labels, string) {
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
				if _, known := r.ousted[l.Name]; !known {
					r.ousted[strings.Clone(l.Name)] = strings.Clone(l.Value)
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

// applyTo is apply to a label set.
func (r *labelRules) applyTo(ls labels.Labels) (labels.Labels, string) {
	r.raw = r.raw[:0]
	ls.Range(func(l labels.Label) { r.raw = append(r.raw, l) })
	return r.apply(r.raw)
}

// drop notes a label that is not shown.
func (r *labelRules) drop(l labels.Label) {
	r.dropped.WriteString(l.Name)
	r.dropped.WriteByte(0xfe) // not in UTF-8, as 0xff
	r.dropped.WriteString(l.Value)
	r.dropped.WriteByte(0xff)
}

// rename adds the labels whose names injected labels have taken.
func (r *labelRules) rename(raw []labels.Label) {
	// In the order of their names, so that the result does not depend on raw's.
	slices.SortFunc(r.renamed, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
	for i, l := range r.renamed {
		name := exportedPrefix + l.Name
		for r.taken(name, raw) || slices.ContainsFunc(r.renamed[:i], func(l labels.Label) bool { return l.Name == name }) {
			name = exportedPrefix + name
		}
		r.renamed[i].Name = name
		r.builder.Add(name, l.Value)
	}
}

// taken tells whether a series cannot be given a label of this name.
func (r *labelRules) taken(name string, raw []labels.Label) bool {
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
func (r *labelRules) replicaName() string {
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

// resolved is what is left of a selector once the labels of a group have had
// their say.
type resolved struct {
	// send are the matchers for the backend.
	send []*labels.Matcher
	// check are those that what the backend sends must be checked against, because
	// the backend cannot.
	check []*labels.Matcher
	// none says why no series of the group can match; "" if some may.
	none string
}

// resolve decides the matchers on labels that the backend does not have.
func (c *Config) resolve(ms []*labels.Matcher) resolved {
	var r resolved
	for _, m := range ms {
		if v, injected, fixed := c.fixed(m.Name); fixed {
			switch {
			case m.Matches(v):
				continue
			case injected:
				return resolved{none: fmt.Sprintf("the group's label %s=%q does not match %s", m.Name, v, m)}
			}
			return resolved{none: fmt.Sprintf("no series shows the replica label that %s asks for", m)}
		}
		if c.exports(m.Name) {
			// Which label of the data that is can be another one for each series.
			r.check = append(r.check, m)
			continue
		}
		r.send = append(r.send, m)
	}
	return r
}

// excludes tells whether resolve finds that no series can match. It is what most of
// many groups are asked.
func (c *Config) excludes(ms []*labels.Matcher) bool {
	return slices.ContainsFunc(ms, func(m *labels.Matcher) bool {
		v, _, fixed := c.fixed(m.Name)
		return fixed && !m.Matches(v)
	})
}

// fixed returns the value that a label has in all series of the group, whatever the
// backend has: an injected label its own, a replica label none.
func (c *Config) fixed(name string) (value string, injected, fixed bool) {
	value, injected = c.Labels[name]
	return value, injected, injected || slices.Contains(c.ReplicaLabels, name)
}

// exports tells whether a label of this name may be one of the data that an
// injected label has ousted.
func (c *Config) exports(name string) bool {
	for {
		own, found := strings.CutPrefix(name, exportedPrefix)
		if !found {
			return false
		}
		if _, injected := c.Labels[own]; injected {
			return true
		}
		name = own
	}
}

// selectable returns matchers that make a selector which backends accept: one
// that does not match a series without labels.
func selectable(send []*labels.Matcher) []*labels.Matcher {
	for _, m := range send {
		if !m.Matches("") {
			return send
		}
	}
	return append(slices.Clip(send), anySeries...)
}

// matchesAll tells whether a series satisfies all matchers.
func matchesAll(l labels.Labels, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if !m.Matches(l.Get(m.Name)) {
			return false
		}
	}
	return true
}

// forRead returns matchers that remote read answers as the query API does: a
// backend takes an equality with one of its external labels for its own doing
// and ignores it, but not a regular expression.
func forRead(ms []*labels.Matcher, external map[string]string) []*labels.Matcher {
	out := slices.Clone(ms)
	for i, m := range out {
		if v, ok := external[m.Name]; ok && m.Type == labels.MatchEqual && m.Value == v {
			out[i] = labels.MustNewMatcher(labels.MatchRegexp, m.Name, regexp.QuoteMeta(m.Value))
		}
	}
	return out
}
