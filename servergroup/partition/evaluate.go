package partition

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/pushdown"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Local returns why the piece is evaluated in oneprom; "" if a replica evaluates it. selector
// reports whether its expression is just a vector selector.
func (p *Piece) Local(ctx context.Context, selector bool) (why string, err error) {
	refusal, err := p.refusal(ctx, selector)
	if !selector || p.Steps.Count() == 1 { // else its samples may come cheaper anyway
		p.partition.CountLost(refusal.Reason)
	}
	return refusal.Why, err
}

// refusal is Local, with the reason that is counted.
func (p *Piece) refusal(ctx context.Context, selector bool) (none pushdown.Refusal, err error) {
	if p.single == nil {
		return pushdown.Refusal{Why: p.Why, Reason: p.lost}, nil
	}
	g := p.partition.members[0]
	if p.partition.off() {
		return pushdown.Refusal{Why: "pushdown: off", Reason: pushdown.Off}, nil
	}
	ctx, cancel := fanout.QueryContext(ctx)
	defer cancel()
	prof, err := p.profile(ctx)
	switch {
	case err != nil:
		return none, err
	case p.mustNotEvaluate(prof).Why != "":
		return p.mustNotEvaluate(prof), nil
	case len(g.Findings.List(p.partition.view.Now)) > 0 || slices.ContainsFunc(p.candidates(), (*replica.Replica).HasDataFindings):
		return pushdown.Refusal{Why: "its data does not fit the group's configuration", Reason: pushdown.Contradicts}, nil
	case selector && p.Steps.Count() > 1 && prof.Method == transport.StreamedRead:
		return pushdown.Refusal{Why: "its samples come cheaper than its values"}, nil
	}
	return none, nil
}

// off reports whether the configuration or the request has turned push-down off.
func (p *Partition) off() bool {
	return p.members[0].Config.Pushdown == config.PushdownOff || p.view.Request.Pushdown == config.PushdownOff
}

// CountLost counts a share that oneprom evaluates, for each group of the partition. A request that has
// turned push-down off is not counted: it is there to compare.
func (p *Partition) CountLost(why pushdown.Reason) {
	if why == "" || p.view.Request.Pushdown == config.PushdownOff {
		return
	}
	for i, g := range p.members {
		if i == 0 || g.Pushdown != p.members[i-1].Pushdown { // portions of a group are next to each other
			g.Pushdown.Lost(why, p.view.Now)
		}
	}
}

// mustNotEvaluate returns why a server must not evaluate the expression of the piece, if it must not.
func (p *Piece) mustNotEvaluate(prof *replica.Profile) (none pushdown.Refusal) {
	if prof.NoPushdown.Why != "" {
		return prof.NoPushdown
	}
	g := p.partition.members[0]
	if prof.Spellings != nil && slices.ContainsFunc(p.reaches, func(r Reach) bool { return prof.Spellings.Concerns(g.Resolve(r.Matchers).Send) }) {
		return pushdown.Refusal{Why: "it spells numbers in labels otherwise than Prometheus 3", Reason: pushdown.Spelling}
	}
	return none
}

// candidates returns the replicas that can answer alone, in the order in which they are asked.
func (p *Piece) candidates() []*replica.Replica {
	return fanout.UsableFirst(append([]*replica.Replica{p.single}, p.alternatives...))
}

// profile returns the profile of the first candidate that has one, or can be probed.
func (p *Piece) profile(ctx context.Context) (*replica.Profile, error) {
	candidates := p.candidates()
	if prof := candidates[0].CurrentProfile(); prof != nil {
		return prof, nil
	}
	v := p.partition.view
	found := make([]*replica.Profile, len(candidates))
	regardless := v.Regardless()
	winner, errs := fanout.First(ctx, candidates, v.Extra, retryable, func(ctx context.Context, i int) error {
		return candidates[i].Attempt(ctx, regardless, func(ctx context.Context) (err error) {
			found[i], err = candidates[i].Ready(ctx)
			return err
		})
	})
	if winner < 0 {
		return nil, completeness.Join(errs)
	}
	return found[winner], nil
}

// Matchers returns the matchers of a selector for the piece's replica, which does not have the
// injected labels. It is not ok if the replica cannot evaluate the selector, or has no such
// series.
func (p *Piece) Matchers(ms []*labels.Matcher) (send []*labels.Matcher, ok bool) {
	r := p.partition.members[0].Resolve(ms)
	if r.Excluded != "" || len(r.Check) > 0 {
		return nil, false
	}
	return labelmap.Selectable(slices.Concat(r.Send, p.narrowed)), true
}

// retryable reports whether another replica may answer where one failed with err.
func retryable(err error) bool {
	var unusable *UnusableError
	return !errors.As(err, &unusable) && fanout.Retryable(err)
}

// UnusableError is an answer of a replica that the plan cannot use: the piece must be evaluated in
// oneprom.
type UnusableError struct{ Why string }

func (e *UnusableError) Error() string { return e.Why }

// declinedError is why a replica must not evaluate, unlike the one that the piece was planned for: a
// twin of another version, or the server that has taken its place.
type declinedError struct{ pushdown.Refusal }

func (e *declinedError) Error() string { return e.Why }

// atOnce is the prefix of remembered expressions whose answers at several turns have annotations.
const atOnce = "at once: "

// MarkAnnotated remembers that answers to an expression have annotations, so that one answer for
// several turns cannot be used. about is as for Evaluate.
func (p *Piece) MarkAnnotated(about string) {
	p.partition.members[0].Unusable.Add(atOnce+about, "annotations", p.partition.view.Now)
}

// Annotated reports whether MarkAnnotated was called in the last view.UnusableAge.
func (p *Piece) Annotated(about string) bool {
	_, ok := p.partition.members[0].Unusable.Reason(atOnce+about, p.partition.view.Now)
	return ok
}

// Answer is the result of an expression that a replica evaluated.
type Answer struct {
	// Series have a sample for each step at which they exist.
	Series          []Evaluated
	Warnings, Infos []string
	Replica         string // its URL
}

// Evaluated is a series of an answer.
type Evaluated struct {
	Labels  labels.Labels
	Samples *dedup.Samples
}

// Evaluate sends an expression to the piece's replica, for the piece's steps, and adds the injected
// labels that carries names to the result. After any error the piece must be evaluated in oneprom.
// about identifies the expression in all pieces: if an answer to it could not be used recently,
// it is not sent.
func (p *Piece) Evaluate(ctx context.Context, about, text string, carries []string) (*Answer, error) {
	unusable, now := p.partition.members[0].Unusable, p.partition.view.Now
	if why, ok := unusable.Reason(about, now); ok {
		p.partition.CountLost(pushdown.Answer)
		return nil, &UnusableError{why}
	}
	answer, by, err := p.evaluate(ctx, text, carries)
	if e, ok := errors.AsType[*UnusableError](err); ok {
		unusable.Add(about, e.Why, now)
		p.partition.CountLost(pushdown.Answer)
	} else if e, ok := errors.AsType[*declinedError](err); ok {
		p.partition.CountLost(e.Reason)
	}
	if err == nil {
		p.partition.members[0].Pushdown.Evaluated(now)
		p.offer(ctx, by, func() []Reach { return p.reaches })
	}
	return answer, err
}

func (p *Piece) evaluate(ctx context.Context, text string, carries []string) (_ *Answer, by *replica.Replica, err error) {
	ctx, cancel := fanout.QueryContext(ctx)
	defer cancel()
	v, candidates := p.partition.view, p.candidates()
	answers := make([]*Answer, len(candidates))
	regardless := v.Regardless()
	winner, errs := p.askWhole(ctx, candidates, func(ctx context.Context, i int) error {
		return candidates[i].Attempt(ctx, regardless, func(ctx context.Context) (err error) {
			answers[i], err = p.evaluateAt(ctx, candidates[i], text, carries)
			return err
		})
	})
	if winner < 0 {
		return nil, nil, completeness.Join(errs)
	}
	if errs = slices.DeleteFunc(errs, isNoFailure); len(errs) > 0 {
		g := p.partition.members[0]
		v.Ledger.LostReplicas(completeness.Outcome{Group: v.CompletenessOf(g), Asked: len(g.Replicas), Failed: errs})
	}
	by = candidates[winner]
	answers[winner].Replica = by.URL()
	return answers[winner], by, nil
}

// confirm fails with a replica.LossError if a replica that has answered alone may have lost samples
// since evidence showed that it is whole.
func (p *Piece) confirm(ctx context.Context, r *replica.Replica) error {
	generation, ok := p.generations[r]
	if !ok {
		return nil
	}
	return r.Confirm(ctx, generation)
}

// isNoFailure reports whether an error is no failure of the replica, which has answered.
func isNoFailure(err error) bool {
	var declined *declinedError
	return isLoss(err) || errors.As(err, &declined)
}

// isLoss reports whether an error is about samples that a replica may have lost, or lacks.
func isLoss(err error) bool {
	var (
		loss *replica.LossError
		lack *lackError
	)
	return errors.As(err, &loss) || errors.As(err, &lack)
}

// evaluateAt sends an expression to one replica.
func (p *Piece) evaluateAt(ctx context.Context, r *replica.Replica, text string, carries []string) (*Answer, error) {
	prof, err := r.Ready(ctx)
	if err != nil {
		return nil, err
	}
	if refusal := p.mustNotEvaluate(prof); refusal.Why != "" {
		return nil, &declinedError{refusal}
	}
	var remarks completeness.Remarks
	t := &view.RoutedGroup{Group: p.partition.members[0]}
	e := &evaluation{
		cfg: t.Config, carries: carries, spellings: prof.Spellings, builder: labels.NewScratchBuilder(16),
		backend: func(text string) { remarks.WarnOfServer(p.partition.view.CompletenessOf(t.Group), r.URL(), text) },
	}
	charge, end := p.partition.view.Charging(t.Group, r, transport.QueryAPI)
	defer end()
	list, err := prof.Client.ForClient(p.partition.view.Request.Header).Evaluate(ctx, text, p.Steps, transport.Request{
		Labels: e.labels, Charge: charge, Warn: e.warn, Inform: e.inform,
	})
	if err != nil {
		return nil, err
	}
	if err := p.confirm(ctx, r); err != nil {
		return nil, err
	}
	p.partition.view.Metrics.CountSamples(r, transport.QueryAPI, list)
	for _, s := range list {
		samples := s.Run.(*dedup.Samples)
		if samples.H != nil || samples.FH != nil {
			return nil, &UnusableError{"native histograms lose what JSON cannot carry"}
		}
		e.answer.Series = append(e.answer.Series, Evaluated{s.Labels, samples})
	}
	if r.Recognize(prof, e.odd) != nil {
		return nil, &declinedError{pushdown.Refusal{Why: "its spelling of numbers in labels has changed", Reason: pushdown.Spelling}}
	}
	if e.unusable != "" {
		return nil, &UnusableError{e.unusable}
	}
	if doubt := replica.ClockDoubt(prof.Client); doubt != "" {
		remarks.Warn(completeness.Describe(t.Config.Name, r.URL(), doubt))
	}
	ws, err := remarks.Verdict(p.partition.view.Ledger, p.Steps.Start, p.Steps.End)
	if err != nil {
		return nil, err
	}
	e.answer.Warnings = append(e.answer.Warnings, slices.Sorted(maps.Keys(ws))...)
	return &e.answer, nil
}

// evaluation collects the answer of one replica.
type evaluation struct {
	cfg     *config.Group
	carries []string
	builder labels.ScratchBuilder
	backend func(text string) // called with warnings of the replica about its data
	answer  Answer

	spellings *labelmap.Spellings
	odd       []labelmap.Sighting // odd values that the spellings do not know

	mtx      sync.Mutex // guards unusable and the answer's texts
	unusable string
}

// labels adds the injected labels.
func (e *evaluation) labels(raw []labels.Label) (labels.Labels, string) {
	e.builder.Reset()
	for _, l := range raw {
		if _, injected := e.cfg.Labels[l.Name]; injected || slices.Contains(e.cfg.ReplicaLabels, l.Name) {
			e.refuse(fmt.Sprintf("its series carry the label %q themselves", l.Name))
			continue
		}
		if slices.Contains(labelmap.NumberLabels, l.Name) {
			e.observe(l)
		}
		e.builder.Add(l.Name, l.Value)
	}
	for _, name := range e.carries {
		if value, ok := e.cfg.Labels[name]; ok { // another partition may inject it, too
			e.builder.Add(name, value)
		}
	}
	e.builder.Sort()
	return e.builder.Labels(), ""
}

// observe notes a number in a spelling that the server is not known to have.
func (e *evaluation) observe(l labels.Label) {
	if _, odd := labelmap.Canonical(l.Value); odd && len(e.odd) == 0 && !e.spellings.Knows(l.Name, l.Value) {
		e.odd = append(e.odd, labelmap.Sighting{Label: labels.Label{Name: l.Name, Value: strings.Clone(l.Value)}})
	}
}

// refuse makes the answer unusable.
func (e *evaluation) refuse(why string) {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	e.unusable = why
}

// warn adds a warning of the replica.
func (e *evaluation) warn(text string) {
	if transport.OfData(text) {
		e.backend(text)
		return
	}
	e.note(&e.answer.Warnings, text)
}

// aboutReplicas is the prefix of the infos of another oneprom about replicas that did not answer.
var aboutReplicas = annotations.PromQLInfo.Error() + ": server group "

// inform adds an info of the replica, but none about replicas behind another oneprom: these are
// not shown where samples are fetched either.
func (e *evaluation) inform(text string) {
	if !strings.HasPrefix(text, aboutReplicas) {
		e.note(&e.answer.Infos, text)
	}
}

// note adds an annotation, once for each text. The answer is unusable if the text was cut off.
func (e *evaluation) note(list *[]string, text string) {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	switch {
	case strings.HasSuffix(text, transport.Cut), transport.Omits(text):
		e.unusable = "its warnings are not complete"
	case !slices.Contains(*list, text):
		*list = append(*list, text)
	}
}

// Late returns the error of a query whose time ended while partitions were asked. errs are the
// errors of their fetches, by index. The error names the partitions that had not answered; it is
// nil if all had.
func Late(asked []*Partition, errs []error) error {
	late := &completeness.UnavailableError{Late: true}
	for i, err := range errs {
		if err != nil {
			name := asked[i].Name()
			late.Lacks = append(late.Lacks, completeness.Lack{Group: name, Reason: fmt.Sprintf("server group %q did not answer before the query's time was over", name)})
		}
	}
	if len(late.Lacks) == 0 {
		return nil
	}
	return late
}

// Verdict returns the warnings about partitions that did not answer, or an error if the answer
// must not be partial or if none answered. errs are the errors of their fetches, by index.
func Verdict(asked []*Partition, errs []error) (annotations.Annotations, error) {
	var ws annotations.Annotations
	all := &completeness.UnavailableError{Late: true}
	missing, strict := 0, false
	for i, err := range errs {
		var gone *completeness.UnavailableError
		switch {
		case err == nil:
			continue
		case !errors.As(err, &gone):
			return nil, err
		}
		missing++
		strict = strict || slices.ContainsFunc(asked[i].members, func(g view.Group) bool { return asked[i].view.Strict(g.Config) })
		all.Lacks = append(all.Lacks, gone.Lacks...)
		all.Late = all.Late && gone.Late
		for _, lack := range gone.Lacks {
			ws.Add(&completeness.PartialWarning{Lack: lack})
		}
	}
	if strict || missing > 0 && missing == len(errs) {
		return nil, all
	}
	return ws, nil
}
