// Package evidence finds out what the replicas of a group missed. It compares the replicas by their
// series `up`, which has a sample for every scrape, failed ones too, and by how many series of a
// selector they have. Series that do not come from scrapes, because rules or clients write them,
// are listed by name: scrapes show nothing about them.
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
	// Unavailable is the reason why there is no evidence for the selector; "" if there is.
	Unavailable string
	// Unscraped are the sorted names of metrics of which the selector may find series that
	// do not come from scrapes of targets. The other fields are not about those series.
	Unscraped []string
	// Targets is how many targets the selector may concern.
	Targets int
	// Missed has an element for each replica of the group, in the order of the group: the
	// spans in which the replica missed scrapes that the merge of all replicas has, by value
	// of the label `instance`. The spans are sorted, do not overlap and are cut to the range.
	// Each holds at least one missed scrape, and no scrape of that target by the replica.
	// Replicas that failed have no spans.
	Missed []map[string][]Span
	// Silent are the spans, sorted, in which no replica scraped anything.
	Silent []Span
	// Lacking has the spans, sorted, in which each replica lacks series of the selector that a
	// twin has, whatever their targets: its counts are low. Each is as long as several scrapes.
	Lacking [][]Span
	// Counting is what the counts will show where they are not known yet; nil if they are.
	Counting *Counting
	// Uncounted reports whether a replica failed to count the series. It is not compared by counts.
	Uncounted bool
	// Failed are the errors of the replicas that could not be asked, by index. These
	// replicas are not compared.
	Failed map[int]error
}

const (
	// maxRange (ms) is the longest range over which scrapes are compared.
	maxRange = 32 * 24 * 60 * 60 * 1000
	// maxClockLead (ms) is how far the clocks of replicas may be ahead of oneprom's.
	maxClockLead = 10 * 60 * 1000
	// maxUnscraped is the most names of unscraped series for one selector.
	maxUnscraped = 500
)

// Show returns what the scrapes of a group's replicas show over [from, to] (ms) for a
// selector, as the user wrote it. The range must include what the merge looks at around the
// samples of interest. now is the time of the query (ms); limit bounds one fetch (bytes, 0 is
// no limit). Show fails if the query ends. A replica that does not answer is in Shown.Failed.
func (c *Cache) Show(ctx context.Context, g Group, ms []*labels.Matcher, from, to, now, limit int64) (Shown, error) {
	to = min(to, now+maxClockLead)
	res := labelmap.Resolve(g.Config, ms)
	switch {
	case res.Excluded != "":
		return Shown{Unavailable: res.Excluded}, nil
	case len(g.Replicas) == 0:
		return Shown{Unavailable: "the group has no replicas"}, nil
	case g.Config.Forwards():
		return Shown{Unavailable: "what its replicas have may depend on who asks (forward_headers)"}, nil
	case from > to:
		return Shown{Unavailable: "there are no scrapes yet"}, nil
	case from < config.MinTime || to-from > maxRange:
		return Shown{Unavailable: "the range is longer than 32 days"}, nil
	}
	for _, name := range targetLabels {
		if labelmap.Hides(g.Config, name) {
			return Shown{Unavailable: fmt.Sprintf("the group's configuration takes the label %q from targets", name)}, nil
		}
	}
	sh, err := c.historyOf(g, limit, g.Replicas[0].Now().UnixMilli()).show(ctx, ms, res.Send, from, to)
	if over, ok := errors.AsType[*fanout.BudgetError](err); ok {
		return Shown{Unavailable: fmt.Sprintf("the scrapes are more than %d bytes", over.Limit)}, nil
	}
	if err == nil && sh.Unavailable == "" {
		c.Losses.addTo(sh.Lacking, g.Replicas, ms, from, to, g.Replicas[0].Now())
	}
	return sh, err
}

// show is Cache.Show for a selector whose matchers for the replicas are send.
func (h *history) show(ctx context.Context, ms, send []*labels.Matcher, from, to int64) (Shown, error) {
	unavailable, written, failed, err := h.recordedNames(ctx, ms)
	if unavailable != "" || err != nil {
		return Shown{Unavailable: unavailable}, err
	}
	if len(written) > 0 {
		send = append(slices.Clip(send), labels.MustNewMatcher(labels.MatchNotRegexp, labels.MetricName, labelmap.AnyOf(written)))
	}
	send = sorted(send)
	end := max(to, min(to+stampReach, h.now())) // scrapes may bring samples of before
	around := countsReach(from, to)
	around.To = max(end, min(around.To, h.now()))
	list, err := h.slicesIn(ctx, around.From, around.To)
	if err != nil {
		return Shown{}, err
	}
	if failed == nil {
		failed = map[int]error{}
	}
	for _, s := range list {
		maps.Copy(failed, s.failed)
	}
	// This compares instances and jobs with the targets that the slices have brought.
	found, more, err := h.targetsOf(ctx, send, from, to, failed)
	if found.unavailable != "" || err != nil {
		return Shown{Unavailable: found.unavailable}, err
	}
	maps.Copy(failed, more)
	sh := h.summarize(list, ms, found.instances, from, end)
	if sh.Unavailable != "" {
		return sh, nil
	}
	for _, name := range written {
		found.names[name] = true
	}
	sh.Failed, sh.Unscraped = failed, slices.Sorted(maps.Keys(found.names))
	if len(sh.Unscraped) > maxUnscraped {
		sh.Unavailable = fmt.Sprintf("series of more than %d names are of no target", maxUnscraped)
	}
	counting := h.count(send, sh.Missed, from, to, failed, around, func() []map[string][]Span {
		return h.summarize(list, ms, found.instances, around.From, around.To).Missed
	})
	if err := h.beforeScrapes(ctx, counting, sh.Missed, send, from, to, failed); err != nil {
		return Shown{}, err
	}
	if counting.Done() {
		var counted bool
		sh.Missed, sh.Lacking, counted = counting.Await(ctx)
		sh.Uncounted = !counted
	} else {
		sh.Counting, sh.Lacking = counting, make([][]Span, len(sh.Missed))
	}
	for r := range failed {
		sh.Missed[r], sh.Lacking[r] = nil, nil
	}
	if len(sh.Failed) == len(h.group.Replicas) {
		sh.Unavailable = "no replica tells of its scrapes"
	}
	return sh, nil
}

// summarize combines what slices show about the targets of some instances that a selector
// concerns.
func (h *history) summarize(list []*sliceScrapes, ms []*labels.Matcher, instances numberSet, from, to int64) Shown {
	sh := Shown{Missed: make([]map[string][]Span, len(h.group.Replicas)), Silent: silentIn(list, from, to)}
	for i := range sh.Missed {
		sh.Missed[i] = map[string][]Span{}
	}
	table := h.table.all()
	concerned := concernedTargets(list, h.table.ofInstances(instances))
	narrow(concerned, table, ms)
	for _, w := range concerned {
		sh.Targets += bits.OnesCount64(w)
	}
	for _, s := range list {
		if s.duplicate != "" {
			return Shown{Unavailable: fmt.Sprintf("a replica has %s more than once", s.duplicate)}
		}
		for r, missed := range s.missed {
			for _, m := range missed {
				lo, hi := max(from, s.begin+int64(m.from)), min(to, s.begin+int64(m.to))
				if lo <= hi && concerned.contains(m.target) {
					instance := table[m.target].Get(labelmap.TargetLabel)
					sh.Missed[r][instance] = append(sh.Missed[r][instance], Span{lo, hi})
				}
			}
		}
	}
	for _, byInstance := range sh.Missed {
		for instance, spans := range byInstance {
			byInstance[instance] = mergeSpans(spans)
		}
	}
	return sh
}

// concernedTargets returns the targets of the slices that are also in a set.
func concernedTargets(list []*sliceScrapes, among numberSet) numberSet {
	var out numberSet
	for _, s := range list {
		out.union(s.targets)
	}
	out.intersect(among)
	return out
}

// narrow removes the targets from a set that cannot have series which satisfy the matchers.
func narrow(set numberSet, table []labels.Labels, ms []*labels.Matcher) {
	ms = slices.DeleteFunc(slices.Clone(ms), func(m *labels.Matcher) bool { return m.Name == labels.MetricName })
	if len(ms) == 0 {
		return
	}
	for i, w := range set {
		for ; w != 0; w &= w - 1 {
			bit := bits.TrailingZeros64(w)
			if !mayMatchTarget(table[64*i+bit], ms) {
				set[i] &^= 1 << bit
			}
		}
	}
}

// mayMatchTarget reports whether a target may have series that satisfy matchers, none of which
// is on the metric name. Labels that its `up` does not have may have any value there.
func mayMatchTarget(target labels.Labels, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if v := target.Get(m.Name); v != "" && !m.Matches(v) {
			return false
		}
	}
	return true
}
