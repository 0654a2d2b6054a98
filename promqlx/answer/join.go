package answer

import (
	"cmp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// columns copies a series of a result, whose memory the engine uses again. It is not ok if
// the series has both a float and a histogram at one time: the engine makes such series
// where a function makes the labels of two series equal.
func columns(s promql.Series) (out *dedup.Samples, ok bool) {
	out = &dedup.Samples{}
	f, h := s.Floats, s.Histograms
	for len(f) > 0 || len(h) > 0 {
		if len(f) > 0 && len(h) > 0 && f[0].T == h[0].T {
			return nil, false
		}
		if len(h) == 0 || len(f) > 0 && f[0].T < h[0].T {
			out.Append(0, f[0].T, f[0].F)
			f = f[1:]
			continue
		}
		out.AppendFloatHistogram(0, h[0].T, h[0].H.Copy())
		h = h[1:]
	}
	return out, true
}

// Join makes one list of series of the answers, sorted by labels, at the steps of a part, and
// merges their annotations into ws. Answers with equal labels become one series where their
// steps do not overlap: they were answered in turns. Where they overlap they stay separate
// series, and the rest of the expression aggregates them.
func Join(answers []Answer, st transport.Steps, ws *annotations.Annotations) []storage.Series {
	var out []storage.Series
	for _, alike := range byLabels(answers, ws) {
		if slices.ContainsFunc(alike, func(s segment) bool { return s.resampled != nil }) {
			out = append(out, &resampledSeries{segments: alike, steps: st})
			continue
		}
		for _, lane := range lanes(alike) {
			out = append(out, evaluatedSeries(alike[0].labels, lane, st))
		}
	}
	return out
}

// JoinDisjoint is Join for a part whose answers, one of each partition, must be disjoint: all that have
// equal labels become one series. why says that they are not disjoint, or that it cannot be seen because
// an answer may lack a value; it is "" if they are.
func JoinDisjoint(p *plan.Part, answers []Answer, ws *annotations.Annotations) (out []storage.Series, why string) {
	for _, a := range answers {
		for _, w := range a.Warnings {
			if strings.HasPrefix(w.Error(), annotations.PromQLWarning.Error()) {
				return nil, "an answer may lack values: " + w.Error()
			}
		}
	}
	for _, alike := range byLabels(answers, ws) {
		one, ok := united(alike)
		if !ok {
			return nil, p.Overlap()
		}
		out = append(out, evaluatedSeries(alike[0].labels, one, p.Steps))
	}
	return out, ""
}

// evaluatedSeries makes a series of samples at some of the steps.
func evaluatedSeries(lset labels.Labels, s *dedup.Samples, st transport.Steps) storage.Series {
	return dedup.NewSeries(lset, []dedup.Run{onGrid(s, st)}, st.Start, st.End, nil)
}

// byLabels returns the series of answers with equal labels together, sorted by labels and by their start,
// and merges the annotations into ws.
func byLabels(answers []Answer, ws *annotations.Annotations) (out [][]segment) {
	var all []segment
	for _, a := range answers {
		all = append(all, a.series...)
		ws.Merge(a.Warnings)
	}
	slices.SortStableFunc(all, func(a, b segment) int {
		return cmp.Or(labels.Compare(a.labels, b.labels), cmp.Compare(a.start(), b.start()))
	})
	for len(all) > 0 {
		n := 1
		for n < len(all) && labels.Equal(all[n].labels, all[0].labels) {
			n++
		}
		out = append(out, all[:n:n])
		all = all[n:]
	}
	return out
}

// united merges segments. It is not ok if two have a sample at the same time.
func united(list []segment) (out *dedup.Samples, ok bool) {
	if len(list) == 1 {
		return list[0].samples, true
	}
	out = &dedup.Samples{}
	for next := make([]int, len(list)); ; {
		first := -1 // the segment with the earliest sample of those that are left
		for i, s := range list {
			if next[i] == s.samples.Len() {
				continue
			}
			if first < 0 {
				first = i
				continue
			}
			switch c := cmp.Compare(s.samples.T[next[i]], list[first].samples.T[next[first]]); {
			case c == 0:
				return nil, false
			case c < 0:
				first = i
			}
		}
		if first < 0 {
			return out, true
		}
		out.AppendFrom(list[first].samples, next[first])
		next[first]++
	}
}

// lanes appends segments, sorted by their start, to each other where they do not overlap.
func lanes(list []segment) []*dedup.Samples {
	var out []*dedup.Samples
	for _, s := range list {
		i := slices.IndexFunc(out, func(l *dedup.Samples) bool { return l.T[l.Len()-1] < s.samples.T[0] })
		if i < 0 {
			out = append(out, s.samples)
			continue
		}
		for n := range s.samples.T {
			out[i].AppendFrom(s.samples, n)
		}
	}
	return out
}

// onGrid adds a stale marker after each run of steps at which the series has values, so that
// the engine does not look back to them from a later step.
func onGrid(s *dedup.Samples, st transport.Steps) *dedup.Samples {
	if last := s.T[s.Len()-1]; last >= st.End && int64(s.Len()) == (last-s.T[0])/st.Step+1 {
		return s
	}
	out := &dedup.Samples{}
	for i, t := range s.T {
		endRun(out, st, t)
		out.AppendFrom(s, i)
	}
	endRun(out, st, st.End+1)
	return out
}

// endRun appends a stale marker at the step after the last sample, if that step is before t
// (ms): the series has no value at it.
func endRun(s *dedup.Samples, st transport.Steps, t int64) {
	if n := s.Len(); n > 0 && s.T[n-1]+st.Step < t {
		s.Append(0, s.T[n-1]+st.Step, dedup.StaleNaN)
	}
}
