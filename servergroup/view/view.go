// Package view is the server groups as one query sees them: it routes selections to groups,
// fetches their samples, and merges the series of their replicas. What is doubtful or missing goes
// to the query's ledger.
//
// Groups are chosen in route.go. Replicas are asked by FetchFrom and Each. The series that they have are put together in
// assemble.go; package dedup merges them when they are read.
package view

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/audit"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/findings"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/pushdown"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// View is the groups as one query sees them: the configuration and the replicas at the time it
// began, one clock reading, one budget. A reload does not change it.
type View struct {
	// Ledger records which groups answered the query, and what its answer lacks.
	Ledger *completeness.Ledger

	// Groups are those that the request may see, in the order of the configuration. Where `holds`
	// divides a group, each of its portions is one of them.
	Groups []Group
	// Request is the request that the query is part of.
	Request *request.Request
	// Now is when the query began.
	Now time.Time
	// Budget bounds the bytes of responses that are held for the query.
	Budget *fanout.Budget
	// Extra is the budget of hedges and retries; nil in an offline view.
	Extra *health.Extra
	// Metrics count the requests to the replicas; nil in an offline view.
	Metrics *replica.Metrics

	// noMargin reports whether groups are not asked whose time_range overlaps only the margin of a
	// window, and without, by rank, which groups are not asked. See Alone.
	noMargin bool
	without  []bool

	partial config.PartialResponse // the default of the configuration
	holders []Group                // one for each `holds`, also of groups that the request may not see
}

// Group is a server group as the query sees it. In an offline view, Findings, Evidence,
// Audits, Pushdown, Unusable, Holding, Copying, Intrinsic and Digests are nil.
type Group struct {
	Config   *config.Group
	Whole    *config.Group      // where Config is a portion: that of the whole group; nil: Config is
	Rank     int                // its index in View.Groups
	Entry    string             // the name of the entry that it is of
	Replicas []*replica.Replica // in order of preference
	Findings *findings.Recent   // what answers have shown about its configuration
	Evidence *evidence.Cache    // what scrapes have shown about its replicas
	Audits   *audit.Group       // looks again at answers of one replica
	Pushdown *pushdown.Account  // what its replicas evaluated, and what they could have evaluated
	Unusable *Unusable          // expressions whose answers could not be used
	Holding  *Belief            // whether its `holds` is believed
	Copying  *Belief            // whether its `copies_of` is believed
	// Intrinsic is what is known of its intrinsic labels, and Values what was known when the query
	// began; nil if nothing is.
	Intrinsic *Intrinsic
	Values    *Values
	// Digests are those of the configurations that Config may be.
	Digests map[*config.Group]string
	Offline bool // only the configuration is known, and nobody is asked
	// shown are the matchers of the series that the request may see; none for all series.
	shown []*labels.Matcher
}

// New returns a view of some groups for a request. The registry is that of their replicas; nil
// makes an offline view, which must not ask them.
func New(r *request.Request, now time.Time, partial config.PartialResponse, groups []Group, budget *fanout.Budget, registry *replica.Registry) *View {
	v := &View{Ledger: &completeness.Ledger{}, Groups: groups, partial: partial, Request: r, Now: now, Budget: budget}
	if registry != nil {
		v.Extra, v.Metrics = &registry.Extra, registry.Metrics
	}
	for i, g := range v.Groups {
		v.Groups[i].Rank = i
		if g.Config.Portion != nil && !v.knows(g) {
			v.holders = append(v.holders, g)
		}
	}
	v.restrict()
	return v
}

// knows reports whether the holders have a group that says the same as g: another portion of it, or of
// another group of the same entry.
func (v *View) knows(g Group) bool {
	n := len(v.holders)
	return n > 0 && v.holders[n-1].Holding == g.Holding && slices.Equal(v.holders[n-1].Config.Holds, g.Config.Holds)
}

// Alike reports whether a query has the same answer from two views: they have the same groups
// with the same replicas, and their requests want the same.
func (v *View) Alike(o *View) bool {
	return v.Request.Alike(o.Request) && slices.EqualFunc(v.Groups, o.Groups, func(a, b Group) bool {
		return a.Config == b.Config && v.Strict(a.Config) == o.Strict(b.Config) && slices.Equal(a.Replicas, b.Replicas) && v.Request.PassesOnLike(o.Request, a.Config)
	})
}

// Strict reports whether an answer must not lack data of a group (partial_response: error).
func (v *View) Strict(g *config.Group) bool {
	return cmp.Or(v.Request.Partial, g.PartialResponse, v.partial) == config.PartialError
}

// CompletenessOf returns a group as the ledger records it.
func (v *View) CompletenessOf(g Group) completeness.Group {
	return completeness.Group{Name: g.Config.Name, Region: g.Config.Region, Strict: v.Strict(g.Config), Restricted: g.Restricted()}
}

// Report adds the gaps in the ledger to the record of the request, and counts them.
func (v *View) Report() {
	gaps := v.Ledger.Gaps()
	for _, g := range gaps {
		v.Metrics.Partial.WithLabelValues(g.Group, g.Region).Inc()
	}
	v.Request.Record.Report(gaps)
}

// Require fails if a group is missing that may have series of a selector, for expressions whose
// result would be wrong without the group.
func (v *View) Require(ms []*labels.Matcher) error {
	concerns := v.Concerns(ms)
	return v.Ledger.Require(func(name string) bool {
		return slices.ContainsFunc(v.Groups, func(g Group) bool { return g.Config.Name == name && concerns(g) })
	})
}

// Each runs f concurrently for every replica of the routed groups, by their indices, and returns
// the outcome for each group. It fails if the query exceeds its budget. Groups that the ledger
// takes for missing are not asked.
func (v *View) Each(ctx context.Context, routed []RoutedGroup, f func(ctx context.Context, group, replica int) error) ([]completeness.Outcome, error) {
	type place struct{ group, replica int }
	var asked []*replica.Replica
	var places []place
	outcomes := make([]completeness.Outcome, len(routed))
	for i, g := range routed {
		outcomes[i] = completeness.Outcome{Group: v.CompletenessOf(g.Group), Asked: len(g.Replicas), AllNeeded: g.AllNeeded}
		if err := v.Ledger.Without[g.Config.Name]; err != nil {
			for range g.Replicas {
				outcomes[i].Failed = append(outcomes[i].Failed, err)
			}
			continue
		}
		for j, r := range g.Replicas {
			asked, places = append(asked, r), append(places, place{i, j})
		}
	}
	errs, err := fanout.Each(ctx, asked, v.Regardless(), func(ctx context.Context, i int) error {
		return f(ctx, places[i].group, places[i].replica)
	})
	if err != nil {
		return nil, err
	}
	for i, at := range places {
		if errs[i] != nil {
			outcomes[at.group].Failed = append(outcomes[at.group].Failed, errs[i])
		} else if slices.Contains(routed[at.group].WholeReplicas, asked[i]) {
			outcomes[at.group].AllNeeded = false
		}
	}
	for i, at := range places {
		if err := v.cutOff(asked[i], errs[i], routed[at.group], outcomes[at.group], func(yield func(*replica.Replica) bool) {
			for j, other := range places {
				if other.group == at.group && errs[j] == nil && !yield(asked[j]) {
					return
				}
			}
		}); err != nil {
			return nil, err
		}
	}
	return outcomes, nil
}

// cutOff decides what it means that the answer of a replica was cut off. If a twin has answered with much
// less, it is the replica's failure, and the twin stands in. If there is too much from all of
// them, it is the query's.
func (v *View) cutOff(r *replica.Replica, err error, g RoutedGroup, o completeness.Outcome, answered iter.Seq[*replica.Replica]) error {
	if _, ok := errors.AsType[*fanout.ShareError](err); !ok {
		return nil
	}
	outdone := false
	for twin := range answered {
		if outdone = fanout.Outdone(err, twin); !outdone {
			return fanout.AllOver([]error{err})
		}
	}
	if outdone {
		r.Blame(err)
	}
	if o.Missing() && len(g.Replicas) == len(v.Groups[g.Rank].Replicas) {
		return fanout.AllOver(o.Failed)
	}
	return nil
}

// Selection is the samples that a query needs of a selector.
type Selection struct {
	Matchers []*labels.Matcher
	// MinT and MaxT bound the samples (ms, inclusive).
	MinT, MaxT int64
	// Steps, if not nil, are the only instants at which the series are looked at, as an
	// instant vector.
	Steps *transport.Steps
	// Every reports whether all samples are needed, also those that no step sees because a
	// later one hides them.
	Every bool
}

// fetch gets the selection from all groups concerned. It returns the series sorted by labels.
func (v *View) fetch(ctx context.Context, sel Selection) ([]*dedup.Series, annotations.Annotations, error) {
	list, ws, err := v.FetchFrom(ctx, sel, v.RouteMerge(sel.Matchers, sel.MinT, sel.MaxT), v.RecordFetch(sel))
	if err != nil {
		return nil, ws, err
	}
	holes, err := v.Uncovered(sel)
	if ws.Merge(holes); err != nil {
		return nil, ws, err
	}
	return list, ws, nil
}

// RecordFetch returns a function that records the outcomes of fetching a selection.
func (v *View) RecordFetch(sel Selection) func(completeness.Outcome) {
	return func(o completeness.Outcome) { v.Ledger.RecordFetch(o, sel.MinT, sel.MaxT) }
}

// FetchFrom gets the selection from some groups. record, unless it is nil, is called with the
// outcome for each.
func (v *View) FetchFrom(ctx context.Context, sel Selection, ts []RoutedGroup, record func(completeness.Outcome)) ([]*dedup.Series, annotations.Annotations, error) {
	var remarks completeness.Remarks
	sources := make([][]source, len(ts))
	for i := range ts {
		sources[i] = make([]source, len(ts[i].Replicas))
	}
	outcomes, err := v.Each(ctx, ts, func(ctx context.Context, i, j int) (err error) {
		sources[i][j], err = v.fetchReplica(ctx, sel, &ts[i], ts[i].Replicas[j], &remarks)
		return err
	})
	if err == nil {
		err = completeness.Ended(ctx, outcomes)
	}
	if err != nil {
		return nil, nil, err
	}
	if record != nil {
		for _, o := range outcomes {
			record(o)
		}
	}
	inOrder := slices.DeleteFunc(slices.Concat(sources...), func(s source) bool { return s.group == nil }) // those of replicas that failed
	v.noteHistograms(inOrder, sel, &remarks)
	v.noteHeldElsewhere(inOrder, sel, &remarks)
	inOrder = slices.DeleteFunc(inOrder, func(s source) bool { return len(s.series) == 0 })
	list := assemble(inOrder, sel.MinT, sel.MaxT, v.Ledger.BrokenSamples, v.doubter(inOrder, sel, &remarks))
	ws, err := completeness.Verdict(outcomes)
	if err != nil {
		return nil, ws, err
	}
	more, err := remarks.Verdict(v.Ledger, sel.MinT, sel.MaxT)
	return list, ws.Merge(more), err
}

// fetchReplica gets the selection from one replica of a group.
func (v *View) fetchReplica(ctx context.Context, sel Selection, t *RoutedGroup, r *replica.Replica, remarks *completeness.Remarks) (s source, err error) {
	err = r.UpToDate(func() (err error) {
		s, err = v.tryReplica(ctx, sel, t, r, remarks)
		return err
	})
	return s, err
}

// tryReplica is fetchReplica by the present profile of the replica.
func (v *View) tryReplica(ctx context.Context, sel Selection, t *RoutedGroup, r *replica.Replica, remarks *completeness.Remarks) (source, error) {
	p, err := r.Ready(ctx)
	if err != nil {
		return source{}, err
	}
	v.noteDenied(t.Group, remarks)
	for _, doubt := range p.Doubts {
		if t.Restricted() {
			doubt = completeness.Withheld
		}
		remarks.Warn(completeness.Describe(t.Config.Name, r.URL(), doubt))
	}
	if p.TakesTurns != "" {
		remarks.WarnOfServer(v.CompletenessOf(t.Group), r.URL(), p.TakesTurns)
	}
	charge, end := v.Charging(t.Group, r, p.Method)
	defer end()
	rules := labelmap.NewRules(t.Config, p.External).Respell(p.Spellings).About(t.shown)
	resolved := p.Spellings.Resolve(t.Route.Resolved)
	req := transport.Request{
		Matchers:    labelmap.Selectable(resolved.Send),
		Steps:       sel.Steps,
		SoleReplica: t.Holders == 1 && !sel.Every,
		Charge:      charge,
		Warn:        func(text string) { remarks.WarnOfServer(v.CompletenessOf(t.Group), r.URL(), text) },
	}
	// The merge looks at a margin around the window, too.
	lo, hi := t.Config.TimeRange.Bounds(v.Now)
	from, to := around(sel.MinT, sel.MaxT, t.Holders)
	req.MinT, req.MaxT = max(lo, from), min(hi, to)
	client, method := v.ClientOf(t.Config, p), p.Method
	list, err := r.Fetch(ctx, p, client, method, rules, req)
	refusesParts := p.Dialect.RefusesPartialReads && !v.Strict(t.Config) && transport.ClassOf(err) == transport.ClassServer
	if p.Method != transport.QueryAPI && (refusesParts || transport.CannotCut(err)) {
		method = transport.QueryAPI
		list, err = r.Fetch(ctx, p, client, method, rules, req)
	}
	if err != nil {
		return source{}, err
	}
	v.Metrics.CountSamples(r, method, list)
	if list, err = r.Arrange(list, resolved.Check, rules, req); err != nil {
		return source{}, err
	}
	v.notePresumed(t, r, rules, remarks)
	if !t.Config.TimeRange.IsZero() && t.Holders > 1 {
		for i := range list { // the end of the time_range is not a gap of the replica
			list[i].Run = dedup.Bounded{Run: list[i].Run, From: lo, To: hi}
		}
	}
	if doubt := replica.ClockDoubt(client); doubt != "" {
		remarks.Warn(completeness.Describe(t.Config.Name, r.URL(), doubt))
	}
	v.noteRenamed(t, rules, remarks)
	return source{provenance: provenance{group: t, profile: p}, series: list}, nil
}

// Charging returns a function that charges the query's budget for bytes of the response of a
// replica of a group, and one to call when that is read.
func (v *View) Charging(g Group, r *replica.Replica, by transport.Method) (charge func(bytes int) error, end func()) {
	fetched, answer := r.Metrics.FetchedBytes(r, by), v.Answer(g, r)
	return func(bytes int) error {
		fetched.Add(float64(bytes))
		g.Audits.Loaded(bytes)
		return answer.Charge(bytes)
	}, answer.End
}

// Answer begins the answer of a replica of a group in the query's budget.
func (v *View) Answer(g Group, r *replica.Replica) *fanout.Answer {
	name := r.URL()
	if g.Restricted() {
		name = v.CompletenessOf(g).String()
	}
	return v.Budget.Answer(r.URL(), name, len(v.Groups[g.Rank].Replicas))
}

// ClientOf returns the client of a replica's profile, set to the query's partial_response and to
// the headers of oneprom's client.
func (v *View) ClientOf(g *config.Group, p *replica.Profile) *transport.Client {
	return p.Client.AllowPartial(!v.Strict(g)).ForClient(v.Request.Header)
}

// Regardless reports whether the breakers of all replicas of all groups are open. Replicas are
// then asked regardless of their breakers, as there is nothing to lose.
func (v *View) Regardless() bool {
	return len(v.Groups) > 0 && !slices.ContainsFunc(v.Groups, Group.usable)
}

// usable reports whether the group has a replica whose breaker lets requests pass.
func (g Group) usable() bool {
	return slices.ContainsFunc(g.Replicas, func(r *replica.Replica) bool { return r.Health.Usable() })
}

// Undiscovered reports whether the replicas are not known, because this is an offline view and
// only service discovery finds them.
func (g Group) Undiscovered() bool {
	return g.Offline && targets.Discovers(g.Config)
}

// FetchedBytes returns how many bytes of responses were charged to the query.
func (v *View) FetchedBytes() int64 { return v.Budget.Used() }

// Evidence returns what the scrapes of a group show over [from, to] (ms) for a selector.
func (v *View) Evidence(ctx context.Context, g Group, ms []*labels.Matcher, from, to int64) (evidence.Shown, error) {
	ms = spelledInAnyWay(ctx, g, slices.Concat(g.With(ms), g.Config.Only()))
	return g.Evidence.Show(ctx, evidence.Group{Config: cmp.Or(g.Whole, g.Config), Replicas: g.Replicas}, ms, from, to, v.Now.UnixMilli(), v.Budget.Limit)
}

// spelledInAnyWay leaves out matchers on numbers in labels if replicas spell them in different ways:
// evidence is about the targets of all the other series, too.
func spelledInAnyWay(ctx context.Context, g Group, ms []*labels.Matcher) []*labels.Matcher {
	onNumber := func(m *labels.Matcher) bool { return slices.Contains(labelmap.NumberLabels, m.Name) }
	if !slices.ContainsFunc(ms, onNumber) {
		return ms
	}
	for _, r := range g.Replicas {
		p, err := r.Ready(ctx)
		if err == nil && len(p.Spellings.Resolve(labelmap.Resolved{Send: ms}).Check) > 0 {
			return slices.DeleteFunc(slices.Clone(ms), onNumber)
		}
	}
	return ms
}
