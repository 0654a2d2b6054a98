package view

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/routing"
)

const (
	// valuesAge is how long the values of intrinsic labels are believed.
	valuesAge = 2 * time.Minute
	// valuesSettled is how old samples must have been when the values were looked up: younger ones
	// may have been on their way.
	valuesSettled = 10 * time.Minute
)

// Values are the values that the intrinsic labels of a group had in its data at some moment, all of
// them.
type Values struct {
	At       time.Time // when the replicas were asked
	Replicas []*replica.Replica
	ByLabel  map[string][]string
}

// Intrinsic is what is known of the intrinsic labels of a group. It is safe for concurrent use; the
// zero value is ready for use.
type Intrinsic struct {
	known  atomic.Pointer[Values]
	wanted atomic.Int64 // when a query could have used values (ms)
}

// Know sets the values; nil if there is doubt.
func (i *Intrinsic) Know(v *Values) { i.known.Store(v) }

// Known returns the values; nil if there are none.
func (i *Intrinsic) Known() *Values { return i.known.Load() }

// Wanted returns when a query could last have used values.
func (i *Intrinsic) Wanted() time.Time { return time.UnixMilli(i.wanted.Load()) }

// route is routing.To, but for what the values of intrinsic labels rule out, and groups whose copies are
// not needed.
func (v *View) route(g Group, ms []*labels.Matcher, mint, maxt int64) routing.Route {
	r := routing.To(g.Config, g.With(ms), mint, maxt, v.Now)
	if r.Skipped == "" && v.without != nil && v.without[g.Rank] {
		r.Skipped = "its servers keep no samples of that time"
		if len(g.Config.CopiesOf) > 0 {
			r.Skipped = "its samples of that time are copies (copies_of) of those that other groups keep"
		}
	}
	if r.Skipped == "" && len(g.Config.IntrinsicLabels) > 0 {
		r.Skipped = v.lacks(g, g.With(ms), r.MaxT)
	}
	return r
}

// lacks returns why a group has no series of a selector until maxt (ms), by the values of its intrinsic
// labels; "" if it may have some. A new value may be there of samples that were young when the values
// were looked up, so these decide on older samples only.
func (v *View) lacks(g Group, ms []*labels.Matcher, maxt int64) string {
	if g.Intrinsic == nil {
		return ""
	}
	for _, name := range g.Config.IntrinsicLabels {
		if labelmap.MayBeExported(g.Config, name) || !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return m.Name == name && !m.Matches("") }) {
			continue // the value may be that of another label, or series without the label match, too
		}
		g.Intrinsic.wanted.Store(v.Now.UnixMilli())
		putBack := g.Values != nil && g.Values.At.UnixMilli() > v.Now.UnixMilli() // the clock of this host
		if g.Values == nil || putBack || v.Now.Sub(g.Values.At) > valuesAge || !slices.Equal(g.Values.Replicas, g.Replicas) {
			continue
		}
		_, hi := g.Config.TimeRange.Bounds(v.Now)
		settled := g.Values.At.Add(-valuesSettled).UnixMilli()
		// The merge looks at a margin behind the window, too.
		if maxt > settled || min(maxt+dedup.MarginOf(maxHolders), hi) > settled {
			continue
		}
		values, ok := g.Values.ByLabel[name]
		if ok && !slices.ContainsFunc(values, func(value string) bool {
			return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return m.Name == name && !m.Matches(value) })
		}) {
			return fmt.Sprintf("no series of it that old has a value of its intrinsic label %q that matches", name)
		}
	}
	return ""
}
