package promqlx

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// This file explains what becomes of a query. What is explained is the plan and the
// Trace of its execution, and not something that is thought up beside them.

// Seconds are a time since 1970, or a duration.
type Seconds float64

func seconds(ms int64) Seconds { return Seconds(ms) / 1000 }

func (s Seconds) String() string { return strconv.FormatFloat(float64(s), 'f', 3, 64) }

func (s Seconds) duration() time.Duration {
	return time.Duration(math.Round(float64(s)*1000)) * time.Millisecond
}

// Explanation is what becomes of a query.
type Explanation struct {
	Query string `json:"query"`
	// Steps are those of the query; there is one for an instant query.
	Steps         ExplainedSteps `json:"steps"`
	LookbackDelta Seconds        `json:"lookbackDelta"`
	// Expression is evaluated by the engine. $1, $2 … stand for the parts.
	Expression string `json:"expression"`
	// PlanDigest is that of the query log: the same for the same query at other times,
	// while the same groups are concerned.
	PlanDigest string `json:"planDigest"`
	// NoParts says why there are no parts; "" if there are.
	NoParts string          `json:"noParts,omitempty"`
	Parts   []ExplainedPart `json:"parts"`
	// Selectors are those whose series are fetched for Expression itself.
	Selectors []ExplainedSelector `json:"selectors"`
	// Analysis is of the execution; nil if there was none.
	Analysis *Analysis `json:"analysis,omitempty"`
}

// ExplainedSteps are the instants Start, Start+Step, … End. Step is 0 if there is just
// one.
type ExplainedSteps struct {
	Start Seconds `json:"start"`
	End   Seconds `json:"end"`
	Step  Seconds `json:"step"`
	Count int64   `json:"count"`
}

// ExplainedPart is a sub-expression that partitions answer.
type ExplainedPart struct {
	Name       string         `json:"name"`
	Expression string         `json:"expression"`
	Why        string         `json:"why"`
	Steps      ExplainedSteps `json:"steps"`
	// Carries are the injected labels of the answers.
	Carries []string `json:"carries"`
	// ByTarget tells that some targets may be answered apart from the others.
	ByTarget bool `json:"byTarget"`
	// ByName tells the same of series that rules have written.
	ByName     bool                 `json:"byName"`
	Selectors  []ExplainedSelector  `json:"selectors"`
	Partitions []ExplainedPartition `json:"partitions"`
}

// ExplainedPartition is how a partition answers a part: Skipped, Outlook, or what
// became of it.
type ExplainedPartition struct {
	Groups []ExplainedMember `json:"groups"`
	// Labels are the injected labels of all its series.
	Labels map[string]string `json:"labels,omitempty"`
	// Skipped says why it is not asked.
	Skipped string `json:"skipped,omitempty"`
	// Outlook is what the configuration alone says.
	Outlook *ExplainedOutlook `json:"outlook,omitempty"`
	// Pieces are what it was divided into.
	Pieces []ExplainedPiece `json:"pieces,omitempty"`
	// Failed says why there is no answer; "" if there is.
	Failed string `json:"failed,omitempty"`
}

// ExplainedMember is a group of a partition.
type ExplainedMember struct {
	Name string `json:"name"`
	// Replicas is their number; it is not there if only service discovery knows it.
	Replicas *int `json:"replicas,omitempty"`
}

// Where a part is evaluated.
const (
	executedRemotely = "remote"
	executedHere     = "local"
)

// ExplainedOutlook is how a partition may answer.
type ExplainedOutlook struct {
	// Execution is "remote" if a replica may evaluate, and else "local".
	Execution string `json:"execution"`
	Why       string `json:"why"`
	// Text is what a replica is sent.
	Text string `json:"text,omitempty"`
}

// ExplainedPiece is a share of a partition's answer.
type ExplainedPiece struct {
	// Steps are those at which it is evaluated, Turns those at which it counts: nil if
	// at all.
	Steps ExplainedSteps   `json:"steps"`
	Turns []ExplainedSteps `json:"turns,omitempty"`
	// Replica is the URL of the one whose samples alone are used; "" if those of all
	// are merged. Why is the reason.
	Replica string `json:"replica,omitempty"`
	Why     string `json:"why"`
	// AnsweredBy is the URL of the replica that evaluated instead, one that is as whole:
	// Replica was late, or failed. "" if it was Replica.
	AnsweredBy string `json:"answeredBy,omitempty"`
	// Targets are the matchers that narrow it to some targets, and to some names of
	// metrics; "" if there are none.
	Targets string `json:"targets,omitempty"`
	// Execution is "remote" or "local", and then Local is the reason.
	Execution string `json:"execution"`
	Local     string `json:"local,omitempty"`
	// Text is what the replica was sent.
	Text string `json:"text,omitempty"`
	// Milliseconds is how long the answer took, Series and Samples are how many there
	// are in it.
	Milliseconds float64 `json:"ms"`
	Series       int     `json:"series"`
	Samples      int     `json:"samples"`
	// Fetches are those of its selectors where it was evaluated here.
	Fetches []ExplainedFetch `json:"fetches,omitempty"`
}

// ExplainedSelector is a selector with what is known about the groups.
type ExplainedSelector struct {
	Selector string `json:"selector"`
	// MinTime and MaxTime bound the samples, inclusive.
	MinTime Seconds `json:"minTime"`
	MaxTime Seconds `json:"maxTime"`
	// Steps are the only instants at which it is looked at, nil if each sample counts.
	Steps *ExplainedSteps `json:"steps,omitempty"`
	// Unused marks the second argument of info(), which is not fetched as it stands.
	Unused bool             `json:"unused,omitempty"`
	Groups []ExplainedRoute `json:"groups"`
	// Fetch is of the execution.
	Fetch *ExplainedFetch `json:"fetch,omitempty"`
}

// ExplainedRoute says whether a group is asked.
type ExplainedRoute struct {
	Name   string `json:"name"`
	Region string `json:"region,omitempty"`
	Asked  bool   `json:"asked"`
	// Skipped says why it is not asked.
	Skipped string `json:"skipped,omitempty"`
}

// ExplainedFetch is a fetch of raw samples.
type ExplainedFetch struct {
	Selector string `json:"selector"`
	// Milliseconds is how long it took until the series were there.
	Milliseconds float64 `json:"ms"`
	// Series is how many were fetched, after the merge of replicas; Samples is how
	// many were read of them.
	Series  int64 `json:"series"`
	Samples int64 `json:"samples"`
}

// Analysis is what an execution came to.
type Analysis struct {
	Milliseconds float64 `json:"ms"`
	// Bytes is how many of backends' answers were held, for all fetches and remote
	// answers together.
	Bytes      int64  `json:"bytes"`
	ResultType string `json:"resultType"`
	// Series and Samples are how many there are in the result.
	Series  int `json:"series"`
	Samples int `json:"samples"`
	// Completeness is what the result has of each group, in the order of the
	// configuration.
	Completeness []ExplainedShare `json:"completeness"`
	// Warnings and Infos are those of the result; in JSON they are beside the
	// explanation.
	Warnings []string `json:"-"`
	Infos    []string `json:"-"`
}

// What a result has of a group.
const (
	shareWhole   = "whole"
	sharePartial = "partial" // some is missing, or all
	shareSkipped = "skipped" // it was not asked
)

// ExplainedShare is what a result has of a group.
type ExplainedShare struct {
	Group  string `json:"group"`
	Region string `json:"region,omitempty"`
	// State is "whole", "partial" or "skipped".
	State string `json:"state"`
	// MinTime and MaxTime bound the samples that were wanted, inclusive. They are nil
	// if none were.
	MinTime *Seconds `json:"minTime,omitempty"`
	MaxTime *Seconds `json:"maxTime,omitempty"`
	// Reason is why it is not whole.
	Reason string `json:"reason,omitempty"`
}

// Question is a query to be explained.
type Question struct {
	Query string
	// Start and End are the same for an instant query, whose Interval is 0.
	Start, End time.Time
	Interval   time.Duration
	// Lookback is 0 for the default.
	Lookback time.Duration
}

func (e *Engine) ask(ctx context.Context, q Question) (*query, error) {
	opts := promql.NewPrometheusQueryOpts(false, q.Lookback)
	if q.Interval == 0 {
		return e.instantQuery(ctx, opts, q.Query, q.Start)
	}
	return e.rangeQuery(ctx, opts, q.Query, q.Start, q.End, q.Interval)
}

// Explain says what would become of a query over the groups of a view, which is all
// that is looked at: nobody is asked. Errors are those of making a query.
func (e *Engine) Explain(ctx context.Context, view *servergroup.View, q Question) (*Explanation, error) {
	asked, err := e.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	defer asked.Close()
	stmt := asked.Statement().(*parser.EvalStmt)
	return e.execution(stmt, q.Query, view, e.options()).explain(), nil
}

// Analyze executes a query and says what became of it. The error is a *QuestionError
// if there is no such query, or what the execution failed with.
func (e *Engine) Analyze(ctx context.Context, q Question) (*Explanation, annotations.Annotations, error) {
	asked, err := e.ask(ctx, q)
	if err != nil {
		return nil, nil, &QuestionError{err}
	}
	defer func() { asked.Close() }() // of which there may be another by then
	asked.traced = true
	began := time.Now()
	res := asked.Exec(ctx)
	if res.Err != nil {
		return nil, res.Warnings, res.Err
	}
	a := &Analysis{Milliseconds: milliseconds(time.Since(began)), ResultType: string(res.Value.Type())}
	a.Series, a.Samples = sizeOf(res.Value)
	a.Warnings, a.Infos = res.Warnings.AsStrings(q.Query, 0, 0)
	a.Bytes = asked.planned.plan.View.FetchedBytes()
	out := asked.planned.explain()
	a.Completeness = out.shares(asked.gaps)
	out.Analysis = a
	return out, res.Warnings, nil
}

// shares is what the result has of each group that a selector might concern; gaps are
// what it lacks.
func (e *Explanation) shares(gaps []completeness.Gap) []ExplainedShare {
	selectors := slices.Clone(e.Selectors)
	for _, p := range e.Parts {
		selectors = append(selectors, p.Selectors...)
	}
	out := []ExplainedShare{}
	for _, s := range selectors {
		for _, g := range s.Groups {
			i := slices.IndexFunc(out, func(known ExplainedShare) bool { return known.Group == g.Name })
			if i < 0 {
				i = len(out)
				out = append(out, ExplainedShare{Group: g.Name, Region: g.Region, State: shareSkipped, Reason: g.Skipped})
			}
			if g.Asked {
				out[i].wants(s.MinTime, s.MaxTime)
			}
		}
	}
	for _, gap := range gaps {
		if i := slices.IndexFunc(out, func(s ExplainedShare) bool { return s.Group == gap.Group }); i >= 0 {
			out[i].State, out[i].Reason = sharePartial, gap.Reason
		}
	}
	return out
}

// wants takes in that samples of the group were wanted.
func (s *ExplainedShare) wants(from, to Seconds) {
	if s.State != shareSkipped {
		from, to = min(from, *s.MinTime), max(to, *s.MaxTime)
	}
	s.State, s.Reason, s.MinTime, s.MaxTime = shareWhole, "", &from, &to
}

// QuestionError is a query that cannot be made: it does not parse, say.
type QuestionError struct{ err error }

func (e *QuestionError) Error() string { return e.err.Error() }
func (e *QuestionError) Unwrap() error { return e.err }

// sizeOf counts the series and samples of a result.
func sizeOf(v parser.Value) (series, samples int) {
	switch v := v.(type) {
	case promql.Matrix:
		for _, s := range v {
			samples += len(s.Floats) + len(s.Histograms)
		}
		return len(v), samples
	case promql.Vector:
		return len(v), len(v)
	}
	return 1, 1 // a scalar or a string
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// explain says what is planned and, if there is a trace, what became of it.
func (x *execution) explain() *Explanation {
	out := &Explanation{
		Query: x.text, Steps: explainedSteps(x.plan.Steps), LookbackDelta: seconds(x.plan.Steps.Lookback),
		PlanDigest: x.digest(), Parts: []ExplainedPart{}, Selectors: []ExplainedSelector{},
	}
	fetches := x.trace.fetched(nil)
	names := make([]string, len(x.plan.Leaves)) // "" if not a part
	for i, leaf := range x.plan.Leaves {
		if leaf.Part != nil {
			names[i] = "$" + strconv.Itoa(len(out.Parts)+1)
			out.Parts = append(out.Parts, x.explainPart(names[i], leaf.Part))
			continue
		}
		s := x.explainSelector(*leaf.Selector)
		if !s.Unused && len(fetches) > 0 {
			s.Fetch, fetches = &fetches[0], fetches[1:]
		}
		out.Selectors = append(out.Selectors, s)
	}
	for i, f := range x.trace.late(len(fetches)) {
		s := x.explainSelector(plan.Selector{Selection: f.selection})
		s.Fetch = &fetches[i]
		out.Selectors = append(out.Selectors, s)
	}
	if out.Expression = x.plan.Expression(names); len(out.Parts) == 0 {
		out.NoParts = cmp.Or(x.plan.NoParts, "nothing in it can be answered by each partition alone")
	}
	return out
}

func (x *execution) explainPart(name string, p *plan.Part) ExplainedPart {
	out := ExplainedPart{
		Name: name, Expression: p.ShownText(), Why: p.Why, Steps: explainedSteps(p.Steps),
		Carries: append([]string{}, p.Carries...), ByTarget: p.ByTarget, ByName: p.ByName, Selectors: []ExplainedSelector{},
		Partitions: []ExplainedPartition{},
	}
	for _, s := range p.Selectors {
		out.Selectors = append(out.Selectors, x.explainSelector(s))
	}
	for _, partition := range x.plan.Partitions {
		out.Partitions = append(out.Partitions, x.explainPartition(p, partition))
	}
	return out
}

func (x *execution) explainPartition(p *plan.Part, partition *servergroup.Partition) ExplainedPartition {
	out := ExplainedPartition{Labels: partition.Labels()}
	for _, m := range partition.Members() {
		member := ExplainedMember{Name: m.Name}
		if n := m.Replicas; n >= 0 {
			member.Replicas = &n
		}
		out.Groups = append(out.Groups, member)
	}
	switch {
	case p.Steps.Count() <= 0:
		out.Skipped = "there are no steps"
	case !p.Concerns(partition):
		out.Skipped = unconcerned(p, partition)
	case x.trace != nil:
		out.Pieces, out.Failed = x.trace.explainPieces(p, partition)
	default:
		out.Outlook = outlookOf(p, partition)
	}
	return out
}

// unconcerned says why a partition holds no series of a part.
func unconcerned(p *plan.Part, partition *servergroup.Partition) string {
	var whys []string
	for _, s := range p.Selectors {
		whys = append(whys, partition.Unconcerned(s.Selection))
	}
	return strings.Join(whys, "; ")
}

func outlookOf(p *plan.Part, partition *servergroup.Partition) *ExplainedOutlook {
	o := partition.Outlook(p.Need())
	out := &ExplainedOutlook{Execution: executedHere, Why: o.Why}
	if !o.Remote {
		return out
	}
	text, ok := p.TextFor(partition.Matchers)
	if !ok {
		out.Why = errNotSayable.Error()
		return out
	}
	out.Execution, out.Text = executedRemotely, text
	return out
}

func (x *execution) explainSelector(s plan.Selector) ExplainedSelector {
	out := ExplainedSelector{
		Selector: transport.Selector(s.Matchers), MinTime: seconds(s.MinT), MaxTime: seconds(s.MaxT), Unused: s.Unused,
		Groups: []ExplainedRoute{},
	}
	if s.Steps != nil {
		st := explainedSteps(*s.Steps)
		out.Steps = &st
	}
	if s.Unused {
		return out
	}
	for _, r := range x.plan.View.Routes(s.Selection) {
		out.Groups = append(out.Groups, ExplainedRoute{Name: r.Group, Region: r.Region, Asked: r.Skipped == "", Skipped: r.Skipped})
	}
	return out
}

func explainedSteps(s transport.Steps) ExplainedSteps {
	out := ExplainedSteps{Start: seconds(s.Start), End: seconds(s.End), Step: seconds(s.Step), Count: s.Count()}
	if out.Count == 1 {
		out.Step = 0
	}
	return out
}
