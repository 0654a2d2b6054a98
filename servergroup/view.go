package servergroup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/findings"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/routing"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// View is the groups as one query sees them: the configuration and the replicas
// of the moment it began, one clock reading, one budget. A reload does not
// touch it.
type View struct {
	groups    []groupView
	partial   config.PartialResponse
	requested config.PartialResponse // by the request; "" if it says nothing
	pushdown  config.Pushdown        // PushdownOff: for no group
	now       time.Time
	budget    *budget
	extra     *health.Extra // of hedges and retries

	client http.Header       // that is passed on; nil: none
	only   []*labels.Matcher // see WithOnly

	without Missing // groups that are not asked
	metrics *metrics

	completeness Completeness

	mtx       sync.Mutex              // guards the fields below
	broken    annotations.Annotations // samples that cannot be decoded
	standings map[string]standing     // by group
}

type groupView struct {
	cfg      *config.Group
	rank     int // its place in the configuration
	replicas []*replica
	found    *findings.Recent
	scrapes  *evidenceCache
	useless  *useless
	only     []*labels.Matcher // all that the request may be shown; none: everything
}

// Alike tells whether two views are of the same groups with the same replicas, as one
// configuration and one discovery made them, and of requests that say the same of
// partial answers and of push-down, of which the same headers are passed on, and which
// may be shown the same.
func (v *View) Alike(o *View) bool {
	return v.pushdown == o.pushdown && v.forwardsLike(o) && v.seesLike(o) && slices.EqualFunc(v.groups, o.groups, func(a, b groupView) bool {
		return a.cfg == b.cfg && v.strict(a.cfg) == o.strict(b.cfg) && slices.Equal(a.replicas, b.replicas)
	})
}

// strict tells whether an answer must not lack data of a group.
func (v *View) strict(g *config.Group) bool {
	return cmp.Or(v.requested, g.PartialResponse, v.partial) == config.PartialError
}

type partialKey struct{}

// WithPartialResponse overrides partial_response for the queries of a request.
func WithPartialResponse(ctx context.Context, p config.PartialResponse) context.Context {
	return context.WithValue(ctx, partialKey{}, p)
}

// View returns the groups of the moment. There are none before the first Apply.
func (s *Set) View(ctx context.Context) *View {
	v := &View{now: s.opts.Now(), budget: &budget{limit: s.opts.MaxFetchedBytes, over: s.healths.metrics.overBudget.Inc}, extra: &s.healths.extra, metrics: s.healths.metrics, partial: config.PartialWarn}
	if gen := s.current.Load(); gen != nil {
		v.partial = gen.partial
		for i, g := range gen.groups() {
			v.groups = append(v.groups, groupView{cfg: &g.cfg, rank: i, replicas: *g.replicas.Load(), found: g.found, scrapes: &g.scrapes, useless: g.useless})
		}
	}
	if p, ok := ctx.Value(partialKey{}).(config.PartialResponse); ok {
		v.requested = p
	}
	v.pushdown, _ = ctx.Value(pushdownKey{}).(config.Pushdown)
	v.client, _ = transport.ClientHeader(ctx)
	v.restrict(ctx)
	return v
}

// target is one group that is asked, with what it is asked for.
type target struct {
	groupView
	route routing.Route
	// holders is how many replicas may hold a series of this group, those of other
	// groups included. It is 1 if nothing has to be merged.
	holders int
	// needed tells that the replicas have missed something, whole which of them have not:
	// where one of these answers, the others are not needed.
	needed bool
	whole  []*replica
}

// route decides which groups are asked for a selector.
func (v *View) route(ms []*labels.Matcher, mint, maxt int64) []target {
	return v.routeAmong(v.groups, ms, mint, maxt)
}

func (v *View) routeAmong(groups []groupView, ms []*labels.Matcher, mint, maxt int64) []target {
	var ts []target
	for _, g := range groups {
		r := routing.To(g.cfg, g.with(ms), mint, maxt, v.now)
		if r.Skipped == "" {
			ts = append(ts, target{groupView: g, route: r})
		}
	}
	countHolders(ts)
	return ts
}

// routeMerge is route for samples: it adds the groups whose time_range does not
// meet the window, but what the merge looks at around it. What is selected for a
// window would else depend on what else is asked for.
func (v *View) routeMerge(ms []*labels.Matcher, mint, maxt int64) []target {
	return v.routeMergeAmong(v.groups, ms, mint, maxt)
}

func (v *View) routeMergeAmong(groups []groupView, ms []*labels.Matcher, mint, maxt int64) []target {
	var concerned []groupView
	for _, g := range groups {
		if !labelmap.Excludes(g.cfg, ms) {
			concerned = append(concerned, g)
		}
	}
	ts := v.routeAmong(concerned, ms, mint, maxt)
	for _, g := range concerned {
		if slices.ContainsFunc(ts, func(t target) bool { return t.cfg == g.cfg }) {
			continue
		}
		with := append(slices.Clone(ts), target{groupView: g})
		countHolders(with)
		last := &with[len(ts)]
		lo, hi := around(mint, maxt, last.holders)
		last.route = routing.To(g.cfg, g.with(ms), lo, hi, v.now)
		if last.route.Skipped == "" && last.holders > g.runs() {
			ts = with
		}
	}
	if !slices.IsSortedFunc(ts, byRank) {
		slices.SortStableFunc(ts, byRank)
	}
	return ts
}

// byRank compares the places of groups in the configuration.
func byRank(a, b target) int { return cmp.Compare(a.rank, b.rank) }

// around widens a window (ms) by what the merge of so many holders looks at.
func around(mint, maxt int64, holders int) (lo, hi int64) {
	margin := dedup.MarginOf(holders)
	return max(mint, math.MinInt64+margin) - margin, min(maxt, math.MaxInt64-margin) + margin
}

func countHolders(ts []target) {
	cfgs := make([]*config.Group, len(ts))
	for i, t := range ts {
		cfgs[i] = t.cfg
	}
	if routing.AllDisjoint(cfgs) {
		for i := range ts {
			ts[i].holders = min(ts[i].runs(), mostHolders)
		}
		return
	}
	for i := range ts {
		ts[i].holders = 0
		for j := range ts {
			if i == j || !routing.Disjoint(ts[i].cfg, ts[j].cfg) {
				ts[i].holders += ts[j].runs()
			}
		}
		ts[i].holders = min(ts[i].holders, mostHolders)
	}
}

// mostHolders bounds the margin that is fetched for the sake of the merge: more
// replicas than that do not hold one series, even if many groups lack the labels
// to rule it out.
const mostHolders = 6

// runs is how many runs of one series the replicas of the group may deliver: one
// each, but a single store with a replica label keeps what a pair has written.
func (g groupView) runs() int {
	if len(g.replicas) == 1 && len(g.cfg.ReplicaLabels) > 0 {
		return 2
	}
	return len(g.replicas)
}

// each has every replica of the targets do f at once and returns, per target, what
// became of it. It fails as a whole if the query ends, or does not fit its budget.
func (v *View) each(ctx context.Context, ts []target, f func(ctx context.Context, t, r int) error) ([]outcome, error) {
	ctx, cancel := fetchContext(ctx)
	defer cancel()
	outcomes := make([]outcome, len(ts))
	errs := make([][]error, len(ts))
	regardless := v.regardless()
	var wg sync.WaitGroup
	for i, t := range ts {
		errs[i] = make([]error, len(t.replicas))
		outcomes[i] = outcome{group: t.cfg, asked: len(t.replicas), errs: errs[i], needed: t.needed, quiet: t.restricted()}
		for j, r := range t.replicas {
			wg.Go(func() {
				if err := v.without[t.cfg.Name]; err != nil {
					errs[i][j] = err
					return
				}
				errs[i][j] = r.attempt(ctx, regardless, func(ctx context.Context) error { return f(ctx, i, j) })
				err := errs[i][j]
				var over *BudgetError
				if errors.As(err, &over) {
					cancel() // the others' answers are of no use any more
				}
			})
		}
	}
	wg.Wait()
	for i, t := range ts {
		for j, r := range t.replicas {
			outcomes[i].needed = outcomes[i].needed && (errs[i][j] != nil || !slices.Contains(t.whole, r))
		}
		for _, err := range errs[i] {
			var over *BudgetError
			if errors.As(err, &over) {
				return nil, over
			}
			if err != nil {
				outcomes[i].failed = append(outcomes[i].failed, err)
			}
		}
	}
	return outcomes, nil
}

var errNearlyOver = errors.New("no answer before the query's time was nearly over")

// fetchContext ends a little before the query does, so that what the others
// answered can still be used when one replica hangs.
func fetchContext(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	left := time.Until(deadline)
	return context.WithTimeoutCause(ctx, left-left/10, errNearlyOver)
}

// Selection says which samples of which series a query needs.
type Selection struct {
	Matchers []*labels.Matcher
	// MinT and MaxT bound the samples (ms, inclusive).
	MinT, MaxT int64
	// Steps, if set, are the only instants at which the series are looked at, as
	// an instant vector.
	Steps *transport.Steps
	// Every tells that what is seen at the steps is not all that is needed: samples
	// that others hide from them are, too.
	Every bool
}

// fetch gets the selection from all groups concerned. It returns the series in
// the order of their labels.
func (v *View) fetch(ctx context.Context, sel Selection) ([]*dedup.Series, annotations.Annotations, error) {
	list, ws, err := v.fetchFrom(ctx, sel, v.routeMerge(sel.Matchers, sel.MinT, sel.MaxT), v.settled(sel))
	if err != nil {
		return nil, ws, err
	}
	holes, err := v.Uncovered(sel)
	if ws.Merge(holes); err != nil {
		return nil, ws, err
	}
	return list, ws, nil
}

// fetchFrom gets the selection from some groups. tell, unless it is nil, is told what has
// become of each.
func (v *View) fetchFrom(ctx context.Context, sel Selection, ts []target, tell func(outcome)) ([]*dedup.Series, annotations.Annotations, error) {
	var said remarks
	sources := make([][]source, len(ts))
	for i := range ts {
		sources[i] = make([]source, len(ts[i].replicas))
	}
	outcomes, err := v.each(ctx, ts, func(ctx context.Context, i, j int) (err error) {
		sources[i][j], err = v.fetchReplica(ctx, sel, &ts[i], ts[i].replicas[j], &said)
		return err
	})
	if err == nil {
		err = ended(ctx, outcomes)
	}
	if err != nil {
		return nil, nil, err
	}
	if tell != nil {
		for _, o := range outcomes {
			tell(o)
		}
	}
	inOrder := slices.DeleteFunc(slices.Concat(sources...), func(s source) bool { return s.target == nil }) // which has failed
	v.noteHistograms(inOrder, sel, &said)
	inOrder = slices.DeleteFunc(inOrder, func(s source) bool { return len(s.series) == 0 })
	list := assemble(inOrder, sel.MinT, sel.MaxT, v.brokenRun, v.auditor(inOrder, sel, &said))
	ws, err := v.verdict(outcomes)
	if err != nil {
		return nil, ws, err
	}
	more, err := said.verdict(v, sel.MinT, sel.MaxT)
	return list, ws.Merge(more), err
}

// fetchReplica gets a target's share of the selection from one of its replicas.
func (v *View) fetchReplica(ctx context.Context, sel Selection, t *target, r *replica, said *remarks) (source, error) {
	s, err := v.tryReplica(ctx, sel, t, r, said)
	var e *transport.Error
	if errors.As(err, &e) && e.Unsupported() {
		// The backend is not what it was when it was probed: look again.
		r.forget()
		s, err = v.tryReplica(ctx, sel, t, r, said)
	}
	return s, err
}

func (v *View) tryReplica(ctx context.Context, sel Selection, t *target, r *replica, said *remarks) (source, error) {
	p, err := r.ready(ctx)
	if err != nil {
		return source{}, err
	}
	for _, doubt := range p.doubts {
		if t.restricted() {
			doubt = withheld
		}
		said.warn(fmt.Errorf("server group %q: %s: %s", t.cfg.Name, r.url(), doubt))
	}
	rules := labelmap.NewRules(t.cfg, p.external)
	req := transport.Request{
		Matchers: labelmap.Selectable(t.route.Resolved.Send),
		Steps:    sel.Steps,
		Alone:    t.holders == 1 && !sel.Every,
		Labels:   rules.Apply,
		Charge:   v.charging(r, p.method),
		Warn:     func(text string) { said.backend(t, r, text) },
	}
	if p.method != transport.QueryAPI {
		req.Matchers = labelmap.ForRead(req.Matchers, p.external)
	}
	// The merge looks at what is around the window, too.
	lo, hi := t.cfg.TimeRange.Bounds(v.now)
	from, to := around(sel.MinT, sel.MaxT, t.holders)
	req.MinT, req.MaxT = max(lo, from), min(hi, to)
	client, method := v.clientOf(t.cfg, p), p.method
	list, err := client.Fetch(ctx, method, req)
	refusesParts := p.dialect.WholeReads && !v.strict(t.cfg) && transport.ClassOf(err) == transport.ClassServer
	if p.method != transport.QueryAPI && (refusesParts || transport.CannotCut(err)) {
		method = transport.QueryAPI
		list, err = client.Fetch(ctx, method, req)
	}
	if err != nil {
		return source{}, err
	}
	v.metrics.read(r, method, list)
	list = slices.DeleteFunc(list, func(s transport.Series) bool { return !labelmap.MatchesAll(s.Labels, t.route.Resolved.Check) })
	if list, err = arrange(r.url(), list); err != nil {
		return source{}, err
	}
	if !t.cfg.TimeRange.IsZero() && t.holders > 1 {
		for i := range list { // that it ends here is no gap of the replica
			list[i].Run = dedup.Bounded{Run: list[i].Run, From: lo, To: hi}
		}
	}
	if doubt := clockDoubt(client); doubt != "" {
		said.warn(fmt.Errorf("server group %q: %s: %s", t.cfg.Name, r.url(), doubt))
	}
	v.noteOusted(t, rules, said)
	return source{origin: origin{target: t, profile: p}, series: list}, nil
}

// charging charges the query's budget for what a replica answers.
func (v *View) charging(r *replica, by transport.Method) func(bytes int) error {
	fetched := r.metrics.fetched(r, by)
	return func(bytes int) error {
		fetched.Add(float64(bytes))
		return v.budget.charge(bytes)
	}
}

// clientOf returns the client for a replica's profile that follows the query's
// partial_response.
func (v *View) clientOf(g *config.Group, p *profile) *transport.Client {
	return p.client.AllowPartial(!v.strict(g))
}
