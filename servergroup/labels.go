package servergroup

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// exportedPrefix is put before a label of the data that has the name of an
// injected label and another value, as Prometheus does when it scrapes.
const exportedPrefix = "exported_"

// labelRules turn the labels that a backend has into those that oneprom shows,
// and matchers on the latter into matchers that the backend can answer. The
// result does not depend on the transport: external labels, which remote read
// adds and the query API does not, are dropped.
type labelRules struct {
	inject  map[string]string
	replica map[string]struct{}
	// external are labels that the backend's remote read adds.
	external map[string]string

	builder labels.ScratchBuilder
	dropped strings.Builder
	names   map[string]string // the distinct values of replica labels seen
}

func newLabelRules(cfg *Config, external map[string]string) *labelRules {
	r := &labelRules{
		inject:   cfg.Labels,
		replica:  map[string]struct{}{},
		external: external,
		builder:  labels.NewScratchBuilder(16),
		names:    map[string]string{},
	}
	for _, n := range cfg.ReplicaLabels {
		r.replica[n] = struct{}{}
	}
	return r
}

// apply returns the labels to show for a series, and the values of its replica
// labels joined. It is for one goroutine at a time.
func (r *labelRules) apply(raw []labels.Label) (labels.Labels, string) {
	r.builder.Reset()
	r.dropped.Reset()
	for _, l := range raw {
		if _, ok := r.replica[l.Name]; ok {
			r.dropped.WriteString(l.Value)
			r.dropped.WriteByte(0xff)
			continue
		}
		if v, ok := r.external[l.Name]; ok && v == l.Value {
			continue
		}
		if v, ok := r.inject[l.Name]; ok {
			if v != l.Value {
				r.builder.Add(exportedPrefix+l.Name, l.Value)
			}
			continue
		}
		r.builder.Add(l.Name, l.Value)
	}
	for n, v := range r.inject {
		r.builder.Add(n, v)
	}
	r.builder.Sort()
	return r.builder.Labels(), r.replicaName()
}

// replicaName interns the values of the replica labels: a backend has few.
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
		if v, injected := c.Labels[m.Name]; injected {
			if !m.Matches(v) {
				return resolved{none: fmt.Sprintf("the group's label %s=%q does not match %s", m.Name, v, m)}
			}
			continue
		}
		if slices.Contains(c.ReplicaLabels, m.Name) {
			if !m.Matches("") {
				return resolved{none: fmt.Sprintf("no series shows the replica label that %s asks for", m)}
			}
			continue
		}
		if own, found := strings.CutPrefix(m.Name, exportedPrefix); found {
			if v, injected := c.Labels[own]; injected {
				r.check = append(r.check, m)
				if !m.Matches("") {
					r.send = append(r.send,
						labels.MustNewMatcher(m.Type, own, m.Value),
						labels.MustNewMatcher(labels.MatchNotEqual, own, v))
				}
				continue
			}
		}
		r.send = append(r.send, m)
	}
	return r
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
