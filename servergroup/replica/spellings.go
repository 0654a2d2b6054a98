package replica

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/transport"
)

const (
	// maxOddValues and maxOddMetrics bound what is kept of a server's spellings.
	maxOddValues  = 500
	maxOddMetrics = 10_000
	// spellingsAge is how often all the data of a long-term store is looked at, and spellingsRetry how
	// soon again if it did not answer. The newest is looked at by each probe.
	spellingsAge   = time.Hour
	spellingsRetry = 10 * time.Minute
	// maxSpellingsWait is how long a probe waits for that.
	maxSpellingsWait = 3 * time.Second
)

// checkSpellings finds out how the server spells the numbers in its labels. If it does not tell, what
// it told before is taken to be true.
func (r *Replica) checkSpellings(ctx context.Context, p *Profile) {
	if p.Kind == transport.Oneprom {
		return // it shows them as this one does
	}
	ctx, cancel := context.WithTimeout(ctx, maxSpellingsWait)
	defer cancel()
	r.mtx.Lock()
	last := r.lastProfile
	r.mtx.Unlock()
	if last != nil && (last.Kind != p.Kind || last.Spellings == nil && !p.Dialect.Current) {
		last = nil // it was another server
	}
	p.spelledAt = r.now()
	window := transport.Lookup{MinT: math.MinInt64, MaxT: math.MaxInt64}
	if last != nil && p.Dialect.LongTerm && p.spelledAt.Sub(last.spelledAt) < spellingsAge {
		p.spelledAt = last.spelledAt
		window.MinT = r.now().UnixMilli() - dataWindow
	}
	found := make([]labelmap.Spelling, len(labelmap.NumberLabels))
	errs := make([]error, len(found))
	var wg sync.WaitGroup
	for i, label := range labelmap.NumberLabels {
		wg.Go(func() {
			defer guard.Recover(&errs[i])
			var before labelmap.Spelling
			if last != nil && last.Spellings != nil {
				before = last.Spellings.Of[label]
			}
			found[i], errs[i] = r.readSpelling(ctx, p, label, window, before)
		})
	}
	wg.Wait()
	p.Spellings = &labelmap.Spellings{Verbatim: !p.Dialect.Current, Of: map[string]labelmap.Spelling{}}
	for i, label := range labelmap.NumberLabels {
		var before labelmap.Spelling
		if last != nil && last.Spellings != nil {
			before = last.Spellings.Of[label]
		}
		switch {
		case errs[i] != nil && last != nil:
			found[i] = before
		case errs[i] != nil && p.Dialect.Current:
			found[i] = labelmap.Spelling{}
		case errs[i] != nil:
			found[i] = labelmap.Spelling{Unlisted: true, Unnamed: true}
			p.spelledAt = r.now().Add(spellingsRetry - spellingsAge)
		case window.MinT > math.MinInt64:
			found[i] = united(before, found[i])
		}
		if found[i].Unlisted || len(found[i].Values) > 0 {
			p.Spellings.Of[label] = found[i]
			p.findPresumed(label, found[i])
		}
	}
	if p.Dialect.Current && len(p.Spellings.Of) == 0 {
		p.Spellings = nil
	}
}

// united returns what two looks at a server's data have shown.
func united(before, now labelmap.Spelling) labelmap.Spelling {
	now.Unlisted, now.Unnamed = now.Unlisted || before.Unlisted, now.Unnamed || before.Unnamed
	now.Values = slices.Concat(before.Values, now.Values)
	slices.Sort(now.Values)
	now.Values = slices.Compact(now.Values)
	metrics := maps.Clone(before.Metrics)
	if metrics == nil {
		metrics = map[string]labelmap.Meaning{}
	}
	maps.Copy(metrics, now.Metrics)
	now.Metrics = metrics
	return now.Bounded(maxOddValues, maxOddMetrics)
}

// readSpelling looks for odd values of a label in a window of the server's data, and for the metrics
// that have them.
func (r *Replica) readSpelling(ctx context.Context, p *Profile, label string, l transport.Lookup, before labelmap.Spelling) (s labelmap.Spelling, err error) {
	if p.Dialect.ReadOnly { // it would have to read all samples
		return labelmap.Spelling{Unlisted: true, Unnamed: true}, nil
	}
	values, _, err := p.Client.LabelValues(ctx, label, l)
	if err != nil {
		return s, err
	}
	for _, v := range values {
		if _, odd := labelmap.Canonical(v); odd {
			s.Values = append(s.Values, v)
		}
	}
	if len(s.Values) == 0 {
		return s, nil
	}
	slices.Sort(s.Values)
	s = s.Bounded(maxOddValues, maxOddMetrics)
	having := labels.MustNewMatcher(labels.MatchNotEqual, label, "")
	if !s.Unlisted {
		having = labels.MustNewMatcher(labels.MatchRegexp, label, labelmap.AnyOf(s.Values))
	}
	l.Matchers = []*labels.Matcher{having}
	metrics, _, err := p.Client.LabelValues(ctx, labels.MetricName, l)
	if err != nil {
		return s, err
	}
	s.Metrics, s.Doubtful, err = r.meanings(ctx, p, label, s.Values, metrics, before, l)
	return s.Bounded(maxOddValues, maxOddMetrics), err
}

// meanings finds out what the odd values of a label are in the series of metrics. A target that is gone
// has no metadata any more: what it was known to be before stays true. doubtful is as
// labelmap.Spelling.Doubtful.
func (r *Replica) meanings(ctx context.Context, p *Profile, label string, values, metrics []string, before labelmap.Spelling, l transport.Lookup) (out map[string]labelmap.Meaning, doubtful string, err error) {
	out = make(map[string]labelmap.Meaning, len(metrics))
	var types map[string][]struct {
		Type string `json:"type"`
	}
	if _, err := p.Client.Metadata(ctx, "", nil, &types); err != nil && !Unreadable(err) && transport.ClassOf(err) != transport.ClassContent {
		return nil, "", err // else there is none, or too much
	}
	var rest []string
	for _, metric := range metrics {
		var list []string
		for _, family := range familiesOf(metric) {
			for _, e := range types[family] {
				list = append(list, e.Type)
			}
		}
		was, known := before.Metrics[metric]
		switch {
		case isNumber(label, metric, list):
			out[metric] = labelmap.Number
		case len(list) > 0:
			out[metric] = labelmap.Literal
		case known && was != labelmap.Presumed:
			out[metric] = was
		default:
			rest = append(rest, metric)
		}
	}
	if len(rest) == 0 {
		return out, doubtful, nil
	}
	recorded, untyped, err := r.untyped(ctx, p, label, rest)
	if err != nil && !Unreadable(err) {
		return nil, "", err
	}
	var both map[string]bool
	if p.Dialect.Current {
		// It has brought what it scraped to its spelling. So these are old, or came as they are.
		if both, err = inBothSpellings(ctx, p, label, values, l); err != nil {
			return nil, "", err
		}
	}
	for _, metric := range rest {
		switch {
		case slices.Contains(untyped, metric), p.Dialect.Current && !both[metric]:
			out[metric] = labelmap.Literal
		case slices.Contains(recorded, metric):
			out[metric] = labelmap.Presumed
		case p.Dialect.Current:
			out[metric], doubtful = labelmap.Literal, metric
		default:
			out[metric] = labelmap.Presume(label, metric)
		}
	}
	return out, doubtful, nil
}

// maxBoth is the most numbers that are looked for in both spellings.
const maxBoth = 100

// inBothSpellings returns the metrics of which the server has a number in two spellings.
func inBothSpellings(ctx context.Context, p *Profile, label string, values []string, l transport.Lookup) (map[string]bool, error) {
	both := map[string]bool{}
	having := func(value string) ([]string, error) {
		l.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, label, value)}
		metrics, _, err := p.Client.LabelValues(ctx, labels.MetricName, l)
		return metrics, err
	}
	for _, value := range values[:min(len(values), maxBoth)] {
		canonical, _ := labelmap.Canonical(value)
		as3, err := having(canonical)
		if err != nil {
			return nil, err
		}
		if len(as3) == 0 {
			continue
		}
		odd, err := having(value)
		if err != nil {
			return nil, err
		}
		for _, metric := range odd {
			both[metric] = both[metric] || slices.Contains(as3, metric)
		}
	}
	return both, nil
}

// maxUntyped is the most metrics without metadata that are looked for in scrapes.
const maxUntyped = 500

// untyped returns those of some metrics without metadata that rules record, and those that a scrape
// brought just now: they have no type, as the target would have told it.
func (r *Replica) untyped(ctx context.Context, p *Profile, label string, metrics []string) (recorded, untyped []string, err error) {
	if p.Kind != transport.Prometheus {
		return nil, nil, nil
	}
	if recorded, err = p.Client.RecordNames(ctx); err != nil {
		return nil, nil, err
	}
	scraped, err := p.Client.ScrapedTargets(ctx)
	if err != nil || len(scraped) == 0 || len(metrics) > maxUntyped {
		return recorded, nil, err
	}
	type target struct{ job, instance string }
	targetOf := func(ls labels.Labels) target { return target{ls.Get(model.JobLabel), ls.Get(model.InstanceLabel)} }
	targets := map[target]bool{}
	for _, ls := range scraped {
		targets[targetOf(ls)] = true
	}
	series, err := p.Client.LabelsOf(ctx, fmt.Sprintf("count by (__name__, job, instance) (%s)", transport.Selector([]*labels.Matcher{
		labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, labelmap.AnyOf(metrics)),
		labels.MustNewMatcher(labels.MatchNotEqual, label, ""),
	})), r.now().UnixMilli())
	for _, ls := range series {
		metric := ls.Get(labels.MetricName)
		if targets[targetOf(ls)] && !slices.Contains(recorded, metric) && !slices.Contains(untyped, metric) {
			untyped = append(untyped, metric)
		}
	}
	return recorded, untyped, err
}

// familySuffixes are what names of series may have after the name that metadata is under.
var familySuffixes = []string{"_bucket", "_sum", "_count", "_total", "_created", "_info", "_gsum", "_gcount"}

// familiesOf returns the names that the metadata of a metric may be under.
func familiesOf(metric string) []string {
	out := []string{metric}
	for _, suffix := range familySuffixes {
		if family, ok := strings.CutSuffix(metric, suffix); ok {
			out = append(out, family)
		}
	}
	return out
}

// isNumber reports whether Prometheus 3 brings the values of a label of a metric to its spelling, if
// targets say that the metric is of these types.
func isNumber(label, metric string, types []string) bool {
	if label == model.BucketLabel {
		return strings.HasSuffix(metric, "_bucket") && slices.Contains(types, string(model.MetricTypeHistogram))
	}
	return slices.Contains(types, string(model.MetricTypeSummary))
}

// findPresumed adds a finding if it cannot be known which odd values of a label are numbers.
func (p *Profile) findPresumed(label string, s labelmap.Spelling) {
	var presumed []string
	for metric, m := range s.Metrics {
		if m == labelmap.Presumed {
			presumed = append(presumed, metric)
		}
	}
	if s.Doubtful != "" {
		p.findings = append(p.findings, fmt.Sprintf("%s of %s has a number in two spellings, and no metadata says whether they are one: it is shown as the backend has it", label, s.Doubtful))
	}
	switch {
	case len(presumed) > 0:
		p.findings = append(p.findings, PresumedText(label, slices.Min(presumed))+
			fmt.Sprintf(" (%d of %d metrics that spell %s otherwise than Prometheus 3)", len(presumed), len(s.Metrics), label))
	case s.Unlisted && s.Unnamed && !p.Dialect.ReadOnly:
		p.findings = append(p.findings, fmt.Sprintf("the backend does not tell how it spells the numbers in %q: what looks like a histogram or summary is shown in the spelling of Prometheus 3", label))
	}
}

// PresumedText says that the values of a label of a metric are presumed to be numbers.
func PresumedText(label, metric string) string {
	kind := "summary"
	if label == model.BucketLabel {
		kind = "histogram"
	}
	return fmt.Sprintf("%s of %s is shown in the spelling of Prometheus 3, as it looks like a %s; the backend has no metadata that says so", label, metric, kind)
}

// Recognize fails if an answer shows odd values that the profile p does not know: the answer must not
// be used, and the next request probes the server. It does so once for each value, as a server may
// not list a value that its series have.
func (r *Replica) Recognize(p *Profile, unknown []labelmap.Sighting) error {
	if len(unknown) == 0 || p.Kind == transport.Oneprom {
		return nil
	}
	r.mtx.Lock()
	defer r.mtx.Unlock()
	fresh := false
	for _, s := range unknown {
		if probe, ok := r.sighted[s]; ok && probe != p.probe {
			continue // probed since, and the server does not list it
		}
		fresh = true
		if len(r.sighted) >= maxOddMetrics {
			clear(r.sighted)
		}
		r.sighted[s] = p.probe
	}
	if !fresh {
		return nil
	}
	if r.profile == p {
		r.profile, r.probeErr = nil, nil // the next request probes at once
	}
	return errRespelled
}
