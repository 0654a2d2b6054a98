package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Text prints the explanation as a tree of lines. Times are in seconds since 1970.
func (e *Explanation) Text() string {
	t := &tree{}
	t.line(0, "query: %s", e.Query)
	t.line(0, "steps: %s, lookback %s", e.Steps, e.LookbackDelta.duration())
	if e.Cache != nil {
		t.kept(e.Cache)
	}
	t.evaluated(e)
	for _, stretch := range e.Stretches {
		t.line(0, "stretch %s", stretch.Steps)
		t.evaluated(stretch)
	}
	if e.Analysis != nil {
		t.analysis(e.Analysis)
	}
	return t.String()
}

// evaluated prints what is evaluated, without the stretches.
func (t *tree) evaluated(e *Explanation) {
	t.line(0, "evaluated: %s", e.Expression)
	if e.NoParts != "" {
		t.line(0, "no parts: %s", e.NoParts)
	}
	if e.NoStretches != "" {
		t.line(0, "no stretches: %s", e.NoStretches)
	}
	for _, n := range e.NotWhole {
		t.line(0, "not pushed down whole: %s: %s", n.Expression, n.Why)
	}
	for _, p := range e.Parts {
		t.part(p)
	}
	for _, s := range e.Selectors {
		t.selector(0, s)
	}
}

// kept prints what is kept of the answer.
func (t *tree) kept(k *Kept) {
	if k.Outcome == "bypass" {
		t.line(0, "cache: not asked: %s", k.Reason)
		return
	}
	t.line(0, "cache: %s, %d of %d blocks, evaluated %s to %s ago", k.Outcome, k.Found, k.Blocks, k.Newest.duration(), k.Oldest.duration())
	for _, m := range k.Missing {
		t.line(1, "not kept: %s", m)
	}
	if k.Reason != "" {
		t.line(1, "nothing is kept now: %s", k.Reason)
	}
}

// tree is text whose lines are indented by depth.
type tree struct{ strings.Builder }

func (t *tree) line(depth int, format string, args ...any) {
	t.WriteString(strings.Repeat("  ", depth))
	fmt.Fprintf(t, format, args...)
	t.WriteByte('\n')
}

func (t *tree) part(p Part) {
	t.line(0, "%s = %s", p.Name, p.Expression)
	how := p.Why
	if p.ByTarget {
		how += ", divisible by target"
	}
	if p.ByName {
		how += ", divisible by name"
	}
	t.line(1, "part: %s", how)
	t.line(1, "steps: %s", p.Steps)
	if len(p.Carries) > 0 {
		t.line(1, "answers carry: %s", strings.Join(p.Carries, ", "))
	}
	for _, s := range p.Selectors {
		t.selector(1, s)
	}
	for _, partition := range p.Partitions {
		t.partition(partition)
	}
}

func (t *tree) partition(p Partition) {
	t.line(1, "partition %s", p.title())
	switch {
	case p.Skipped != "":
		t.line(2, "not asked: %s", p.Skipped)
	case p.Outlook != nil:
		t.line(2, "%s: %s", p.Outlook.Execution, p.Outlook.Why)
		t.text(2, p.Outlook.Text)
	}
	for _, piece := range p.Pieces {
		t.piece(piece)
	}
	if p.Failed != "" {
		t.line(2, "failed: %s", p.Failed)
	}
}

// title names the groups, with the number of their replicas and their labels.
func (p Partition) title() string {
	groups := make([]string, len(p.Groups))
	for i, g := range p.Groups {
		switch {
		case g.Replicas == nil:
			groups[i] = g.Name + " (replicas are discovered)"
		case *g.Replicas == 1:
			groups[i] = g.Name + " (1 replica)"
		default:
			groups[i] = fmt.Sprintf("%s (%d replicas)", g.Name, *g.Replicas)
		}
		if g.Series != "" {
			groups[i] += " " + g.Series
		}
	}
	out := strings.Join(groups, " + ")
	var labels []string
	for _, name := range slices.Sorted(maps.Keys(p.Labels)) {
		labels = append(labels, fmt.Sprintf("%s=%q", name, p.Labels[name]))
	}
	if len(labels) > 0 {
		out += " with " + strings.Join(labels, ", ")
	}
	return out
}

func (t *tree) text(depth int, text string) {
	if text != "" {
		t.line(depth, "text: %s", text)
	}
}

func (t *tree) piece(p Piece) {
	from := "all replicas, merged"
	if p.Replica != "" {
		from = p.Replica
	}
	t.line(2, "piece %s from %s: %s", p.Steps, from, p.Why)
	for _, turn := range p.Turns {
		t.line(3, "counts at %s", turn)
	}
	if p.Targets != "" {
		t.line(3, "targets: %s", p.Targets)
	}
	how := p.Execution
	if p.AnsweredBy != "" {
		how += ", by " + p.AnsweredBy + " instead"
	}
	if p.Local != "" {
		how += ": " + p.Local
	}
	t.line(3, "%s", how)
	t.text(3, p.Text)
	for _, f := range p.Fetches {
		t.line(3, "fetched %s: %s", f.Selector, f)
	}
	t.line(3, "answered in %.3f ms: %d series, %d samples", p.Milliseconds, p.Series, p.Samples)
}

func (t *tree) selector(depth int, s Selector) {
	window := fmt.Sprintf("from %s to %s", s.MinTime, s.MaxTime)
	switch {
	case s.Unused:
		window += ", not evaluated"
	case s.Steps == nil:
		window += ", each sample"
	default:
		window += ", only " + s.Steps.String()
	}
	t.line(depth, "selector %s %s", s.Selector, window)
	var asked []string
	for _, g := range s.Groups {
		switch {
		case g.Asked && g.Only != "":
			asked = append(asked, fmt.Sprintf("%s (only %s)", g.Name, g.Only))
		case g.Asked:
			asked = append(asked, g.Name)
		}
	}
	if len(asked) > 0 {
		t.line(depth+1, "asked: %s", strings.Join(asked, ", "))
	}
	for _, g := range s.Groups {
		if g.Because != "" {
			t.line(depth+1, "asked for copies: %s: %s", g.Name, g.Because)
		}
		if !g.Asked {
			t.line(depth+1, "not asked: %s: %s", g.Name, g.Skipped)
		}
	}
	if s.Fetch != nil {
		t.line(depth+1, "fetched: %s", *s.Fetch)
	}
}

func (t *tree) analysis(a *Analysis) {
	t.line(0, "result: %s in %.3f ms: %d series, %d samples; %d bytes fetched", a.ResultType, a.Milliseconds, a.Series, a.Samples, a.Bytes)
	for _, w := range a.Warnings {
		t.line(1, "warning: %s", w)
	}
	for _, i := range a.Infos {
		t.line(1, "info: %s", i)
	}
}

func (f Fetch) String() string {
	return fmt.Sprintf("in %.3f ms: %d series, %d samples read", f.Milliseconds, f.Series, f.Samples)
}

func (s Steps) String() string {
	switch {
	case s.Count <= 0:
		return "none"
	case s.Count == 1:
		return "at " + s.Start.String()
	}
	return fmt.Sprintf("at %s…%s each %s (%d)", s.Start, s.End, s.Step.duration(), s.Count)
}
