package view

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/findings"
)

// A group with `copies_of` holds copies of what other groups, its originals, have scraped. Where these
// keep all of their samples, the copies need not be asked for.

// ContradictCopies notes that a group has a series that none of the originals has. It returns what there is
// to say of it.
func ContradictCopies(copying *Belief, originals []string, series labels.Labels, now time.Time) string {
	return copying.contradict(func() string {
		return fmt.Sprintf("`copies_of` says that all series come from %s, but none of these has %s: it is not relied on; name such series in `holds`, the group that they come from in `copies_of`, or remove them",
			strings.Join(originals, ", "), findings.Shorten(series.String()))
	}, now)
}

// IsCopyOf reports whether the group has copies of the series of another one.
func (g Group) IsCopyOf(o Group) bool { return slices.Contains(g.Config.CopiesOf, o.Entry) }

// HasCopies reports whether some group has copies.
func (v *View) HasCopies() bool {
	return slices.ContainsFunc(v.Groups, func(g Group) bool { return len(g.Config.CopiesOf) > 0 })
}

// CopiesMatter returns the spans of time in which the samples matter that a group with copies has of a
// selector: its originals keep all others. why says why all matter; it is "" if others do not. For a
// request whose answer leaves out groups that are missing, what servers kept when they were last there
// is enough.
func (v *View) CopiesMatter(g Group, ms []*labels.Matcher) (spans []evidence.Span, why string) {
	always := []evidence.Span{{From: math.MinInt64, To: math.MaxInt64}}
	switch {
	case v.Request.Restricted:
		return always, "the request may not see all groups"
	case g.Copying.Contradiction(v.Now) != "":
		return always, "`copies_of` is contradicted by the data"
	case g.Config.Portion != nil && g.Config.Portion.Held:
		return always, "`holds` says that others do not have these series"
	}
	concerns := v.Concerns(ms)
	missing := map[string]bool{}
	for _, name := range g.Config.CopiesOf {
		missing[name] = true
	}
	for _, o := range v.Groups {
		if _, is := missing[o.Entry]; !is {
			continue
		}
		missing[o.Entry] = false
		if !concerns(o) {
			continue
		}
		notKept, doubt := v.notKept(o)
		if doubt != "" {
			return always, fmt.Sprintf("server group %q: %s", o.Config.Name, doubt)
		}
		spans = append(spans, notKept...)
	}
	for _, name := range g.Config.CopiesOf {
		if missing[name] {
			return always, fmt.Sprintf("server group %q has no targets", name)
		}
	}
	if len(spans) == 0 {
		return always, "the selector concerns none of the groups that it has copies of"
	}
	return spans, ""
}

// becauseOf returns why a group is asked for copies of a selection's samples; "" if it has none.
func (v *View) becauseOf(g Group, sel Selection) string {
	if len(g.Config.CopiesOf) == 0 || g.Config.Portion != nil && g.Config.Portion.Held {
		return ""
	}
	spans, why := v.CopiesMatter(g, sel.Matchers)
	if why != "" {
		return why
	}
	for _, s := range spans {
		if sel.MinT-dedup.Margin <= s.To && sel.MaxT+dedup.Margin >= s.From {
			return "others do not keep all samples up to " + config.FormatTime(s.To)
		}
	}
	return "others may have lost samples, or cannot prove that they have all"
}

// notKept returns the spans of time of which some replica of a group does not keep all samples. doubt is why
// they are not known.
func (v *View) notKept(g Group) (spans []evidence.Span, doubt string) {
	lo, hi := g.Config.TimeRange.Bounds(v.Now)
	switch {
	case hi < config.MaxTime:
		return nil, "its time_range ends"
	case g.Offline:
		return nil, "only a running oneprom knows for how long its servers keep samples"
	case len(g.Replicas) == 0:
		return nil, "it has no replicas"
	}
	spans = []evidence.Span{{From: math.MinInt64, To: lo}}
	for _, r := range g.Replicas {
		kept, known, current := r.Kept()
		if !known || !current && !v.Request.WholeSeries {
			return nil, "it is not known for how long " + r.URL() + " keeps samples"
		}
		spans[0].To = max(spans[0].To, kept.Since)
		for _, hole := range kept.Holes {
			spans = append(spans, evidence.Span(hole))
		}
	}
	return spans, ""
}

// NoneBefore returns the time (ms) before which a group has no samples, as far as that is known:
// config.MinTime where it is not, or where nobody has copies of them.
func (v *View) NoneBefore(g Group) int64 {
	if !slices.ContainsFunc(v.Groups, func(o Group) bool { return o.IsCopyOf(g) }) || len(g.Replicas) == 0 || g.Offline {
		return config.MinTime
	}
	none := int64(config.MaxTime)
	for _, r := range g.Replicas {
		kept, _, current := r.Kept()
		if !current {
			return config.MinTime
		}
		none = min(none, kept.None)
	}
	return max(none, config.MinTime)
}

// Alone returns the view for windows at which no groups are merged with each other: samples around a
// window do not matter. Those in without (by rank) are not asked: they keep no samples of that time, or
// copies of what others keep, who must prove that they have all.
func (v *View) Alone(without []bool) *View {
	out := *v
	out.noMargin, out.without = true, without
	return &out
}

// WithoutCopiesOf reports whether a group with copies of g is not asked, so that g must prove that it has
// all samples.
func (v *View) WithoutCopiesOf(g Group) bool {
	for i, not := range v.without {
		if not && v.Groups[i].IsCopyOf(g) {
			return true
		}
	}
	return false
}
