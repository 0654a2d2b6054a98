package differential

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// event is something that happens in a changing world: either changes, or a question.
type event struct {
	changes []change
	// peek is asked right after the changes, when nobody needs to know of them yet: its answer
	// is not judged.
	peek     *question
	question question
	same     bool // the question is the one that differs
}

func (e event) String() string {
	var b strings.Builder
	for i := range e.changes {
		fmt.Fprintf(&b, "change: %s\n", &e.changes[i])
	}
	switch {
	case e.peek != nil:
		fmt.Fprintf(&b, "ask at once: %s\n", e.peek)
	case e.same:
		b.WriteString("ask the same\n")
	case len(e.changes) == 0:
		fmt.Fprintf(&b, "ask: %s\n", e.question)
	}
	return b.String()
}

// change is what becomes of one server at one moment.
type change struct {
	server int
	lost   *loss
	// deleted: the losses are those of a request to delete series. Otherwise files are gone.
	deleted  bool
	restored bool // it has all that it once had again
	late     int  // the number of late samples that it gets; 0: none
	copy     int  // of the group, for late samples
	restart  bool
	external int // 1 + index of the external labels that it has from now on; 0: as before
	release  int // 2 or 3: of the Prometheus that runs from now on; 0: as before
	rules    int // 1: it has the rule from now on, -1: it has not; 0: as before
}

// loss is which samples are lost: those in the span of the series that match.
type loss struct {
	span
	name, instance string // "" is any
	series         labels.Labels
}

func (l *loss) of(s *series) bool {
	switch {
	case !l.series.IsEmpty():
		return labels.Equal(l.series, s.labels)
	case l.instance != "" && (l.instance != s.labels.Get("instance") || s.labels.Get(labels.MetricName) == "up"):
		return false
	}
	return l.name == "" || l.name == s.labels.Get(labels.MetricName)
}

func (c *change) String() string {
	var did []string
	if l := c.lost; l != nil {
		how := "loses files with"
		if c.deleted {
			how = "deletes"
		}
		did = append(did, fmt.Sprintf("%s name=%q instance=%q series=%s in [%s, %s)", how, l.name, l.instance, l.series, seconds(l.from), seconds(l.to)))
	}
	if c.restored {
		did = append(did, "has all that it once had")
	}
	if c.late != 0 {
		did = append(did, fmt.Sprintf("gets late samples %d as copy %d", c.late, c.copy))
	}
	if c.external != 0 {
		did = append(did, "has the external labels "+externalLabels[c.external-1].String())
	}
	if c.release != 0 {
		did = append(did, fmt.Sprintf("is a Prometheus %d", c.release))
	}
	switch c.rules {
	case 1:
		did = append(did, "has the rule")
	case -1:
		did = append(did, "has no rule")
	}
	if c.restart {
		did = append(did, "is started again")
	}
	return fmt.Sprintf("server %d %s", c.server, strings.Join(did, ", "))
}

// externalLabels are what servers may have; the second are those of kind.external.
var externalLabels = []labels.Labels{
	labels.EmptyLabels(),
	labels.FromStrings("monitor", "m", "datacenter", "d"),
	labels.FromStrings("monitor", "n", "datacenter", "d"),
	labels.FromStrings("monitor", "m"),
	labels.FromStrings("prometheus", "p"),
}

// errNobody is the error of a change by which samples are lost for good. Then there is no truth.
var errNobody = errors.New("nobody has the samples any more")

// lose takes samples from the copies of a server.
func (w *world) lose(server int, l *loss) error {
	var copies uint16
	for c, h := range w.copies {
		if h.server == server {
			copies |= 1 << c
		}
	}
	for i := range w.series {
		s := &w.series[i]
		if !l.of(s) {
			continue
		}
		for j := range s.samples {
			p := &s.samples[j]
			if p.t < l.from || p.t >= l.to || p.held&copies == 0 {
				continue
			}
			asked := w.asked(s, p.t)
			had := p.held&asked != 0
			p.held &^= copies
			if had && p.held&asked == 0 && p.shadow == 0 {
				return errNobody
			}
		}
	}
	return nil
}

// restore gives the copies of a server what they had at first, and later.
func (w *world) restore(server int, first *world) {
	for c, h := range w.copies {
		if h.server != server {
			continue
		}
		for i := range w.series {
			for j := range w.series[i].samples {
				w.series[i].samples[j].held |= first.series[i].samples[j].held & (1 << c)
			}
		}
	}
}

// writer makes the script of a world.
type writer struct {
	r       *rand.Rand
	w       *world
	g       *exprs
	asked   []question
	lost    []bool // of the servers: whether they have lost samples
	pending []int  // late samples that have not come
	lates   []lateSamples
}

// lateSamples are samples that come late, and to one copy only.
type lateSamples struct {
	copy int
	span
}

// write makes a script with a number of questions.
func (w *world) write(r *rand.Rand, questions int) {
	x := &writer{r: r, w: w, lost: make([]bool, len(w.servers))}
	for range r.IntN(4) {
		x.holdBack()
	}
	x.g = newExprs(r, w)
	for n := 0; n < questions; {
		if e := x.change(); n > 0 && len(e.changes) > 0 {
			w.script = append(w.script, e)
		}
		for range 2 + r.IntN(8) {
			q := x.g.question()
			if len(x.asked) > 0 && r.IntN(2) == 0 { // what is known of it may be true no more
				q = x.asked[max(0, len(x.asked)-1-r.IntN(8))]
			}
			x.asked = append(x.asked, q)
			w.script = append(w.script, event{question: q})
			n++
		}
	}
}

// shortest is how long (ms) single series are without samples, at least, if nothing but their
// samples shows it. The counts of series show a hole of nine minutes: see docs/fidelity.md.
const shortest = 10 * minute

// shows reports whether a series is seen for long enough, each time that it is there in a span.
func (s *series) shows(in span) bool {
	var first, last int64 // of the samples without a break; 0: none
	long := func() bool { return first == 0 || last-first >= shortest }
	for i := range s.samples {
		p := &s.samples[i]
		if p.shadow != 0 || p.t < in.from || p.t >= in.to {
			continue
		}
		if p.stale() || last != 0 && p.t-last > 3*minute { // counts look back so far
			if !long() {
				return false
			}
			first, last = 0, 0
		}
		if !p.stale() {
			last = p.t
			if first == 0 {
				first = p.t
			}
		}
	}
	return long()
}

// holdBack makes samples of a series late. There is a copy that gets them all, and keeps them.
func (x *writer) holdBack() {
	w, r := x.w, x.r
	g := &w.groups[r.IntN(len(w.groups))]
	c := g.copies[r.IntN(len(g.copies))]
	s := &w.series[r.IntN(len(w.series))]
	if w.copies[g.copies[len(g.copies)-1]].shift != 0 || s.shard != g.shard || s.lag != 0 || s.labels.Get(labels.MetricName) == "up" ||
		slices.ContainsFunc(s.samples, func(p sample) bool { return p.h != nil || p.fh != nil || p.late != 0 }) {
		return
	}
	late := span{from: max(g.first, g.from) + r.Int64N(w.end-w.start)}
	late.to = late.from + shortest + r.Int64N(40*minute)
	if to := min(g.last, w.end); late.to >= to || g.to != 0 && late.to >= g.to {
		return
	}
	if !s.shows(late) {
		return
	}
	n := len(x.lates) + 1
	found := false
	for i := range s.samples {
		if p := &s.samples[i]; p.t >= late.from && p.t < late.to {
			p.late, p.held, found = n, 0, true
		}
	}
	if !found {
		return
	}
	x.lates = append(x.lates, lateSamples{c, late})
	x.pending = append(x.pending, n)
	g.anchors = append(g.anchors, anchor{span{late.from - anchorOverlap, late.to + anchorOverlap}, c})
}

// change is an event with some changes.
func (x *writer) change() event {
	var e event
	for range 1 + max(0, x.r.IntN(5)-2) {
		if c, ok := x.oneChange(); ok {
			e.changes = append(e.changes, c)
		}
	}
	if x.r.IntN(3) == 0 && len(x.asked) > 0 {
		e.peek = &x.asked[x.r.IntN(len(x.asked))]
	}
	return e
}

func (x *writer) oneChange() (change, bool) {
	r, w := x.r, x.w
	c := change{server: r.IntN(len(w.servers))}
	switch n := r.IntN(16); {
	case n < 3: // a block
		i := r.IntN(len(w.blocks) + 1)
		l := span{w.start - 60*minute, w.end + 60*minute}
		if i > 0 {
			l.from = w.blocks[i-1]
		}
		if i < len(w.blocks) {
			l.to = w.blocks[i]
		}
		c.lost, c.restart = &loss{span: l}, i == len(w.blocks) || r.IntN(2) == 0
	case n < 5: // everything
		c.lost, c.restart = &loss{span: span{w.start - 60*minute, w.end + 60*minute}}, r.IntN(4) > 0
	case n < 9:
		c.lost, c.deleted = x.deletion(), true
	case n < 10:
		if len(x.pending) == 0 {
			return c, false
		}
		c.late = x.pending[0]
		x.pending = x.pending[1:]
		c.copy = x.lates[c.late-1].copy
		c.server = w.copies[c.copy].server
	case n < 11:
		c.restart = true
	case n < 12:
		c.external, c.restart = 1+r.IntN(len(externalLabels)), r.IntN(2) == 0
	case n < 13:
		c.release, c.restart = 2+r.IntN(2), true
	case n < 14:
		c.rules, c.restart = 1-2*r.IntN(2), r.IntN(2) == 0
	case !x.lost[c.server]:
		return c, false
	default:
		c.restored, c.restart, x.lost[c.server] = true, true, false
	}
	if c.restart && w.keepsClock(c.server) {
		return c, false
	}
	if c.lost != nil {
		if !w.mayLose(c.server, c.lost.span) || c.deleted && !w.shows(c.lost) {
			return c, false
		}
		x.lost[c.server] = true
		x.g.moments = append(x.g.moments, max(w.start, c.lost.from), min(w.end, c.lost.to))
	}
	return c, true
}

// deletion is a request to delete series.
func (x *writer) deletion() *loss {
	r, w := x.r, x.w
	l := &loss{span: span{from: w.start - 60*minute, to: w.end + 60*minute}}
	if r.IntN(2) == 0 {
		l.from = w.start + r.Int64N(w.end-w.start-shortest)
		l.to = l.from + shortest + r.Int64N(60*minute)
	}
	s := w.series[r.IntN(len(w.series))]
	switch r.IntN(4) {
	case 0, 1:
		l.series = s.labels
	case 2:
		l.name = s.labels.Get(labels.MetricName)
	default:
		l.instance = s.labels.Get("instance")
	}
	return l
}

// shows reports whether each of the series shows its loss.
func (w *world) shows(l *loss) bool {
	return !slices.ContainsFunc(w.series, func(s series) bool { return l.of(&s) && !s.shows(l.span) })
}

// keepsClock reports whether a server is the only one of a group that has the clock of the truth. While
// it is started again, another one answers, which is as whole, by its own clock.
func (w *world) keepsClock(server int) bool {
	return slices.ContainsFunc(w.groups, func(g group) bool {
		first, last := w.copies[g.copies[0]], w.copies[g.copies[len(g.copies)-1]]
		return first.server == server && last.shift != 0
	})
}

// mayLose reports whether a server may lose its samples in a span, as others have them.
func (w *world) mayLose(server int, lost span) bool {
	for _, g := range w.groups {
		for _, a := range g.anchors {
			if w.copies[a.copy].server == server && a.from < lost.to && a.to > lost.from {
				return false
			}
		}
	}
	return true
}
