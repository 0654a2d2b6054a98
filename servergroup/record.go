package servergroup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/config"
)

// Gap is data that an answer lacks.
type Gap struct {
	Group  string `json:"group"`
	Region string `json:"region,omitempty"`
	// From and To bound the samples (ms, inclusive) that were wanted of the group.
	From int64 `json:"from"`
	To   int64 `json:"to"`
	// Reason is why they are missing.
	Reason string `json:"reason"`

	// nobodys tells that no group holds it, as the configuration says: nobody failed.
	nobodys bool
}

// String is a warning's text.
func (g Gap) String() string {
	return fmt.Sprintf("%s (wanted from %s to %s)", g.Reason, config.FormatTime(g.From), config.FormatTime(g.To))
}

// Completeness is what the answer to a request lacks: a gap for each group at the most.
// Without any it is whole. It is safe for concurrent use.
type Completeness struct {
	mtx  sync.Mutex
	told bool           // whether there is an answer that it is of
	gaps map[string]Gap // by group
}

type completenessKey struct{}

// WithCompleteness has the views of a request tell what its answer lacks.
func WithCompleteness(ctx context.Context, c *Completeness) context.Context {
	return context.WithValue(ctx, completenessKey{}, c)
}

// Gaps are sorted by group.
func (c *Completeness) Gaps() []Gap {
	c.mtx.Lock()
	defer c.mtx.Unlock()
	out := make([]Gap, 0, len(c.gaps))
	for _, g := range c.gaps {
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b Gap) int { return cmp.Compare(a.Group, b.Group) })
	return out
}

// Told tells whether there is an answer that it is of.
func (c *Completeness) Told() bool {
	c.mtx.Lock()
	defer c.mtx.Unlock()
	return c.told
}

// add takes a gap over. Of several of a group the first reason stays, and the windows
// are united.
func (c *Completeness) add(g Gap) {
	c.mtx.Lock()
	defer c.mtx.Unlock()
	if known, ok := c.gaps[g.Group]; ok {
		known.From, known.To = min(known.From, g.From), max(known.To, g.To)
		known.nobodys = known.nobodys && g.nobodys
		g = known
	}
	if c.gaps == nil {
		c.gaps = map[string]Gap{}
	}
	c.gaps[g.Group] = g
}

// lacks is told that an answer lacks data of a group.
func (v *View) lacks(g *config.Group, from, to int64, reason string) {
	v.completeness.add(Gap{Group: g.Name, Region: g.Region, From: from, To: to, Reason: reason})
}

// Gaps are what answers of this view lack so far.
func (v *View) Gaps() []Gap { return v.completeness.Gaps() }

// Report tells the request that ctx is of what answers of this view lack.
func (v *View) Report(ctx context.Context) {
	gaps := v.Gaps()
	for _, g := range gaps {
		v.metrics.partial.WithLabelValues(g.Group, g.Region).Inc()
	}
	ReportGaps(ctx, gaps)
}

// ReportGaps tells the request that ctx is of what its answer lacks.
func ReportGaps(ctx context.Context, gaps []Gap) {
	if c, ok := ctx.Value(completenessKey{}).(*Completeness); ok {
		c.mtx.Lock()
		c.told = true
		c.mtx.Unlock()
		for _, g := range gaps {
			c.add(g)
		}
	}
}

// partialText begins a warning of an answer that lacks data.
const partialText = "partial answer: "

// Fold leaves one warning for each group that an answer lacks data of, and one info for
// each of which replicas were lost: parts of a query may say in different words why, and
// so may a oneprom of its selectors.
func (v *View) Fold(ws annotations.Annotations) {
	foldLost(ws)
	for _, g := range v.Gaps() {
		own, below := partialText+nameOf(g.Group), nameOf(g.Group)+": "
		text := partialText + g.String()
		if strings.HasPrefix(g.Reason, below) { // which a backend has said
			text = g.Reason
		}
		found := false
		for key, err := range ws {
			said := err.Error()
			if strings.HasPrefix(said, own) || strings.HasPrefix(said, below) && strings.Contains(said, partialText) {
				delete(ws, key)
				found = true
			}
		}
		if found {
			ws.Add(errors.New(text))
		}
	}
}
