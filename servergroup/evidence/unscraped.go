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
	unknown error    // why the replica shows too little; nil if it does not
	failed  error    // of the last request, nil if it was answered
	at      int64    // ms; 0 before the first request
}

// alertNames are the series that alerting rules write.
var alertNames = []string{"ALERTS", "ALERTS_FOR_STATE"}

// ruled returns the names of metrics, sorted, of which rules may have written series
// that a selector finds, as far as they can be known today, and why they cannot be; ""
// if they can. failed are the replicas that could not be asked.
func (b *book) ruled(ctx context.Context, ms []*labels.Matcher) (none string, written []string, failed map[int]error, err error) {
	failed, err = b.ask(ctx, nil, b.askRecords)
	if err != nil {
		return "", nil, nil, err
	}
	written = slices.Clone(alertNames)
	b.mtx.Lock()
	defer b.mtx.Unlock()
	for i, r := range b.records {
		if r.unknown != nil {
			return fmt.Sprintf("%s: %s", b.group.Replicas[i].URL(), r.unknown), nil, nil, nil
		}
		written = append(written, r.names...)
	}
	written = slices.DeleteFunc(written, func(name string) bool { return !mayBeNamed(ms, name) })
	slices.Sort(written)
	return "", slices.Compact(written), failed, nil
}

// mayBeNamed reports whether a selector may find series of a name.
func mayBeNamed(ms []*labels.Matcher, name string) bool {
	for _, m := range ms {
		if m.Name == labels.MetricName && !m.Matches(name) {
			return false
		}
	}
	return true
}

// askRecords asks a replica for its recording rules unless they are known.
func (b *book) askRecords(ctx context.Context, i int, r *replica.Replica) error {
	now := b.now()
	b.mtx.Lock()
	known := b.records[i]
	b.mtx.Unlock()
	switch {
	case known.at != 0 && known.failed != nil && now-known.at < YoungAge:
		return known.failed
	case known.at != 0 && known.failed == nil && now-known.at < replica.ProfileAge.Milliseconds():
		return nil
	}
	next := recordNames{names: known.names, at: now}
	p, err := r.Ready(ctx)
	switch {
	case err != nil:
		next.failed = err
	case p.Dialect.ReadOnly:
		next.unknown = errNoLookups
	case p.Method == transport.QueryAPI:
		next.unknown = errNoEnds
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
		return context.Cause(ctx) // which says nothing of the replica
	}
	b.mtx.Lock()
	defer b.mtx.Unlock()
	b.records[i] = next
	return next.failed
}

var (
	errNoLookups = errors.New("it has remote read only, and does not tell its recording rules")
	errNoEnds    = errors.New("the query API does not show when targets have gone")
)

// lookupSlice is the length (ms) of the absolute slices of time for which it is
// remembered whether series were pushed.
const lookupSlice = 2 * 60 * 60 * 1000

// targetLabels are those that every scraped series has.
var targetLabels = []string{"instance", "job"}

// ofTargets matches the series that have them.
var ofTargets = []*labels.Matcher{
	labels.MustNewMatcher(labels.MatchNotEqual, "instance", ""),
	labels.MustNewMatcher(labels.MatchNotEqual, "job", ""),
}

type lookupKey struct {
	selector string
	begin    int64 // ms
}

// lookedUp says whether all series of a selector are of targets in a slice, and of
// which.
type lookedUp struct {
	none string // why not; "" if they are, but for those of some names
	// names are those of metrics of which some series are of no target, sorted.
	names []string
	// instances are the values of the label `instance` of the series, and perhaps of
	// others that were there a little earlier or later, by their numbers.
	instances numberSet
	at        int64 // when it was found out, ms
	settled   bool  // whether it will not be another answer later
}

// origins says whether all series of a selector in a range of time are of targets.
type origins struct {
	none      string          // why not; "" if they are, but for those of some names
	names     map[string]bool // of metrics of which some series are of no target
	instances numberSet       // of the others
}

func (o *origins) add(l *lookedUp) {
	o.none = max(o.none, l.none) // one of them, and always the same
	for _, name := range l.names {
		o.names[name] = true
	}
	o.instances.addAll(l.instances)
}

// pushed returns the origins of the series of a selector (of matchers that the replicas
// know) in [from, to] (ms). Replicas that failed before are not asked.
func (b *book) pushed(ctx context.Context, send []*labels.Matcher, from, to int64, before map[int]error) (all origins, failed map[int]error, err error) {
	selector := transport.Selector(send)
	first, last := floorTo(from, lookupSlice), floorTo(to, lookupSlice)
	all = origins{names: map[string]bool{}}
	first, last = b.lookedUp(selector, first, last, &all)
	if all.none != "" || first > last {
		return all, nil, nil
	}
	now := b.now()
	l := transport.Lookup{Matchers: labelmap.Selectable(send), MinT: first, MaxT: last + lookupSlice - 1}
	var mtx sync.Mutex
	found := origins{names: map[string]bool{}}
	failed, err = b.ask(ctx, before, func(ctx context.Context, _ int, r *replica.Replica) error {
		looked, err := b.lookUp(ctx, r, l)
		mtx.Lock()
		defer mtx.Unlock()
		found.add(&looked)
		return err
	})
	if err != nil {
		return origins{}, nil, err
	}
	entry := &lookedUp{none: found.none, names: slices.Sorted(maps.Keys(found.names)), instances: found.instances, at: now}
	all.add(entry)
	if len(failed) > len(before) {
		return all, failed, nil
	}
	size := 128 + len(selector) + len(entry.none) + 8*cap(entry.instances)
	for _, name := range entry.names {
		size += 16 + len(name)
	}
	b.mtx.Lock()
	defer b.mtx.Unlock()
	for begin := first; begin <= last; begin += lookupSlice {
		slice := *entry
		slice.settled = entry.none == "" && len(entry.names) == 0 && len(failed) == 0 && begin+lookupSlice+settling < now
		b.lookups.Add(lookupKey{selector, begin}, &slice, size)
	}
	return all, failed, nil
}

// lookedUp adds what is known for the slices from first to last, and returns the
// stretch of those that must be looked up.
func (b *book) lookedUp(selector string, first, last int64, all *origins) (from, to int64) {
	now := b.now()
	from, to = last+lookupSlice, last
	b.mtx.Lock()
	defer b.mtx.Unlock()
	for begin := first; begin <= last; begin += lookupSlice {
		l, ok := b.lookups.Get(lookupKey{selector, begin})
		if !ok || !l.settled && now-l.at >= replica.ProfileAge.Milliseconds() {
			from, to = min(from, begin), begin
			continue
		}
		all.add(l)
	}
	return from, to
}

// lookUp finds the origins of a replica's series.
func (b *book) lookUp(ctx context.Context, r *replica.Replica, l transport.Lookup) (found lookedUp, err error) {
	p, err := r.Ready(ctx)
	if err != nil {
		return lookedUp{}, err
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
			names[i], texts[2*i], errs[2*i] = withoutLabel(ctx, client, name, l)
		})
		wg.Go(func() {
			defer guard.Recover(&errs[2*i+1])
			var values []string
			if values, texts[2*i+1], errs[2*i+1] = b.ofNoTarget(ctx, client, name, l); name == labelmap.TargetLabel {
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
			return lookedUp{}, err
		}
	}
	for _, text := range texts {
		if text != "" {
			return lookedUp{none: r.URL() + ": " + text}, nil
		}
	}
	b.table.addInstances(&found.instances, instances)
	found.names = slices.Concat(names...)
	return found, nil
}

// withoutLabel finds series that lack a label, and returns their names of metrics. If
// that does not tell all of them, it says so.
func withoutLabel(ctx context.Context, c *transport.Client, name string, l transport.Lookup) (metrics []string, text string, err error) {
	l.Matchers = append(slices.Clip(l.Matchers), labels.MustNewMatcher(labels.MatchEqual, name, ""))
	one := l
	one.Limit = 1
	list, _, err := c.Series(ctx, one)
	if err != nil || len(list) == 0 {
		return nil, "", err
	}
	l.Limit = mostOthers
	if metrics, _, err = c.LabelValues(ctx, labels.MetricName, l); err != nil {
		return nil, "", err
	}
	one.Matchers = append(one.Matchers, labels.MustNewMatcher(labels.MatchNotRegexp, labels.MetricName, labelmap.AnyOf(metrics)))
	if list, _, err = c.Series(ctx, one); err != nil || len(list) == 0 {
		return metrics, "", err
	}
	return nil, fmt.Sprintf("the series %s has no label %q, and so is of no target", findings.Shorten(list[0].String()), name), nil
}

// ofNoTarget returns the values of a label, and finds one that no target has. What a backend knows of
// labels is not exact in time, so that it is asked for those of `up` in the same
// way if they are not known from scrapes.
func (b *book) ofNoTarget(ctx context.Context, c *transport.Client, name string, l transport.Lookup) (values []string, odd string, err error) {
	l.Matchers = slices.Concat(l.Matchers, ofTargets)
	values, _, err = c.LabelValues(ctx, name, l)
	if err != nil {
		return nil, "", err
	}
	known := map[string]bool{"": true}
	for _, ls := range b.table.all() {
		known[ls.Get(name)] = true
	}
	unknown := func(v string) bool { return !known[v] }
	if !slices.ContainsFunc(values, unknown) {
		return values, "", nil
	}
	l.Matchers = matchUp
	up, _, err := c.LabelValues(ctx, name, l)
	if err != nil {
		return nil, "", err
	}
	for _, v := range up {
		known[v] = true
	}
	if i := slices.IndexFunc(values, unknown); i >= 0 {
		odd = fmt.Sprintf("there are series with %s=%q, and no target", name, findings.Shorten(values[i]))
	}
	return values, odd, nil
}
