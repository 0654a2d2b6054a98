package differential

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// shrinker makes a difference smaller as long as it stays one.
type shrinker struct {
	lab      *lab
	world    *world
	question question
	outcome  outcome
	tries    int
	deadline time.Time
	run      *running // of world; nil if none runs
	how      string   // oneprom answers it
}

// shrinkTime bounds the search for a smaller case.
const shrinkTime = 5 * time.Minute

func (s *shrinker) shrink() {
	s.deadline = time.Now().Add(shrinkTime)
	defer s.stop()
	for size := -1; size != s.size() && time.Now().Before(s.deadline); {
		size = s.size()
		s.dropEvents()
		s.simplifyQuestion()
		s.dropSeries()
		s.dropCopies()
		s.dropTimes()
		s.fillHoles()
	}
	if s.run != nil {
		s.how = clip(s.run.explain(s.question))
	}
}

// size is what shall become less.
func (s *shrinker) size() int {
	n := len(s.question.query) + int((s.question.end-s.question.start)/max(1, s.question.step))
	for _, x := range s.world.series {
		n += 1000 + len(x.samples)
	}
	for _, g := range s.world.groups {
		n += 100 * len(g.copies)
	}
	return n + 100*len(s.world.script)
}

func (s *shrinker) stop() {
	if s.run != nil {
		_ = s.run.close() // what matters is the difference
		s.run = nil
	}
}

// tryQuestion takes q over if the answers to it differ.
func (s *shrinker) tryQuestion(q question) bool {
	if s.world.changing { // what was asked before matters
		s.stop()
	}
	if time.Now().After(s.deadline) {
		return false
	}
	s.tries++
	if s.run == nil {
		run, err := s.lab.start(s.world)
		if err != nil {
			return false
		}
		s.run = run
	}
	o, err := s.run.compareAfter(q)
	if err != nil || o.kind != s.outcome.kind || (o.at == inNotes) != (s.outcome.at == inNotes) {
		return false
	}
	s.question, s.outcome = q, o
	return true
}

// tryWorld takes w over if the answers differ in it.
func (s *shrinker) tryWorld(w *world) bool {
	if len(w.series) == 0 || time.Now().After(s.deadline) {
		return false
	}
	s.tries++
	run, err := s.lab.start(w)
	if err != nil {
		return false
	}
	o, err := run.compareAfter(s.question)
	if err != nil || o.kind != s.outcome.kind || (o.at == inNotes) != (s.outcome.at == inNotes) {
		_ = run.close()
		return false
	}
	s.stop()
	s.run, s.world, s.outcome = run, w, o
	return true
}

// simplifyQuestion replaces parts of the expression by parts of these, and the
// range by a shorter one.
func (s *shrinker) simplifyQuestion() {
	for again := true; again; {
		again = false
		for _, query := range simpler(s.question.query) {
			q := s.question
			q.query = query
			if s.tryQuestion(q) {
				again = true
				break
			}
		}
	}
	for again := s.question.step > 0; again; {
		q, half := s.question, (s.question.end-s.question.start)/s.question.step/2*s.question.step
		q.end = q.start + half
		later := s.question
		later.start += half + later.step
		at := q
		at.end, at.step = q.start, 0
		again = half > 0 && s.tryQuestion(q) || later.start <= later.end && s.tryQuestion(later)
		if !again {
			s.tryQuestion(at)
		}
	}
}

// simpler returns the expressions that result from query if one of its nodes is
// replaced by a part of itself or loses something, short ones first.
func simpler(query string) []string {
	p := backendtest.NewParser()
	root, err := p.ParseExpr(query)
	if err != nil {
		return nil
	}
	whole := root.String()
	found := map[string]bool{}
	var out []string
	add := func(from, to string) {
		text := strings.Replace(whole, from, to, 1)
		if len(text) >= len(query) || found[text] {
			return
		}
		found[text] = true
		if e, err := p.ParseExpr(text); err == nil && (e.Type() == parser.ValueTypeVector || e.Type() == parser.ValueTypeScalar) {
			out = append(out, text)
		}
	}
	parser.Inspect(root, func(node parser.Node, _ []parser.Node) error {
		if node == nil {
			return nil
		}
		text := node.String()
		parser.Inspect(node, func(inner parser.Node, _ []parser.Node) error {
			if inner != nil && inner != node {
				add(text, inner.String())
			}
			return nil
		})
		plain(node, func(to string) { add(text, to) })
		return nil
	})
	slices.SortStableFunc(out, func(a, b string) int { return len(a) - len(b) })
	return out
}

// plain calls f with what a node is without one of its modifiers or matchers.
func plain(node parser.Node, f func(string)) {
	switch n := node.(type) {
	case *parser.VectorSelector:
		bare := *n
		bare.OriginalOffset, bare.Timestamp, bare.StartOrEnd = 0, nil, 0
		f(bare.String())
		for i := range n.LabelMatchers {
			fewer := *n
			fewer.LabelMatchers = slices.Delete(slices.Clone(n.LabelMatchers), i, i+1)
			f(fewer.String())
		}
	case *parser.AggregateExpr:
		bare := *n
		bare.Grouping, bare.Without = nil, false
		f(bare.String())
	}
}

// compareAfter is compare after the script of the world.
func (run *running) compareAfter(q question) (outcome, error) {
	if err := run.replay(q); err != nil {
		return outcome{}, err
	}
	return run.compare(q)
}

// dropEvents leaves out events: as many as possible at once. If need be, the question itself is what
// was asked before the last changes.
func (s *shrinker) dropEvents() {
	if last := lastChanges(s.world.script); last >= 0 {
		w := *s.world
		w.script = nil
		for _, e := range s.world.script {
			if len(e.changes) > 0 {
				w.script = append(w.script, e)
			}
		}
		w.script = slices.Insert(w.script, len(w.script)-1, event{same: true})
		if len(w.script) < len(s.world.script) {
			s.tryWorld(&w)
		}
	}
	for n := len(s.world.script); n > 0; n /= 2 {
		for i := 0; i < len(s.world.script); {
			w := *s.world
			w.script = slices.Concat(w.script[:i], w.script[min(len(w.script), i+n):])
			if !s.tryWorld(&w) {
				i += n
			}
		}
	}
	for i := 0; i < len(s.world.script); i++ {
		for j := 0; j < len(s.world.script[i].changes) && len(s.world.script[i].changes) > 1; {
			w := *s.world
			w.script = slices.Clone(w.script)
			w.script[i].changes = slices.Delete(slices.Clone(w.script[i].changes), j, j+1)
			if !s.tryWorld(&w) {
				j++
			}
		}
	}
}

// lastChanges is the index of the last event that is changes, -1 if there is none.
func lastChanges(script []event) int {
	for i, e := range slices.Backward(script) {
		if len(e.changes) > 0 {
			return i
		}
	}
	return -1
}

// dropSeries leaves out series: as many as possible at once.
func (s *shrinker) dropSeries() {
	for n := len(s.world.series) / 2; n > 0; n /= 2 {
		for i := 0; i < len(s.world.series); {
			w := *s.world
			w.series = slices.Concat(w.series[:i], w.series[min(len(w.series), i+n):])
			if !s.tryWorld(&w) {
				i += n
			}
		}
	}
}

// dropCopies leaves out copies of groups, with the samples that nobody has then.
func (s *shrinker) dropCopies() {
	for c := range s.world.copies {
		w := s.world.clone()
		there := false
		for i := range w.groups {
			g := &w.groups[i]
			if at := slices.Index(g.copies, c); at >= 0 {
				g.copies = slices.Delete(slices.Clone(g.copies), at, at+1)
				there = at > 0 || len(g.copies) == 0 || w.copies[g.copies[0]].shift == 0
			}
		}
		if !there {
			continue
		}
		came := w.dropLate(c)
		w.keep(func(x *series, p *sample) bool {
			had := p.held != 0 || slices.Contains(came, p.late)
			p.held &^= 1 << c
			return !had || p.held&w.asked(x, p.t) != 0
		})
		s.tryWorld(w)
	}
}

// dropLate takes from the script that late samples come to a copy, and returns which these are.
func (w *world) dropLate(c int) (came []int) {
	w.script = slices.Clone(w.script)
	for i := range w.script {
		e := &w.script[i]
		e.changes = slices.Clone(e.changes)
		for j := range e.changes {
			if e.changes[j].late != 0 && e.changes[j].copy == c {
				came = append(came, e.changes[j].late)
				e.changes[j].late = 0
			}
		}
	}
	return came
}

// dropTimes leaves out stretches of time, long ones first. Late samples stay, as counts show only as
// many as come at first.
func (s *shrinker) dropTimes() {
	for length := (s.world.end - s.world.start) / 2; length >= 15*second/2; length /= 2 {
		for from := s.world.start; from < s.world.end; from += length {
			w := s.world.clone()
			before := w.size()
			w.keep(func(_ *series, p *sample) bool { return p.late != 0 || p.t < from || p.t >= from+length })
			if w.size() < before {
				s.tryWorld(w)
			}
		}
	}
}

// fillHoles gives copies all samples of their groups, as far as the difference
// does not come of the hole.
func (s *shrinker) fillHoles() {
	for _, g := range s.world.groups {
		for _, c := range g.copies {
			w := s.world.clone()
			changed := false
			for i := range w.series {
				x := &w.series[i]
				for j := range x.samples {
					p := &x.samples[j]
					if p.held != 0 && p.held&(1<<c) == 0 && p.shadow == 0 && w.copies[c].shift == 0 && g.has(x, p.t) {
						p.held |= 1 << c
						changed = true
					}
				}
			}
			if changed {
				s.tryWorld(w)
			}
		}
	}
}

// clone copies the world down to the samples.
func (w *world) clone() *world {
	c := *w
	c.series, c.groups = slices.Clone(w.series), slices.Clone(w.groups)
	for i := range c.series {
		c.series[i].samples = slices.Clone(c.series[i].samples)
	}
	return &c
}

// asked has the bits of the copies that are asked for a series at t.
func (w *world) asked(s *series, t int64) (copies uint16) {
	for _, g := range w.groups {
		if s.shard == g.shard && t >= g.from && (g.to == 0 || t <= g.to) {
			for _, c := range g.copies {
				copies |= 1 << c
			}
		}
	}
	return copies
}

func (w *world) size() (n int) {
	for _, s := range w.series {
		n += len(s.samples)
	}
	return n
}

// keep leaves out the samples that f does not want, which may change the others,
// and what replicas with another clock have seen instead of them.
func (w *world) keep(f func(*series, *sample) bool) {
	for i := range w.series {
		s := &w.series[i]
		kept := s.samples[:0]
		there := map[int64]bool{}
		for j := range s.samples {
			p := &s.samples[j]
			if f(s, p) && (p.shadow == 0 || there[p.t-p.shadow]) {
				kept = append(kept, *p)
				there[p.t] = there[p.t] || p.shadow == 0
			}
		}
		s.samples = kept
	}
	w.series = slices.DeleteFunc(w.series, func(s series) bool { return len(s.samples) == 0 })
}

func (s *shrinker) String() string {
	return fmt.Sprintf("%s\n%s\nwant %s\ngot  %s\n%s\n%s", s.outcome, s.question, clip(s.outcome.want), clip(s.outcome.got), s.world, s.how)
}

func clip(text string) string {
	const most = 3000
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
