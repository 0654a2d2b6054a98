package servergroup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
)

// shown is what the scrapes of a group show for a selector over a range of time.
type shown struct {
	// none says why there is no evidence for the selector; "" if there is.
	none string
	// others are the names of metrics, sorted, of which the selector may find series that
	// no scrape of a target has brought. What is shown is not about them.
	others []string
	// targets is how many targets the selector may concern.
	targets int
	// missed, of each replica of the group in its order, is when it missed scrapes
	// that the merge of all replicas has, by value of the label `instance`. The spans
	// are sorted, lie apart and are cut to the range; each holds at least one scrape
	// that was missed, and none of the replica's own of that target. Replicas that
	// failed have none.
	missed []map[string][]span
	// failed are the replicas (by index) that could not be asked, with the error.
	// They are not compared.
	failed map[int]error
}

const (
	// longestEvidence (ms) is the longest range for which scrapes are compared.
	longestEvidence = 32 * 24 * 60 * 60 * 1000
	// aheadOfUs (ms) is how far the clocks of backends may be ahead of ours.
	aheadOfUs = 10 * 60 * 1000
	// mostOthers is the most names that are left out of a selector.
	mostOthers = 500
)

// evidence returns what is shown over [from, to] (ms) for a selector, as the user
// wrote it. The range must include what the merge looks at around the samples of
// interest. It fails if the query ends; a backend that does not answer is in
// shown.failed.
func (v *View) evidence(ctx context.Context, g groupView, ms []*labels.Matcher, from, to int64) (shown, error) {
	to = min(to, v.now.UnixMilli()+aheadOfUs)
	ms = g.with(ms)
	res := labelmap.Resolve(g.cfg, ms)
	switch {
	case res.None != "":
		return shown{none: res.None}, nil
	case len(g.replicas) == 0:
		return shown{none: "the group has no replicas"}, nil
	case g.cfg.Forwards():
		return shown{none: "what its replicas have may depend on who asks (forward_headers)"}, nil
	case from > to:
		return shown{none: "there are no scrapes yet"}, nil
	case from < config.MinTime || to-from > longestEvidence:
		return shown{none: "the range is longer than 32 days"}, nil
	}
	for _, name := range targetLabels {
		if labelmap.Hides(g.cfg, name) {
			return shown{none: fmt.Sprintf("the group's configuration takes the label %q from targets", name)}, nil
		}
	}
	sh, err := g.scrapes.of(g, v.budget.Limit).show(ctx, ms, res.Send, from, to)
	if over, ok := errors.AsType[*BudgetError](err); ok {
		return shown{none: fmt.Sprintf("the scrapes are more than %d bytes", over.Limit)}, nil
	}
	return sh, err
}

// show is evidence for a selector (ms), of which send are the matchers for the
// replicas.
func (b *evidenceBook) show(ctx context.Context, ms, send []*labels.Matcher, from, to int64) (shown, error) {
	none, written, failed, err := b.ruled(ctx, ms)
	if none != "" || err != nil {
		return shown{none: none}, err
	}
	if len(written) > 0 {
		send = append(slices.Clip(send), labels.MustNewMatcher(labels.MatchNotRegexp, labels.MetricName, labelmap.AnyOf(written)))
	}
	list, err := b.between(ctx, from, to)
	if err != nil {
		return shown{}, err
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
		return shown{none: origins.none}, err
	}
	maps.Copy(failed, more)
	sh := b.sumUp(list, ms, origins.instances, from, to)
	if sh.none != "" {
		return sh, nil
	}
	for _, name := range written {
		origins.names[name] = true
	}
	sh.failed, sh.others = failed, slices.Sorted(maps.Keys(origins.names))
	if len(sh.others) > mostOthers {
		sh.none = fmt.Sprintf("series of more than %d names are of no target", mostOthers)
	}
	for r := range failed {
		sh.missed[r] = nil
	}
	if len(sh.failed) == len(b.group.replicas) {
		sh.none = "no replica tells of its scrapes"
	}
	return sh, nil
}

// sumUp puts together what slices say of the targets that a selector concerns: those
// of some instances.
func (b *evidenceBook) sumUp(list []*sliceScrapes, ms []*labels.Matcher, instances numberSet, from, to int64) shown {
	sh := shown{missed: make([]map[string][]span, len(b.group.replicas))}
	for i := range sh.missed {
		sh.missed[i] = map[string][]span{}
	}
	table := b.table.all()
	concerned := concernedOf(list, b.table.ofInstances(instances))
	narrow(concerned, table, ms)
	for _, w := range concerned {
		sh.targets += bits.OnesCount64(w)
	}
	for _, s := range list {
		if s.doubled != "" {
			return shown{none: fmt.Sprintf("a replica has %s more than once", s.doubled)}
		}
		for r, missed := range s.missed {
			for _, m := range missed {
				lo, hi := max(from, s.begin+int64(m.from)), min(to, s.begin+int64(m.to))
				if lo <= hi && concerned.has(m.target) {
					instance := table[m.target].Get(labelmap.TargetLabel)
					sh.missed[r][instance] = append(sh.missed[r][instance], span{lo, hi})
				}
			}
		}
	}
	for _, byInstance := range sh.missed {
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

// mayBeOf tells whether a target may have series that satisfy matchers, none of which is
// of the metric's name. Other labels than those of its `up` may be anything there.
func mayBeOf(target labels.Labels, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if v := target.Get(m.Name); v != "" && !m.Matches(v) {
			return false
		}
	}
	return true
}
