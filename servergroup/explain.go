package servergroup

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/routing"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// This file tells how groups are asked, for those who want it explained. It asks
// nobody.

// Offline returns the groups of a configuration as a view for explanations: they
// have the replicas that the configuration names, of which nothing is known. It
// must not be asked for samples.
func Offline(cfgs []config.Group, partial config.PartialResponse, now time.Time) *View {
	v := &View{now: now, budget: &Budget{}, request: &Request{}, partial: partial}
	for i := range cfgs {
		shards, _ := targets.Shards(&cfgs[i], targets.Static(&cfgs[i]))
		if len(shards) == 0 || len(cfgs[i].GroupBy) > 0 && targets.Discovers(&cfgs[i]) {
			shards = append(shards, targets.Shard{}) // stands for those that only discovery knows
		}
		for _, s := range shards {
			cfg := targets.GroupOf(&cfgs[i], s.Values)
			g := groupView{cfg: &cfg, rank: len(v.groups)}
			for _, e := range s.Endpoints {
				g.replicas = append(g.replicas, &replica{group: &cfg, client: &transport.Client{Base: e.URL}})
			}
			v.groups = append(v.groups, g)
		}
	}
	return v
}

// undiscovered tells whether the replicas are not known: this is an offline view, and
// service discovery tells them.
func (g groupView) undiscovered() bool {
	return g.found == nil && targets.Discovers(g.cfg)
}

// FetchedBytes is how many bytes of backends' answers were charged to the query of
// the view.
func (v *View) FetchedBytes() int64 { return v.budget.Used() }

// Routes says of each group, in the order of the configuration, whether it is asked
// for samples of the selection, and if not, why.
func (v *View) Routes(sel Selection) []routing.Route {
	asked := map[*config.Group]bool{}
	for _, t := range v.routeMerge(sel.Matchers, sel.MinT, sel.MaxT) {
		asked[t.cfg] = true
	}
	out := make([]routing.Route, len(v.groups))
	for i, g := range v.groups {
		out[i] = routing.To(g.cfg, g.with(sel.Matchers), sel.MinT, sel.MaxT, v.now)
		if asked[g.cfg] {
			out[i].Skipped = ""
		}
	}
	return out
}

// Member is a group of a partition.
type Member struct {
	Name string
	// Replicas is how many there are, -1 if only service discovery knows.
	Replicas int
}

// Members are the groups of the partition, in the order of the configuration.
func (p *Partition) Members() []Member {
	out := make([]Member, len(p.members))
	for i, g := range p.members {
		out[i] = Member{Name: g.cfg.Name, Replicas: len(g.replicas)}
		if g.undiscovered() {
			out[i].Replicas = -1
		}
	}
	return out
}

// Unconcerned says why the partition cannot hold series of a selection; "" if it
// may.
func (p *Partition) Unconcerned(sel Selection) (why string) {
	for _, g := range p.members {
		if why = g.resolve(sel.Matchers).None; why == "" {
			return ""
		}
	}
	return why
}

// Outlook is what can be said of how a partition answers a part before anyone is
// asked.
type Outlook struct {
	// Remote tells that a replica may evaluate it.
	Remote bool
	// Why says which replica that is and on what it depends, or why it is evaluated
	// here.
	Why string
}

// evaluatesAsHere is what only probing a replica shows.
const evaluatesAsHere = ", if probing shows that it evaluates as here"

// Outlook returns what Choose and Local will do as far as the configuration decides
// it.
func (p *Partition) Outlook(n Need) Outlook {
	g := p.members[0]
	off := g.cfg.Pushdown == config.PushdownOff || p.view.request.Pushdown == config.PushdownOff
	switch {
	case len(p.members) == 1 && p.holds(n) && g.undiscovered() && g.cfg.Replicas == config.MergeAll:
		return p.remote(off, "the only replica, if service discovery finds just one"+evaluatesAsHere)
	case len(p.members) == 1 && p.holds(n) && g.undiscovered():
		return p.remote(off, "at each step the first discovered replica that is whole"+evaluatesAsHere)
	case p.compares(n):
		return p.remote(off, fmt.Sprintf("at each step the first of %d replicas that is whole%s", len(g.replicas), evaluatesAsHere))
	}
	pieces, err := p.Choose(context.Background(), n) // which asks nobody where there is nothing to compare
	switch {
	case err != nil:
		return Outlook{Why: err.Error()}
	case pieces[0].alone == nil:
		return Outlook{Why: pieces[0].Why}
	}
	return p.remote(off, pieces[0].Why+evaluatesAsHere)
}

func (p *Partition) remote(off bool, why string) Outlook {
	if off {
		return Outlook{Why: "pushdown: off"}
	}
	return Outlook{Remote: true, Why: why}
}

// compares tells whether Choose compares what replicas have missed.
func (p *Partition) compares(n Need) bool {
	g := p.members[0]
	return len(p.members) == 1 && len(g.replicas) > 1 && g.cfg.Replicas != config.MergeAll && p.holds(n)
}

// holds tells whether the time_range of the first group holds all that is needed.
func (p *Partition) holds(n Need) bool {
	lo, hi := p.members[0].cfg.TimeRange.Bounds(p.view.now)
	for _, r := range n.Reaches {
		if from, to := r.window(n.Steps.Start, n.Steps.End); from < lo || to > hi {
			return false
		}
	}
	return true
}

// Matchers returns what a selector is for a replica of the partition, which is one
// group. See Piece.Matchers.
func (p *Partition) Matchers(ms []*labels.Matcher) (send []*labels.Matcher, ok bool) {
	return (&Piece{partition: p}).Matchers(ms)
}
