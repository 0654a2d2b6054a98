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
	"github.com/oneprom/oneprom/servergroup/routing"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// noteOusted notes the labels that injected ones have ousted in an answer.
func (v *View) noteOusted(t *RoutedGroup, rules *labelmap.Rules, remarks *completeness.Remarks) {
	for _, name := range slices.Sorted(maps.Keys(rules.Conflicts())) {
		text := labelmap.ConflictText(name, t.Config.Labels[name], rules.Conflicts()[name])
		t.Findings.Add("ousted "+name, text, v.Now)
		remarks.Warn(completeness.Describe(t.Config.Name, "", text))
	}
}

// auditor returns what looks at every series of an answer for what makes it
// doubtful, nil if nothing can.
func (v *View) auditor(sources []source, sel Selection, remarks *completeness.Remarks) func(labels.Labels, []dedup.Run, []origin) {
	lossy, several := false, false // several groups that hold the newest data
	var newest *config.Group
	for _, s := range sources {
		lossy = lossy || s.profile.Dialect.Lacks.StaleMarkers && sel.Steps != nil
		if s.current() {
			several = several || newest != nil && newest != s.from.Config
			newest = s.from.Config
		}
	}
	if !several && !lossy {
		return nil
	}
	return func(ls labels.Labels, runs []dedup.Run, from []origin) {
		if several && len(runs) > 1 {
			v.noteRuns(ls, runs, from, remarks)
		}
		if lossy {
			noteEnds(runs, from, *sel.Steps, remarks)
		}
	}
}

// noteHistograms notes the sources that cannot have what others show to be native
// histograms, unless these have them from the beginning of the window on. Those
// that have nothing may have lost all of it.
func (v *View) noteHistograms(sources []source, sel Selection, remarks *completeness.Remarks) {
	for _, s := range sources {
		if !s.profile.Dialect.Lacks.Histograms {
			continue
		}
		lo, _ := s.from.Config.TimeRange.Bounds(v.Now)
		first, found := int64(math.MaxInt64), false
		for _, o := range sources {
			if t, ok := o.firstHistogram(); ok && (len(s.series) > 0 || !routing.Disjoint(s.from.Config, o.from.Config)) {
				first, found = min(first, t), true
			}
		}
		if found && first > max(lo, sel.MinT)+longestPause {
			remarks.Warn(completeness.Describe(s.from.Config.Name, "", fmt.Sprintf("%s does not store native histograms: they are missing from what it holds", s.profile.Kind)))
		}
	}
}

// longestPause (ms) is how long after the beginning of a window the first sample may
// come without that any seems to be missing: Prometheus' lookback.
const longestPause = 5 * 60 * 1000

// firstHistogram returns the time (ms) of the first sample of the series that have
// native histograms.
func (s source) firstHistogram() (first int64, found bool) {
	first = math.MaxInt64
	for _, one := range s.series {
		if t, _, ok := extent(one.Run); ok && t < first && hasHistograms(one.Run) {
			first, found = t, true
		}
	}
	return first, found
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

// noteEnds notes a series that ended, or had a gap, with nobody to tell: a backend
// that does not store stale markers shows it until the lookback is over.
func noteEnds(runs []dedup.Run, from []origin, steps transport.Steps, remarks *completeness.Remarks) {
	for i, r := range runs {
		s, ok := dedup.Unbounded(r).(*dedup.Samples)
		if !ok || !from[i].profile.Dialect.Lacks.StaleMarkers {
			continue
		}
		told := func(t int64) bool { // whether another backend has the series then
			for j, o := range runs {
				mint, maxt, ok := extent(o)
				if ok && mint <= t && t <= maxt && !from[j].profile.Dialect.Lacks.StaleMarkers {
					return true
				}
			}
			return false
		}
		if endsInSight(s.T, steps, told) {
			remarks.Warn(completeness.Describe(from[i].from.Config.Name, "", fmt.Sprintf("%s does not store stale markers: series that ended may be shown for %s longer",
				from[i].profile.Kind, time.Duration(steps.Lookback)*time.Millisecond)))
		}
	}
}

// endsInSight reports whether a step still sees a sample (ts, in ms) after which a
// scrape is missing, at a time of which nobody else has told.
func endsInSight(ts []int64, steps transport.Steps, told func(t int64) bool) bool {
	late := 3 * dedup.Interval(ts) / 2
	for i, t := range ts {
		until := min(t+steps.Lookback, steps.End+1)
		if i+1 < len(ts) {
			until = min(until, ts[i+1])
		}
		after := max(0, t+late-steps.Start+steps.Step-1) / steps.Step
		if steps.Start+after*steps.Step < until && !told(t+late) {
			return true
		}
	}
	return false
}

// current reports whether a group holds the newest data at first hand: not an
// archive, which may overlap with others.
func (o origin) current() bool {
	tr := o.from.Config.TimeRange
	return !o.profile.Dialect.LongTerm && tr.MinAge == 0 && tr.End.IsZero()
}

// noteRuns looks at the runs of one series, whose origins are given: two groups
// that both hold the newest data of one series are replicas nobody declared.
func (v *View) noteRuns(series labels.Labels, runs []dedup.Run, from []origin, remarks *completeness.Remarks) {
	for i := range runs {
		for j := range i {
			if from[j].from.Config != from[i].from.Config && from[j].current() && from[i].current() && overlap(runs[j], runs[i]) {
				v.noteSame(series, from[j].from, from[i].from, remarks)
			}
		}
	}
}

// noteSame notes that two groups hold a series.
func (v *View) noteSame(series labels.Labels, a, b *RoutedGroup, remarks *completeness.Remarks) {
	about := fmt.Sprintf("same series %q %q", a.Config.Name, b.Config.Name)
	if !remarks.First(about) {
		return
	}
	text := fmt.Sprintf("server groups %q and %q hold the same series, %s for one, and are merged as if they were replicas: if they are, make them one group, if not, tell them apart by `labels`, and if one is an archive, give it a `time_range`",
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
