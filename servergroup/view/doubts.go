package view

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/findings"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/routing"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// noteRenamed adds warnings and findings about the labels of a response that were renamed,
// because the group injects labels of the same names.
func (v *View) noteRenamed(t *RoutedGroup, rules *labelmap.Rules, remarks *completeness.Remarks) {
	for _, name := range slices.Sorted(maps.Keys(rules.Conflicts())) {
		text := labelmap.ConflictText(name, t.Config.Labels[name], rules.Conflicts()[name])
		t.Findings.Add("renamed "+name, text, v.Now)
		remarks.Warn(completeness.Describe(t.Config.Name, "", text))
	}
}

// notePresumed adds warnings about numbers in labels of which only names tell that they are numbers.
func (v *View) notePresumed(t *RoutedGroup, r *replica.Replica, rules *labelmap.Rules, remarks *completeness.Remarks) {
	for _, s := range rules.PresumedNumbers() {
		if t.Restricted() {
			remarks.Warn(completeness.Describe(t.Config.Name, r.URL(), completeness.Withheld))
			return
		}
		remarks.Warn(completeness.Describe(t.Config.Name, r.URL(), replica.PresumedText(s.Label.Name, s.Metric)))
	}
}

// doubter returns a function that checks every series of an answer for what makes it doubtful;
// nil if nothing can.
func (v *View) doubter(sources []source, sel Selection, remarks *completeness.Remarks) func(labels.Labels, []dedup.Run, []provenance) {
	lossy, several := false, false // several groups that hold the newest data
	var newest *config.Group
	for _, s := range sources {
		lossy = lossy || s.profile.Dialect.Lacks.StaleMarkers && sel.Steps != nil
		if s.current() {
			several = several || newest != nil && newest != s.group.Config
			newest = s.group.Config
		}
	}
	if !several && !lossy {
		return nil
	}
	return func(ls labels.Labels, runs []dedup.Run, from []provenance) {
		if several && len(runs) > 1 {
			v.noteRuns(ls, runs, from, remarks)
		}
		if lossy {
			noteEnds(runs, from, *sel.Steps, remarks)
		}
	}
}

// noteHistograms warns of sources that do not store native histograms where others have some: a
// source without series may have lost all of them. There is no warning if the
// histograms of the others begin with the window.
func (v *View) noteHistograms(sources []source, sel Selection, remarks *completeness.Remarks) {
	for _, s := range sources {
		if !s.profile.Dialect.Lacks.Histograms {
			continue
		}
		lo, _ := s.group.Config.TimeRange.Bounds(v.Now)
		first, exists := int64(math.MaxInt64), false
		for _, o := range sources {
			if t, ok := o.firstHistogram(); ok && (len(s.series) > 0 || !routing.Disjoint(s.group.Config, o.group.Config)) {
				first, exists = min(first, t), true
			}
		}
		if exists && first > max(lo, sel.MinT)+longestPause {
			remarks.Warn(completeness.Describe(s.group.Config.Name, "", fmt.Sprintf("%s does not store native histograms: they are missing from what it holds", s.profile.Kind)))
		}
	}
}

// longestPause (ms) is how long after the beginning of a window the first sample may come before
// samples seem to be missing: Prometheus' lookback.
const longestPause = 5 * 60 * 1000

// firstHistogram returns the time (ms) of the first sample of the series that have native
// histograms.
func (s source) firstHistogram() (first int64, exists bool) {
	first = math.MaxInt64
	for _, one := range s.series {
		if t, _, ok := extent(one.Run); ok && t < first && hasHistograms(one.Run) {
			first, exists = t, true
		}
	}
	return first, exists
}

// hasHistograms reports whether there is a native histogram among the samples.
func hasHistograms(r dedup.Run) bool {
	switch r := dedup.Unbounded(r).(type) {
	case dedup.Chunks:
		return slices.ContainsFunc(r, func(c dedup.Chunk) bool { return c.Encoding != chunkenc.EncXOR && c.Encoding != chunkenc.EncXOR2 })
	case *dedup.Samples:
		return r.H != nil || r.FH != nil
	}
	return false
}

// noteEnds warns if a series ended, or had a gap, at a source that does not store stale markers:
// steps see its last sample until the lookback is over.
func noteEnds(runs []dedup.Run, from []provenance, steps transport.Steps, remarks *completeness.Remarks) {
	for i, r := range runs {
		s, ok := dedup.Unbounded(r).(*dedup.Samples)
		if !ok || !from[i].profile.Dialect.Lacks.StaleMarkers {
			continue
		}
		// covered reports whether a source with stale markers has the series at t (ms).
		covered := func(t int64) bool {
			for j, o := range runs {
				mint, maxt, ok := extent(o)
				if ok && mint <= t && t <= maxt && !from[j].profile.Dialect.Lacks.StaleMarkers {
					return true
				}
			}
			return false
		}
		if endsInSight(s.T, steps, covered) {
			remarks.Warn(completeness.Describe(from[i].group.Config.Name, "", fmt.Sprintf("%s does not store stale markers: series that ended may be shown for %s longer",
				from[i].profile.Kind, time.Duration(steps.Lookback)*time.Millisecond)))
		}
	}
}

// endsInSight reports whether a step still sees a sample (ts, ms) after which a scrape is missing
// at a time that covered is false for.
func endsInSight(ts []int64, steps transport.Steps, covered func(t int64) bool) bool {
	late := 3 * dedup.Interval(ts) / 2
	for i, t := range ts {
		until := min(t+steps.Lookback, steps.End+1)
		if i+1 < len(ts) {
			until = min(until, ts[i+1])
		}
		after := max(0, t+late-steps.Start+steps.Step-1) / steps.Step
		if steps.Start+after*steps.Step < until && !covered(t+late) {
			return true
		}
	}
	return false
}

// current reports whether samples come from a group that holds the newest data, and not from an
// archive, which may overlap with others.
func (p provenance) current() bool {
	cfg := p.group.Config
	return !p.profile.Dialect.LongTerm && cfg.TimeRange.MinAge == 0 && cfg.TimeRange.End.IsZero() && len(cfg.CopiesOf) == 0
}

// held reports whether samples come from what a group holds alone.
func (p provenance) held() bool { return p.group.Config.Portion != nil && p.group.Config.Portion.Held }

// noteRuns warns if two runs of a series come from different groups that both hold the newest
// data: the groups may be replicas of each other.
func (v *View) noteRuns(series labels.Labels, runs []dedup.Run, from []provenance, remarks *completeness.Remarks) {
	for i := range runs {
		for j := range i {
			if from[j].group.Config.Name != from[i].group.Config.Name && !from[j].held() && !from[i].held() && from[j].current() && from[i].current() && overlap(runs[j], runs[i]) {
				v.noteSame(series, from[j].group, from[i].group, remarks)
			}
		}
	}
}

// noteSame adds a warning and findings that two groups hold a series.
func (v *View) noteSame(series labels.Labels, a, b *RoutedGroup, remarks *completeness.Remarks) {
	about := fmt.Sprintf("same series %q %q", a.Config.Name, b.Config.Name)
	if !remarks.First(about) {
		return
	}
	text := fmt.Sprintf("server groups %q and %q hold the same series, %s for one, and are merged as if they were replicas: if they are, make them one group, if not, tell them apart by `labels`, and if one is an archive, give it `copies_of` or a `time_range`",
		a.Config.Name, b.Config.Name, findings.Shorten(series.String()))
	a.Findings.Add(about, text, v.Now)
	b.Findings.Add(about, text, v.Now)
	remarks.Warn(text)
}

// overlap reports whether two runs have samples at the same time.
func overlap(a, b dedup.Run) bool {
	amin, amax, aok := extent(a)
	bmin, bmax, bok := extent(b)
	return aok && bok && amin <= bmax && bmin <= amax
}

// extent returns the times (ms) of the first and the last sample of a run.
func extent(r dedup.Run) (mint, maxt int64, ok bool) {
	switch r := dedup.Unbounded(r).(type) {
	case dedup.Chunks:
		if n := len(r); n > 0 {
			return r[0].MinT, r[n-1].MaxT, true
		}
	case *dedup.Samples:
		if n := r.Len(); n > 0 {
			return r.T[0], r.T[n-1], true
		}
	}
	return 0, 0, false
}
