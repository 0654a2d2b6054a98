// Package audit looks again at some of the answers that a replica gave alone: evidence had shown
// that it is whole there. Raw samples of the replica are compared with those of a twin. If it lacks
// some, that is counted and found, and evidence says so from then on, so that others are asked.
//
// An Auditor serves all groups of a process, one answer at a time. A Group is what it keeps of one
// server group. Auditing is never in the way of queries: an answer is dropped if the auditor is
// busy, or if its budget of bytes is used up.
package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/findings"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

const (
	// partOfLoad is which part of the bytes of answers an audit may fetch, one in so many.
	partOfLoad = 50
	// savedBytes is how much of its budget a group can save, and has in the beginning.
	savedBytes = 16 << 20
	// mostBytes bounds what one audit fetches.
	mostBytes = 32 << 20
	// longestWindow (ms) is the longest part of an answer's window that is looked at.
	longestWindow = 2 * 60 * 60 * 1000
	// surroundings (ms) is how much around that is fetched to see where series begin and end.
	surroundings = dedup.Margin
	// longestQuery is how long an audit waits for the end of the query.
	longestQuery = 2 * time.Minute
	// longestAudit bounds an audit.
	longestAudit = time.Minute
)

// Options of an Auditor.
type Options struct {
	// Share is which part of the answers is looked at again, from 0, none, to 1, all.
	Share float64
	// Life ends the audits.
	Life *lifetime.Lifetime
	// Now is the clock.
	Now func() time.Time
	// Random returns numbers in [0, 1); nil is that of math/rand.
	Random func() float64
	// Metrics count audits, and what they find.
	Metrics *replica.Metrics
	Logger  *slog.Logger
}

// Auditor looks again at answers, one at a time. It is safe for concurrent use.
type Auditor struct {
	Options
	busy atomic.Bool
}

// New returns an auditor.
func New(o Options) *Auditor {
	if o.Random == nil {
		o.Random = rand.Float64
	}
	return &Auditor{Options: o}
}

// Group is what the auditor keeps of a server group. It is safe for concurrent use; nil audits
// nothing.
type Group struct {
	auditor *Auditor
	config  *config.Group
	losses  *evidence.Losses
	// Findings are what audits have found.
	Findings *findings.Recent

	ctx context.Context
	// End ends the audit of the group that is running, if one is.
	End context.CancelFunc

	mtx    sync.Mutex // guards the field below
	budget float64    // bytes
}

// NewGroup returns the auditor's part of a group. The losses are those of its evidence.
func (a *Auditor) NewGroup(cfg *config.Group, losses *evidence.Losses, logger *slog.Logger) *Group {
	g := &Group{auditor: a, config: cfg, losses: losses, Findings: findings.New(logger), budget: savedBytes}
	g.ctx, g.End = context.WithCancel(context.Background()) // not a child, so that a group needs no end to be garbage
	return g
}

// Loaded adds to the budget for bytes that answers of the group's replicas brought.
func (g *Group) Loaded(bytes int) {
	if g == nil {
		return
	}
	g.mtx.Lock()
	defer g.mtx.Unlock()
	g.budget = min(savedBytes, g.budget+float64(bytes)/partOfLoad)
}

// spend takes bytes from the budget, which may become less than nothing: no audit begins then.
func (g *Group) spend(bytes int64) (left float64) {
	g.mtx.Lock()
	defer g.mtx.Unlock()
	g.budget -= float64(bytes)
	return g.budget
}

// Answer is an answer that a replica gave alone.
type Answer struct {
	Replica    *replica.Replica
	Generation uint64             // of the replica, when evidence was asked
	Replicas   []*replica.Replica // all of the group
	Selections []Selection
}

// Selection is the samples of a selector that an answer was made of.
type Selection struct {
	Matchers []*labels.Matcher
	// Windows are the times in which the replica is whole, as evidence shows.
	Windows []evidence.Span
}

// The outcomes of audits, which oneprom_audits_total has.
const (
	clean      = "clean"       // nothing is lacking
	found      = "found"       // something is
	recent     = "recent"      // all of the answer is too new to be compared
	busy       = "busy"        // another audit is running, or queries wait for the replica
	overBudget = "over_budget" // the budget is used up
	tooLarge   = "too_large"   // more than mostBytes
	failed     = "failed"      // a replica did not answer
)

// Offer may look again at an answer, when its query is over: when ctx has ended. It returns at
// once. answer is only called if the answer is drawn.
func (g *Group) Offer(ctx context.Context, answer func() Answer) {
	if g == nil || g.auditor.Share <= 0 || g.auditor.Random() >= g.auditor.Share {
		return
	}
	switch {
	case g.spend(0) <= 0:
		g.count(overBudget)
		return
	case !g.auditor.busy.CompareAndSwap(false, true):
		g.count(busy)
		return
	}
	a := answer()
	if !g.auditor.Life.Run(func(life context.Context) {
		defer g.auditor.busy.Store(false)
		life, cancel := context.WithCancel(life)
		defer cancel()
		defer context.AfterFunc(g.ctx, cancel)()
		await(life, ctx)
		if life.Err() == nil && g.ctx.Err() == nil {
			g.count(g.audit(life, a))
		}
	}) {
		g.auditor.busy.Store(false)
	}
}

func (g *Group) count(outcome string) {
	g.auditor.Metrics.Audits.WithLabelValues(outcome, g.config.Name, g.config.Region).Inc()
}

// await waits until a query is over, or ctx.
func await(ctx, query context.Context) {
	late := time.NewTimer(longestQuery)
	defer late.Stop()
	select {
	case <-query.Done():
	case <-late.C:
	case <-ctx.Done():
	}
}

// audit looks at an answer and returns the outcome.
func (g *Group) audit(ctx context.Context, a Answer) string {
	ctx, cancel := context.WithTimeout(ctx, longestAudit)
	defer cancel()
	twin := g.twinFor(a)
	if twin == nil {
		return failed
	}
	held := &fanout.Budget{Limit: mostBytes}
	defer func() { g.spend(held.Used()) }()
	outcome := recent
	for _, sel := range a.Selections {
		w, ok := g.windowOf(sel)
		if !ok {
			continue
		}
		if a.Replica.Health.Slots().Waiting()+twin.Health.Slots().Waiting() > 0 {
			return busy
		}
		var lacks lacking
		err := guard.Call(func() (err error) {
			lacks, err = g.compare(ctx, a.Replica, twin, sel.Matchers, w, held)
			return err
		})
		var over *fanout.BudgetError
		switch {
		case errors.As(err, &over):
			return tooLarge
		case err != nil || a.Replica.Generation() != a.Generation:
			g.logPanic(err)
			return failed
		case lacks.series > 0:
			outcome = found
			g.report(a, twin, sel, lacks)
		case outcome == recent:
			outcome = clean
		}
	}
	return outcome
}

func (g *Group) logPanic(err error) {
	if bug, ok := errors.AsType[*guard.PanicError](err); ok {
		g.auditor.Logger.Error("an audit panicked", "group", g.config.Name, "panic", bug.Value, "stack", string(bug.Stack))
	}
}

// twinFor returns another replica that may be asked, any of them; nil if there is none.
func (g *Group) twinFor(a Answer) *replica.Replica {
	twins := slices.DeleteFunc(slices.Clone(a.Replicas), func(r *replica.Replica) bool { return r == a.Replica || !r.Health.Usable() })
	if len(twins) == 0 {
		return nil
	}
	return twins[g.choose(int64(len(twins)))]
}

// choose returns a random number in [0, n).
func (g *Group) choose(n int64) int64 { return int64(g.auditor.Random() * float64(n)) }

// window is what an audit looks at (ms, inclusive).
type window struct {
	evidence.Span               // where samples of the replica may not be missing
	fetched       evidence.Span // with its surroundings
}

// windowOf chooses what to look at of a selection. It is not ok if all is too new.
func (g *Group) windowOf(sel Selection) (w window, ok bool) {
	now := g.auditor.Now()
	settled := evidence.Settled(now)
	old := slices.DeleteFunc(slices.Clone(sel.Windows), func(s evidence.Span) bool { return s.From >= min(s.To, settled) })
	if len(old) == 0 {
		return w, false
	}
	w.Span = old[g.choose(int64(len(old)))]
	w.To = min(w.To, settled)
	if more := w.To - w.From - longestWindow; more > 0 {
		w.From += g.choose(more)
		w.To = w.From + longestWindow
	}
	lo, hi := g.config.TimeRange.Bounds(now)
	w.fetched = evidence.Span{From: max(lo, w.From-surroundings), To: min(hi, settled, w.To+surroundings)}
	if w.fetched.From >= w.fetched.To { // `holds` has lifted the time_range
		return w, false
	}
	return w, true
}

// compare returns what a replica lacks of a selection that a twin has.
func (g *Group) compare(ctx context.Context, own, twin *replica.Replica, ms []*labels.Matcher, w window, held *fanout.Budget) (lacking, error) {
	res := labelmap.Resolve(g.config, ms)
	if res.Excluded != "" {
		return lacking{}, nil
	}
	var lists [2][]transport.Series
	for i, r := range []*replica.Replica{own, twin} {
		err := r.Attempt(ctx, false, func(ctx context.Context) (err error) {
			lists[i], err = g.fetch(ctx, r, res, w.fetched, held)
			return err
		})
		if err != nil {
			return lacking{}, err
		}
	}
	return compareSeries(ctx, lists[0], lists[1], w)
}

// fetch returns the series of a replica, sorted by labels.
func (g *Group) fetch(ctx context.Context, r *replica.Replica, res labelmap.Resolved, s evidence.Span, held *fanout.Budget) (list []transport.Series, err error) {
	bytes := g.auditor.Metrics.AuditBytes.WithLabelValues(g.config.Name, g.config.Region)
	err = r.UpToDate(func() error {
		p, err := r.Ready(ctx)
		if err != nil {
			return err
		}
		sent := p.Spellings.Resolve(res)
		rules := labelmap.NewRules(g.config, p.External).Respell(p.Spellings)
		req := transport.Request{
			Matchers: labelmap.Selectable(sent.Send), MinT: s.From, MaxT: s.To,
			Charge: func(n int) error {
				bytes.Add(float64(n))
				return held.Charge(n)
			},
		}
		if list, err = r.Fetch(ctx, p, p.Client.AllowPartial(false), p.Method, rules, req); err == nil {
			list, err = r.Arrange(list, sent.Check, rules, req)
		}
		return err
	})
	return list, err
}

// report makes known what a replica lacks.
func (g *Group) report(a Answer, twin *replica.Replica, sel Selection, l lacking) {
	now := g.auditor.Now()
	g.auditor.Metrics.AuditFinds.WithLabelValues(replica.LabelValues(a.Replica)...).Add(float64(l.series))
	for name, spans := range l.byName {
		g.losses.Add(a.Replica, a.Generation, name, spans, now)
	}
	text := fmt.Sprintf("%s lacks samples that %s has, of %d series: for example %s from %s to %s, of the selector %s. Other replicas are asked for these metrics and times",
		a.Replica.URL(), twin.URL(), l.series, findings.Shorten(l.example.String()), config.FormatTime(l.first.From), config.FormatTime(l.first.To),
		findings.Shorten(transport.Selector(sel.Matchers)))
	g.Findings.Add("lacks "+a.Replica.URL()+" "+l.example.Get(labels.MetricName), text, now)
}
