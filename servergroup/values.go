package servergroup

import (
	"context"
	"math"
	"time"

	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

const (
	// valuesInterval is how often the values of intrinsic labels are looked up where queries want
	// them, and valuesWanted how long after the last such query.
	valuesInterval = 30 * time.Second
	valuesWanted   = 10 * time.Minute
	// mostValues is the most values of a label, and valuesBytes what may be made of a response.
	mostValues  = 10_000
	valuesBytes = 8 << 20
)

// keepValues looks the values of intrinsic labels up, time and again. No query waits for that.
func (s *Set) keepValues(ctx context.Context) {
	tick := time.NewTicker(valuesInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.lookUpValues(ctx)
		}
	}
}

// lookUpValues looks the values of intrinsic labels up that queries have wanted recently.
func (s *Set) lookUpValues(ctx context.Context) {
	var lookups []func()
	for _, g := range s.current.Load().groups() {
		switch {
		case len(g.cfg.IntrinsicLabels) == 0:
		case g.cfg.Forwards() || s.opts.Now().Sub(g.intrinsic.Wanted()) > valuesWanted:
			g.intrinsic.Know(nil)
		default:
			lookups = append(lookups, func() { g.intrinsic.Know(s.valuesOf(ctx, g)) })
		}
	}
	s.inBackground("looking up the values of intrinsic labels", lookups)
}

// valuesOf asks all replicas of a group for the values of its intrinsic labels. It returns nil if one
// of them does not answer, or may not tell all: only a Prometheus is known to do that.
func (s *Set) valuesOf(ctx context.Context, g *group) *view.Values {
	out := &view.Values{At: s.opts.Now(), Replicas: *g.replicas.Load(), ByLabel: map[string][]string{}}
	for _, r := range out.Replicas {
		for _, name := range g.cfg.IntrinsicLabels {
			l := transport.Lookup{MinT: math.MinInt64, MaxT: math.MaxInt64, Charge: (&fanout.Budget{Limit: valuesBytes}).Charge}
			var values, warnings []string
			complete := false
			err := lookUp(ctx, r, func(ctx context.Context, p *replica.Profile) (err error) {
				complete = p.Kind == transport.Prometheus && p.TakesTurns == "" && len(p.Doubts) == 0
				values, warnings, err = p.Client.LabelValues(ctx, name, l)
				return err
			})
			if err != nil || !complete || len(warnings) > 0 || len(out.ByLabel[name])+len(values) > mostValues {
				return nil
			}
			out.ByLabel[name] = append(out.ByLabel[name], values...)
		}
	}
	return out
}
