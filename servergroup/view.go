package servergroup

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/completeness"
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
	// Ledger records what becomes of the groups in the query.
	Ledger completeness.Ledger

	groups  []groupView
	partial config.PartialResponse
	request *Request
	now     time.Time
	budget  *Budget
	extra   *health.Extra // of hedges and retries
	metrics *metrics
}

type groupView struct {
	cfg      *config.Group
	rank     int // its place in the configuration
	replicas []*replica
	found    *findings.Recent
	scrapes  *evidenceCache
	useless  *useless
	// shown are the matchers of the series that the request may be shown; none:
	// everything.
	shown []*labels.Matcher
}

// Alike reports whether two views are of the same groups with the same replicas, as one
// configuration and one discovery made them, for requests whose answers are the same.
func (v *View) Alike(o *View) bool {
	return v.request.alike(o.request) && slices.EqualFunc(v.groups, o.groups, func(a, b groupView) bool {
		return a.cfg == b.cfg && v.strict(a.cfg) == o.strict(b.cfg) && slices.Equal(a.replicas, b.replicas) && v.request.passesOnLike(o.request, a.cfg)
	})
}

// strict reports whether an answer must not lack data of a group.
func (v *View) strict(g *config.Group) bool {
	return cmp.Or(v.request.Partial, g.PartialResponse, v.partial) == config.PartialError
}

// about is what the completeness of an answer depends on of a group.
func (v *View) about(g groupView) completeness.Group {
	return completeness.Group{Name: g.cfg.Name, Region: g.cfg.Region, Strict: v.strict(g.cfg), Restricted: g.restricted()}
}

// View returns the groups of the moment. There are none before the first Apply.
func (s *Set) View(ctx context.Context) *View {
	v := &View{
		request: RequestOf(ctx), now: s.opts.Now(), partial: config.PartialWarn,
		budget: &Budget{Limit: s.opts.MaxFetchedBytes, Exceeded: s.healths.metrics.overBudget.Inc},
		extra:  &s.healths.extra, metrics: s.healths.metrics,
	}
	if gen := s.current.Load(); gen != nil {
		v.partial = gen.partial
		for i, g := range gen.groups() {
			v.groups = append(v.groups, groupView{cfg: &g.cfg, rank: i, replicas: *g.replicas.Load(), found: g.found, scrapes: &g.scrapes, useless: g.useless})
		}
	}
	v.restrict()
	return v
}

// Report adds what answers of the view lack to the record of its request, and counts it.
func (v *View) Report() {
	gaps := v.Ledger.Gaps()
	for _, g := range gaps {
		v.metrics.partial.WithLabelValues(g.Group, g.Region).Inc()
	}
	v.request.Record.Report(gaps)
}

// Require is an error if a group is missing that a selector concerns, or may concern: what
// is made of the selector is false without the group.
func (v *View) Require(ms []*labels.Matcher) error {
	return v.Ledger.Require(func(group string) bool {
		i := slices.IndexFunc(v.groups, func(g groupView) bool { return g.cfg.Name == group })
		return i >= 0 && !labelmap.Excludes(v.groups[i].cfg, ms)
	})
}

// routedGroup is one group that is asked, with what it is asked for.
type routedGroup struct {
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
func (v *View) route(ms []*labels.Matcher, mint, maxt int64) []routedGroup {
	return v.routeAmong(v.groups, ms, mint, maxt)
}

func (v *View) routeAmong(groups []groupView, ms []*labels.Matcher, mint, maxt int64) []routedGroup {
	var ts []routedGroup
	for _, g := range groups {
		r := routing.To(g.cfg, g.with(ms), mint, maxt, v.now)
		if r.Skipped == "" {
			ts = append(ts, routedGroup{groupView: g, route: r})
		}
	}
	countHolders(ts)
	return ts
}

// routeMerge is route for samples: it adds the groups whose time_range does not
// meet the window, but what the merge looks at around it. What is selected for a
// window would else depend on what else is asked for.
func (v *View) routeMerge(ms []*labels.Matcher, mint, maxt int64) []routedGroup {
	return v.routeMergeAmong(v.groups, ms, mint, maxt)
}

func (v *View) routeMergeAmong(groups []groupView, ms []*labels.Matcher, mint, maxt int64) []routedGroup {
	var concerned []groupView
	for _, g := range groups {
		if !labelmap.Excludes(g.cfg, ms) {
			concerned = append(concerned, g)
		}
	}
	ts := v.routeAmong(concerned, ms, mint, maxt)
	routed := ts // in the order of concerned
	for _, g := range concerned {
		if len(routed) > 0 && routed[0].cfg == g.cfg {
			routed = routed[1:]
			continue
		}
		with := append(slices.Clone(ts), routedGroup{groupView: g})
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
func byRank(a, b routedGroup) int { return cmp.Compare(a.rank, b.rank) }

// around widens a window (ms) by what the merge of so many holders looks at.
func around(mint, maxt int64, holders int) (lo, hi int64) {
	margin := dedup.MarginOf(holders)
	return max(mint, math.MinInt64+margin) - margin, min(maxt, math.MaxInt64-margin) + margin
}

func countHolders(ts []routedGroup) {
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

// each has every replica of the routed groups do f at once and returns what became of each
// group. It fails as a whole if the query ends, or does not fit its budget. Groups that the
// query does without are not asked.
func (v *View) each(ctx context.Context, routed []routedGroup, f func(ctx context.Context, group, replica int) error) ([]completeness.Outcome, error) {
	type place struct{ group, replica int }
	var asked []*replica
	var places []place
	outcomes := make([]completeness.Outcome, len(routed))
	for i, g := range routed {
		outcomes[i] = completeness.Outcome{Group: v.about(g.groupView), Asked: len(g.replicas), Needed: g.needed}
		if err := v.Ledger.Without[g.cfg.Name]; err != nil {
			for range g.replicas {
				outcomes[i].Failed = append(outcomes[i].Failed, err)
			}
			continue
		}
		for j, r := range g.replicas {
			asked, places = append(asked, r), append(places, place{i, j})
		}
	}
	errs, err := Each(ctx, asked, v.regardless(), func(ctx context.Context, i int) error {
		return f(ctx, places[i].group, places[i].replica)
	})
	if err != nil {
		return nil, err
	}
	for i, at := range places {
		if errs[i] != nil {
			outcomes[at.group].Failed = append(outcomes[at.group].Failed, errs[i])
		} else if slices.Contains(routed[at.group].whole, asked[i]) {
			outcomes[at.group].Needed = false
		}
	}
	return outcomes, nil
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
	list, ws, err := v.fetchFrom(ctx, sel, v.routeMerge(sel.Matchers, sel.MinT, sel.MaxT), v.recordFetch(sel))
	if err != nil {
		return nil, ws, err
	}
	holes, err := v.Uncovered(sel)
	if ws.Merge(holes); err != nil {
		return nil, ws, err
	}
	return list, ws, nil
}

// recordFetch records what becomes of the groups of which a selection is wanted.
func (v *View) recordFetch(sel Selection) func(completeness.Outcome) {
	return func(o completeness.Outcome) { v.Ledger.RecordFetch(o, sel.MinT, sel.MaxT) }
}

// fetchFrom gets the selection from some groups. tell, unless it is nil, is told what has
// become of each.
func (v *View) fetchFrom(ctx context.Context, sel Selection, ts []routedGroup, tell func(completeness.Outcome)) ([]*dedup.Series, annotations.Annotations, error) {
	var said completeness.Remarks
	sources := make([][]source, len(ts))
	for i := range ts {
		sources[i] = make([]source, len(ts[i].replicas))
	}
	outcomes, err := v.each(ctx, ts, func(ctx context.Context, i, j int) (err error) {
		sources[i][j], err = v.fetchReplica(ctx, sel, &ts[i], ts[i].replicas[j], &said)
		return err
	})
	if err == nil {
		err = completeness.Ended(ctx, outcomes)
	}
	if err != nil {
		return nil, nil, err
	}
	if tell != nil {
		for _, o := range outcomes {
			tell(o)
		}
	}
	inOrder := slices.DeleteFunc(slices.Concat(sources...), func(s source) bool { return s.from == nil }) // which has failed
	v.noteHistograms(inOrder, sel, &said)
	inOrder = slices.DeleteFunc(inOrder, func(s source) bool { return len(s.series) == 0 })
	list := assemble(inOrder, sel.MinT, sel.MaxT, v.Ledger.BrokenSamples, v.auditor(inOrder, sel, &said))
	ws, err := completeness.Verdict(outcomes)
	if err != nil {
		return nil, ws, err
	}
	more, err := said.Verdict(&v.Ledger, sel.MinT, sel.MaxT)
	return list, ws.Merge(more), err
}

// fetchReplica gets a target's share of the selection from one of its replicas.
func (v *View) fetchReplica(ctx context.Context, sel Selection, t *routedGroup, r *replica, said *completeness.Remarks) (source, error) {
	s, err := v.tryReplica(ctx, sel, t, r, said)
	var e *transport.Error
	if errors.As(err, &e) && e.Unsupported() {
		// The backend is not what it was when it was probed: look again.
		r.forget()
		s, err = v.tryReplica(ctx, sel, t, r, said)
	}
	return s, err
}

func (v *View) tryReplica(ctx context.Context, sel Selection, t *routedGroup, r *replica, said *completeness.Remarks) (source, error) {
	p, err := r.ready(ctx)
	if err != nil {
		return source{}, err
	}
	for _, doubt := range p.doubts {
		if t.restricted() {
			doubt = completeness.Withheld
		}
		said.Warn(completeness.About(t.cfg.Name, r.url(), doubt))
	}
	rules := labelmap.NewRules(t.cfg, p.external)
	req := transport.Request{
		Matchers: labelmap.Selectable(t.route.Resolved.Send),
		Steps:    sel.Steps,
		Alone:    t.holders == 1 && !sel.Every,
		Labels:   rules.Apply,
		Charge:   v.charging(r, p.method),
		Warn:     func(text string) { said.Server(v.about(t.groupView), r.url(), text) },
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
	refusesParts := p.dialect.RefusesPartialReads && !v.strict(t.cfg) && transport.ClassOf(err) == transport.ClassServer
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
		said.Warn(completeness.About(t.cfg.Name, r.url(), doubt))
	}
	v.noteOusted(t, rules, said)
	return source{origin: origin{from: t, profile: p}, series: list}, nil
}

// charging charges the query's budget for what a replica answers.
func (v *View) charging(r *replica, by transport.Method) func(bytes int) error {
	fetched := r.metrics.fetched(r, by)
	return func(bytes int) error {
		fetched.Add(float64(bytes))
		return v.budget.Charge(bytes)
	}
}

// clientOf returns the client for a replica's profile that follows the query's
// partial_response, and passes the headers of its client on.
func (v *View) clientOf(g *config.Group, p *profile) *transport.Client {
	return p.client.AllowPartial(!v.strict(g)).ForClient(v.request.Header)
}

// regardless reports whether the breakers of all replicas of all groups are open. Then
// they are asked all the same: there is nothing to lose.
func (v *View) regardless() bool {
	return len(v.groups) > 0 && !slices.ContainsFunc(v.groups, groupView.usable)
}

// usable reports whether a replica of the group would be asked.
func (g groupView) usable() bool {
	return slices.ContainsFunc(g.replicas, func(r *replica) bool { return r.health.Usable() })
}
