package evidence

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/findings"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// recordNames are the names that the recording rules of a replica write.
type recordNames struct {
	names   []string // of the last answer
	unknown error    // why the replica cannot list them; nil if it can
	failed  error    // of the last request, nil if it was answered
	at      int64    // of the last request, ms; 0 before the first one
}

// alertNames are the names of the series that alerting rules write.
var alertNames = []string{"ALERTS", "ALERTS_FOR_STATE"}

// recordedNames returns the sorted names of metrics of which rules may have written series that
// a selector finds, by the rules of today. unavailable is the reason why the names cannot be
// known; "" if they can. failed are the errors of the replicas that could not be asked.
func (h *history) recordedNames(ctx context.Context, ms []*labels.Matcher) (unavailable string, written []string, failed map[int]error, err error) {
	if !h.recordedNamesKnown() {
		if failed, err = h.ask(ctx, nil, h.fetchRecordNames); err != nil {
			return "", nil, nil, err
		}
	}
	written = slices.Clone(alertNames)
	h.mtx.Lock()
	defer h.mtx.Unlock()
	for i, r := range h.recorded {
		if r.unknown != nil {
			return fmt.Sprintf("%s: %s", h.group.Replicas[i].URL(), r.unknown), nil, nil, nil
		}
		written = append(written, r.names...)
	}
	written = slices.DeleteFunc(written, func(name string) bool { return !mayMatchName(ms, name) })
	slices.Sort(written)
	return "", slices.Compact(written), failed, nil
}

// recordedNamesKnown reports whether the names of all replicas are cached, so that none has to be asked.
// It is false where a replica's breaker is open: asking it is what brings the error that evidence shows.
func (h *history) recordedNamesKnown() bool {
	now := h.now()
	for _, r := range h.group.Replicas {
		if !r.Health.Usable() {
			return false
		}
	}
	h.mtx.Lock()
	defer h.mtx.Unlock()
	return !slices.ContainsFunc(h.recorded, func(r recordNames) bool { return !r.known(now) })
}

// known reports whether the names are those of an answer that is used at a time (now, ms).
func (r recordNames) known(now int64) bool {
	return r.at != 0 && r.failed == nil && now-r.at < replica.ProfileAge.Milliseconds()
}

// mayMatchName reports whether a selector may find series of a name.
func mayMatchName(ms []*labels.Matcher, name string) bool {
	for _, m := range ms {
		if m.Name == labels.MetricName && !m.Matches(name) {
			return false
		}
	}
	return true
}

// fetchRecordNames asks a replica for its recording rules unless they are cached.
func (h *history) fetchRecordNames(ctx context.Context, i int, r *replica.Replica) error {
	now := h.now()
	h.mtx.Lock()
	last := h.recorded[i]
	h.mtx.Unlock()
	switch {
	case last.at != 0 && last.failed != nil && now-last.at < ProvisionalAge:
		return last.failed
	case last.known(now):
		return nil
	}
	next := recordNames{names: last.names, at: now}
	p, err := r.Ready(ctx)
	switch {
	case err != nil:
		next.failed = err
	case p.Dialect.ReadOnly:
		next.unknown = errNoLookups
	case p.Method == transport.QueryAPI:
		next.unknown = errNoEnds
	case p.TakesTurns != "":
		next.unknown = errTurns
	default:
		names, err := p.Client.RecordNames(ctx)
		switch {
		case err == nil:
			next.names = names
		case replica.Unreadable(err):
			next.unknown = fmt.Errorf("it does not tell its recording rules: %w", err)
		default:
			next.failed = err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx) // not a failure of the replica
	}
	h.mtx.Lock()
	defer h.mtx.Unlock()
	h.recorded[i] = next
	return next.failed
}

var (
	errNoLookups = errors.New("it has remote read only, and does not tell its recording rules")
	errTurns     = errors.New("several servers take turns at its URL")
	errNoEnds    = errors.New("the query API does not show when targets have gone")
)

// lookupSlice is the length (ms) of the absolute slices of time for which the targets of
// series are cached.
const lookupSlice = 2 * 60 * 60 * 1000

// targetLabels are the labels that every scraped series has.
var targetLabels = []string{"instance", "job"}

// matchTargets matches the series that have the targetLabels.
var matchTargets = []*labels.Matcher{
	labels.MustNewMatcher(labels.MatchNotEqual, "instance", ""),
	labels.MustNewMatcher(labels.MatchNotEqual, "job", ""),
}

type lookupKey struct {
	selector string
	begin    int64 // ms
}

// sliceTargets are the targets that the series of a selector come from in one slice of time.
type sliceTargets struct {
	// unavailable is the reason why the targets are not known; "" if they are.
	unavailable string
	// names are the sorted names of metrics of which some series do not come from a target.
	names []string
	// instances are the numbers of the values that the label `instance` has in the other
	// series, and perhaps in series that existed a little earlier or later.
	instances numberSet
	at        int64 // when this was looked up, ms
	settled   bool  // whether it cannot change any more
}

// seriesTargets are the targets that the series of a selector come from in a range of time. The
// fields are those of sliceTargets.
type seriesTargets struct {
	unavailable string
	names       map[string]bool
	instances   numberSet
}

func (o *seriesTargets) add(l *sliceTargets) {
	o.unavailable = max(o.unavailable, l.unavailable) // the same one in any order
	for _, name := range l.names {
		o.names[name] = true
	}
	o.instances.union(l.instances)
}

// targetsOf returns the targets of the series of a selector, whose matchers are those for the
// replicas, in [from, to] (ms). Replicas that failed before are not asked.
func (h *history) targetsOf(ctx context.Context, send []*labels.Matcher, from, to int64, before map[int]error) (all seriesTargets, failed map[int]error, err error) {
	selector := transport.Selector(send)
	first, last := floorTo(from, lookupSlice), floorTo(to, lookupSlice)
	all = seriesTargets{names: map[string]bool{}}
	first, last = h.cachedTargets(send, first, last, &all)
	if all.unavailable != "" || first > last {
		return all, nil, nil
	}
	now := h.now()
	l := transport.Lookup{Matchers: labelmap.Selectable(send), MinT: first, MaxT: last + lookupSlice - 1}
	var mtx sync.Mutex
	found := seriesTargets{names: map[string]bool{}}
	failed, err = h.ask(ctx, before, func(ctx context.Context, _ int, r *replica.Replica) error {
		looked, err := h.replicaTargets(ctx, r, l)
		mtx.Lock()
		defer mtx.Unlock()
		found.add(&looked)
		return err
	})
	if err != nil {
		return seriesTargets{}, nil, err
	}
	entry := &sliceTargets{unavailable: found.unavailable, names: slices.Sorted(maps.Keys(found.names)), instances: found.instances, at: now}
	all.add(entry)
	if len(failed) > len(before) {
		return all, failed, nil
	}
	size := 128 + len(selector) + len(entry.unavailable) + 8*cap(entry.instances)
	for _, name := range entry.names {
		size += 16 + len(name)
	}
	h.mtx.Lock()
	defer h.mtx.Unlock()
	for begin := first; begin <= last; begin += lookupSlice {
		slice := *entry
		slice.settled = entry.unavailable == "" && len(entry.names) == 0 && len(failed) == 0 && begin+lookupSlice+settleTime < now
		h.lookups.Add(lookupKey{selector, begin}, &slice, size)
	}
	return all, failed, nil
}

// cachedTargets adds what is cached for the slices from first to last to all, and returns the
// range of slices that must be looked up.
func (h *history) cachedTargets(send []*labels.Matcher, first, last int64, all *seriesTargets) (from, to int64) {
	now, selector := h.now(), transport.Selector(send)
	wider := sync.OnceValue(func() []string { return widerThan(send) })
	from, to = last+lookupSlice, last
	h.mtx.Lock()
	defer h.mtx.Unlock()
	for begin := first; begin <= last; begin += lookupSlice {
		if l := h.targetsKept(lookupKey{selector, begin}, wider, now); l != nil {
			all.add(l)
			continue
		}
		from, to = min(from, begin), begin
	}
	return from, to
}

// replicaTargets looks up the targets of one replica's series.
func (h *history) replicaTargets(ctx context.Context, r *replica.Replica, l transport.Lookup) (found sliceTargets, err error) {
	p, err := r.Ready(ctx)
	if err != nil {
		return sliceTargets{}, err
	}
	client := p.Client.AllowPartial(false)
	texts := make([]string, 2*len(targetLabels))
	errs := make([]error, len(texts))
	names := make([][]string, len(targetLabels))
	var instances []string
	var wg sync.WaitGroup
	for i, name := range targetLabels {
		wg.Go(func() {
			defer guard.Recover(&errs[2*i])
			names[i], texts[2*i], errs[2*i] = findUnlabelled(ctx, client, name, l)
		})
		wg.Go(func() {
			defer guard.Recover(&errs[2*i+1])
			var values []string
			if values, texts[2*i+1], errs[2*i+1] = h.checkValues(ctx, client, name, l); name == labelmap.TargetLabel {
				instances = values
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil && replica.Unreadable(err) {
			texts[i], err = "its series cannot be looked up: "+err.Error(), nil
		}
		if err != nil {
			return sliceTargets{}, err
		}
	}
	for _, text := range texts {
		if text != "" {
			return sliceTargets{unavailable: r.URL() + ": " + text}, nil
		}
	}
	h.table.addInstances(&found.instances, instances)
	found.names = slices.Concat(names...)
	return found, nil
}

// findUnlabelled returns the names of metrics of the series that lack a label. If there are
// too many names, it returns a text that says so instead.
func findUnlabelled(ctx context.Context, c *transport.Client, name string, l transport.Lookup) (metrics []string, text string, err error) {
	l.Matchers = append(slices.Clip(l.Matchers), labels.MustNewMatcher(labels.MatchEqual, name, ""))
	one := l
	one.Limit = 1
	list, _, err := c.Series(ctx, one)
	if err != nil || len(list) == 0 {
		return nil, "", err
	}
	l.Limit = maxUnscraped
	if metrics, _, err = c.LabelValues(ctx, labels.MetricName, l); err != nil {
		return nil, "", err
	}
	one.Matchers = append(one.Matchers, labels.MustNewMatcher(labels.MatchNotRegexp, labels.MetricName, labelmap.AnyOf(metrics)))
	if list, _, err = c.Series(ctx, one); err != nil || len(list) == 0 {
		return metrics, "", err
	}
	return nil, fmt.Sprintf("the series %s has no label %q, and so is of no target", findings.Shorten(list[0].String()), name), nil
}

// checkValues returns the values of a label, and a text if no target has one of them. Label
// lookups of a server are not exact in time. So values that no scrape in the cache has are
// compared with those of `up`, which are looked up in the same way.
func (h *history) checkValues(ctx context.Context, c *transport.Client, name string, l transport.Lookup) (values []string, odd string, err error) {
	l.Matchers = slices.Concat(l.Matchers, matchTargets)
	values, _, err = c.LabelValues(ctx, name, l)
	if err != nil {
		return nil, "", err
	}
	ofTargets := map[string]bool{"": true}
	for _, ls := range h.table.all() {
		ofTargets[ls.Get(name)] = true
	}
	unknown := func(v string) bool { return !ofTargets[v] }
	if !slices.ContainsFunc(values, unknown) {
		return values, "", nil
	}
	l.Matchers = MatchUp
	up, _, err := c.LabelValues(ctx, name, l)
	if err != nil {
		return nil, "", err
	}
	for _, v := range up {
		ofTargets[v] = true
	}
	if i := slices.IndexFunc(values, unknown); i >= 0 {
		odd = fmt.Sprintf("there are series with %s=%q, and no target", name, findings.Shorten(values[i]))
	}
	return values, odd, nil
}
