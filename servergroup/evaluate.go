package servergroup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/bytelru"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Local says why the piece is evaluated here; "" if its replica does it. selector
// tells that it is a vector selector and nothing else.
func (p *Piece) Local(ctx context.Context, selector bool) (why string, err error) {
	if p.alone == nil {
		return p.Why, nil
	}
	g := p.partition.members[0]
	if g.cfg.Pushdown == config.PushdownOff || p.partition.view.request.Pushdown == config.PushdownOff {
		return "pushdown: off", nil
	}
	ctx, cancel := QueryContext(ctx)
	defer cancel()
	prof, err := p.profile(ctx)
	switch {
	case err != nil:
		return "", err
	case prof.local != "":
		return prof.local, nil
	case len(g.found.List(p.partition.view.now)) > 0 || slices.ContainsFunc(p.candidates(), (*replica).misfits):
		return "its data does not fit the group's configuration", nil
	case selector && p.Steps.Count() > 1 && prof.method == transport.StreamedRead:
		return "its samples come cheaper than its values", nil
	}
	return "", nil
}

// candidates are the replicas that can answer alone, in the order in which they are
// asked.
func (p *Piece) candidates() []*replica {
	return usableFirst(append([]*replica{p.alone}, p.twins...))
}

// profile returns that of the first candidate that has one.
func (p *Piece) profile(ctx context.Context) (*profile, error) {
	candidates := p.candidates()
	if prof := candidates[0].atHand(); prof != nil {
		return prof, nil
	}
	v := p.partition.view
	found := make([]*profile, len(candidates))
	regardless := v.regardless()
	winner, errs := First(ctx, candidates, v.extra, retryable, func(ctx context.Context, i int) error {
		return candidates[i].attempt(ctx, regardless, func(ctx context.Context) (err error) {
			found[i], err = candidates[i].ready(ctx)
			return err
		})
	})
	if winner < 0 {
		return nil, completeness.Join(errs)
	}
	return found[winner], nil
}

// Matchers returns what a selector is for the piece's replica, which does not have
// the injected labels. It is not ok if the replica cannot tell, or has no such
// series.
func (p *Piece) Matchers(ms []*labels.Matcher) (send []*labels.Matcher, ok bool) {
	r := p.partition.members[0].resolve(ms)
	if r.None != "" || len(r.Check) > 0 {
		return nil, false
	}
	return labelmap.Selectable(slices.Concat(r.Send, p.narrowed)), true
}

// retryable reports whether another replica may do what one has failed to do.
func retryable(err error) bool {
	var unusable *UnusableError
	return !errors.As(err, &unusable) && Retryable(err)
}

// UnusableError is an answer that the plan cannot use: the piece is to be
// evaluated here.
type UnusableError struct{ Why string }

func (e *UnusableError) Error() string { return e.Why }

// useless remembers the expressions of a group whose answers were of no use.
type useless struct {
	mtx   sync.Mutex
	known *bytelru.Cache[string, uselessAnswer]
}

type uselessAnswer struct {
	why string
	at  time.Time
}

const (
	// uselessAge is how long an answer is taken to be useless again.
	uselessAge = 10 * time.Minute
	// keptUseless bounds what is remembered of them (bytes).
	keptUseless = 1 << 20
)

func newUseless() *useless {
	return &useless{known: bytelru.New[string, uselessAnswer](keptUseless)}
}

func (u *useless) of(about string, now time.Time) (why string, known bool) {
	u.mtx.Lock()
	defer u.mtx.Unlock()
	a, ok := u.known.Get(about)
	return a.why, ok && now.Sub(a.at) < uselessAge
}

func (u *useless) add(about, why string, now time.Time) {
	u.mtx.Lock()
	defer u.mtx.Unlock()
	u.known.Add(about, uselessAnswer{why, now}, 64+len(about)+len(why))
}

// atOnce goes before expressions whose answers at several turns have something to say.
const atOnce = "at once: "

// Spoke remembers that something is said of the answers to an expression, so that those
// at several turns are of no use. about is as for Evaluate.
func (p *Piece) Spoke(about string) {
	p.partition.members[0].useless.add(atOnce+about, "annotations", p.partition.view.now)
}

// Speaks tells whether that was so a short while ago.
func (p *Piece) Speaks(about string) bool {
	_, known := p.partition.members[0].useless.of(atOnce+about, p.partition.view.now)
	return known
}

// Answer is what a backend makes of an expression.
type Answer struct {
	// Series have a sample for each step at which they are.
	Series          []Evaluated
	Warnings, Infos []string
	Replica         string // the URL of the one that gave it
}

// Evaluated is a series of an answer.
type Evaluated struct {
	Labels  labels.Labels
	Samples *dedup.Samples
}

// Evaluate has the piece's replica evaluate an expression at the piece's steps, and
// adds the injected labels that carries names. Any error means that the piece is to
// be evaluated here. about names the expression whatever the piece: if its answer has
// proved to be of no use a short while ago, it is not asked for again.
func (p *Piece) Evaluate(ctx context.Context, about, text string, carries []string) (*Answer, error) {
	useless, now := p.partition.members[0].useless, p.partition.view.now
	if why, known := useless.of(about, now); known {
		return nil, &UnusableError{why}
	}
	answer, err := p.evaluate(ctx, text, carries)
	if unusable, ok := errors.AsType[*UnusableError](err); ok {
		useless.add(about, unusable.Why, now)
	}
	return answer, err
}

func (p *Piece) evaluate(ctx context.Context, text string, carries []string) (*Answer, error) {
	ctx, cancel := QueryContext(ctx)
	defer cancel()
	v, candidates := p.partition.view, p.candidates()
	answers := make([]*Answer, len(candidates))
	regardless := v.regardless()
	winner, errs := First(ctx, candidates, v.extra, retryable, func(ctx context.Context, i int) error {
		return candidates[i].attempt(ctx, regardless, func(ctx context.Context) (err error) {
			answers[i], err = p.evaluateAt(ctx, candidates[i], text, carries)
			return err
		})
	})
	if winner < 0 {
		return nil, completeness.Join(errs)
	}
	if len(errs) > 0 {
		g := p.partition.members[0]
		v.Ledger.LostReplicas(completeness.Outcome{Group: v.about(g), Asked: len(g.replicas), Failed: errs})
	}
	answers[winner].Replica = candidates[winner].url()
	return answers[winner], nil
}

// evaluateAt has one replica evaluate an expression.
func (p *Piece) evaluateAt(ctx context.Context, r *replica, text string, carries []string) (*Answer, error) {
	prof, err := r.ready(ctx)
	if err != nil {
		return nil, err
	}
	var said completeness.Remarks
	t := &routedGroup{groupView: p.partition.members[0]}
	e := &evaluation{
		cfg: t.cfg, carries: carries, builder: labels.NewScratchBuilder(16),
		backend: func(text string) { said.Server(p.partition.view.about(t.groupView), r.url(), text) },
	}
	list, err := prof.client.ForClient(p.partition.view.request.Header).Evaluate(ctx, text, p.Steps, transport.Request{
		Labels: e.labels, Charge: p.partition.view.charging(r, transport.QueryAPI), Warn: e.warn, Inform: e.inform,
	})
	if err != nil {
		return nil, err
	}
	p.partition.view.metrics.read(r, transport.QueryAPI, list)
	for _, s := range list {
		samples := s.Run.(*dedup.Samples)
		if samples.H != nil || samples.FH != nil {
			return nil, &UnusableError{"native histograms lose what JSON cannot carry"}
		}
		e.answer.Series = append(e.answer.Series, Evaluated{s.Labels, samples})
	}
	if e.unusable != "" {
		return nil, &UnusableError{e.unusable}
	}
	if doubt := clockDoubt(prof.client); doubt != "" {
		said.Warn(completeness.About(t.cfg.Name, r.url(), doubt))
	}
	ws, err := said.Verdict(&p.partition.view.Ledger, p.Steps.Start, p.Steps.End)
	if err != nil {
		return nil, err
	}
	e.answer.Warnings = append(e.answer.Warnings, slices.Sorted(maps.Keys(ws))...)
	return &e.answer, nil
}

// evaluation takes an answer in.
type evaluation struct {
	cfg     *config.Group
	carries []string
	builder labels.ScratchBuilder
	backend func(text string) // takes what the backend says of its data
	answer  Answer

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
		e.builder.Add(l.Name, l.Value)
	}
	for _, name := range e.carries {
		e.builder.Add(name, e.cfg.Labels[name])
	}
	e.builder.Sort()
	return e.builder.Labels(), ""
}

func (e *evaluation) refuse(why string) {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	e.unusable = why
}

// ofData tells what a backend says of its data, which is that they are not whole, from
// annotations of PromQL, and from how many of these there are.
func ofData(text string) bool {
	return !strings.HasPrefix(text, annotations.PromQLWarning.Error()) && !strings.HasPrefix(text, annotations.PromQLInfo.Error()) && !omits(text)
}

// omits tells that there are more annotations than the answer shows.
func omits(text string) bool {
	return strings.Contains(text, "more warning annotations omitted") || strings.Contains(text, "more info annotations omitted")
}

// warn takes a warning.
func (e *evaluation) warn(text string) {
	if ofData(text) {
		e.backend(text)
		return
	}
	e.note(&e.answer.Warnings, text)
}

// aboutReplicas begins the infos of a oneprom that one of its groups answered without a
// replica.
var aboutReplicas = annotations.PromQLInfo.Error() + ": server group "

// inform takes an info, but not of the replicas behind another oneprom: where samples
// are fetched they are not spoken of either.
func (e *evaluation) inform(text string) {
	if !strings.HasPrefix(text, aboutReplicas) {
		e.note(&e.answer.Infos, text)
	}
}

// note takes an annotation over, which must be whole: what others say in the same
// words is said once.
func (e *evaluation) note(list *[]string, text string) {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	switch {
	case strings.HasSuffix(text, transport.Cut), omits(text):
		e.unusable = "its warnings are not complete"
	case !slices.Contains(*list, text):
		*list = append(*list, text)
	}
}

// Late is the error of parts of which the query's time ended while partitions were asked:
// errs are those of their fetches, nil where there was none. It names those that had not
// answered; it is nil if all had.
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

// Verdict turns what became of several partitions into warnings or an error, as if they had
// been asked as one: errs are those of their fetches, nil where there was none.
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
		strict = strict || slices.ContainsFunc(asked[i].members, func(g groupView) bool { return asked[i].view.strict(g.cfg) })
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
