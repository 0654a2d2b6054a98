// Package evidence finds out which scrapes the replicas of a group missed. The replicas are
// compared by their series `up`, which has a sample for every scrape, failed ones too. Series
// that no scrape has brought, those of rules and those that were pushed, are told apart: the
// scrapes say nothing of them.
package evidence

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/labelmap"
)

// Shown is what the scrapes of a group show for a selector over a range of time.
type Shown struct {
	// None says why there is no evidence for the selector; "" if there is.
	None string
	// Others are the names of metrics, sorted, of which the selector may find series that
	// no scrape of a target has brought. What is shown is not about them.
	Others []string
	// Targets is how many targets the selector may concern.
	Targets int
	// Missed, of each replica of the group in its order, is when it missed scrapes
	// that the merge of all replicas has, by value of the label `instance`. The spans
	// are sorted, lie apart and are cut to the range; each holds at least one scrape
	// that was missed, and none of the replica's own of that target. Replicas that
	// failed have none.
	Missed []map[string][]Span
	// Failed are the replicas (by index) that could not be asked, with the error.
	// They are not compared.
	Failed map[int]error
}

const (
	// longestEvidence (ms) is the longest range for which scrapes are compared.
	longestEvidence = 32 * 24 * 60 * 60 * 1000
	// aheadOfUs (ms) is how far the clocks of backends may be ahead of ours.
	aheadOfUs = 10 * 60 * 1000
	// mostOthers is the most names that are left out of a selector.
	mostOthers = 500
)

// Show returns what the scrapes of a group's replicas show over [from, to] (ms) for a
// selector, as the user wrote it. The range must include what the merge looks at around the
// samples of interest. limit bounds the bytes of one fetch; now is the time of the query, in
// ms. It fails if the query ends; a backend that does not answer is in shown.failed.
func (c *Cache) Show(ctx context.Context, g Group, ms []*labels.Matcher, from, to, now, limit int64) (Shown, error) {
	to = min(to, now+aheadOfUs)
	res := labelmap.Resolve(g.Config, ms)
	switch {
	case res.None != "":
		return Shown{None: res.None}, nil
	case len(g.Replicas) == 0:
		return Shown{None: "the group has no replicas"}, nil
	case g.Config.Forwards():
		return Shown{None: "what its replicas have may depend on who asks (forward_headers)"}, nil
	case from > to:
		return Shown{None: "there are no scrapes yet"}, nil
	case from < config.MinTime || to-from > longestEvidence:
		return Shown{None: "the range is longer than 32 days"}, nil
	}
	for _, name := range targetLabels {
		if labelmap.Hides(g.Config, name) {
			return Shown{None: fmt.Sprintf("the group's configuration takes the label %q from targets", name)}, nil
		}
	}
	sh, err := c.of(g, limit).show(ctx, ms, res.Send, from, to)
	if over, ok := errors.AsType[*fanout.BudgetError](err); ok {
		return Shown{None: fmt.Sprintf("the scrapes are more than %d bytes", over.Limit)}, nil
	}
	return sh, err
}

// show is show for a selector (ms), of which send are the matchers for the
// replicas.
func (b *book) show(ctx context.Context, ms, send []*labels.Matcher, from, to int64) (Shown, error) {
	none, written, failed, err := b.ruled(ctx, ms)
	if none != "" || err != nil {
		return Shown{None: none}, err
	}
	if len(written) > 0 {
		send = append(slices.Clip(send), labels.MustNewMatcher(labels.MatchNotRegexp, labels.MetricName, labelmap.AnyOf(written)))
	}
	list, err := b.between(ctx, from, to)
	if err != nil {
		return Shown{}, err
	}
	if failed == nil {
		failed = map[int]error{}
	}
	for _, s := range list {
		maps.Copy(failed, s.failed)
	}
	// What is looked up is compared with the targets that are known by now.
	origins, more, err := b.pushed(ctx, send, from, to, failed)
	if origins.none != "" || err != nil {
		return Shown{None: origins.none}, err
	}
	maps.Copy(failed, more)
	sh := b.sumUp(list, ms, origins.instances, from, to)
	if sh.None != "" {
		return sh, nil
	}
	for _, name := range written {
		origins.names[name] = true
	}
	sh.Failed, sh.Others = failed, slices.Sorted(maps.Keys(origins.names))
	if len(sh.Others) > mostOthers {
		sh.None = fmt.Sprintf("series of more than %d names are of no target", mostOthers)
	}
	for r := range failed {
		sh.Missed[r] = nil
	}
	if len(sh.Failed) == len(b.group.Replicas) {
		sh.None = "no replica tells of its scrapes"
	}
	return sh, nil
}

// sumUp puts together what slices say of the targets that a selector concerns: those
// of some instances.
func (b *book) sumUp(list []*sliceScrapes, ms []*labels.Matcher, instances numberSet, from, to int64) Shown {
	sh := Shown{Missed: make([]map[string][]Span, len(b.group.Replicas))}
	for i := range sh.Missed {
		sh.Missed[i] = map[string][]Span{}
	}
	table := b.table.all()
	concerned := concernedOf(list, b.table.ofInstances(instances))
	narrow(concerned, table, ms)
	for _, w := range concerned {
		sh.Targets += bits.OnesCount64(w)
	}
	for _, s := range list {
		if s.doubled != "" {
			return Shown{None: fmt.Sprintf("a replica has %s more than once", s.doubled)}
		}
		for r, missed := range s.missed {
			for _, m := range missed {
				lo, hi := max(from, s.begin+int64(m.from)), min(to, s.begin+int64(m.to))
				if lo <= hi && concerned.has(m.target) {
					instance := table[m.target].Get(labelmap.TargetLabel)
					sh.Missed[r][instance] = append(sh.Missed[r][instance], Span{lo, hi})
				}
			}
		}
	}
	for _, byInstance := range sh.Missed {
		for instance, spans := range byInstance {
			byInstance[instance] = unite(spans)
		}
	}
	return sh
}

// concernedOf returns the targets of the slices that are in a set.
func concernedOf(list []*sliceScrapes, among numberSet) numberSet {
	var out numberSet
	for _, s := range list {
		out.addAll(s.targets)
	}
	out.keep(among)
	return out
}

// narrow takes the targets out of a set that cannot have series which satisfy the
// matchers.
func narrow(set numberSet, table []labels.Labels, ms []*labels.Matcher) {
	ms = slices.DeleteFunc(slices.Clone(ms), func(m *labels.Matcher) bool { return m.Name == labels.MetricName })
	if len(ms) == 0 {
		return
	}
	for i, w := range set {
		for ; w != 0; w &= w - 1 {
			bit := bits.TrailingZeros64(w)
			if !mayBeOf(table[64*i+bit], ms) {
				set[i] &^= 1 << bit
			}
		}
	}
}

// mayBeOf reports whether a target may have series that satisfy matchers, none of which is
// of the metric's name. Other labels than those of its `up` may be anything there.
func mayBeOf(target labels.Labels, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if v := target.Get(m.Name); v != "" && !m.Matches(v) {
			return false
		}
	}
	return true
}
