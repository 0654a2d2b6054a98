package world

import (
	"context"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
)

// Slot is the grid of the simulation in ms, and the shortest scrape interval: every interval is a multiple of it.
const Slot = 15 * second

// scraper is the scrape loop of one server for one target, as Prometheus has it: it remembers which series the last scrape
// showed, so that it can end those that vanish.
type scraper struct {
	server *Server
	region *Region
	target *Target
	meta   []*tracked // up and its companions
	own    []*tracked
}

// tracked is a series as one server knows it.
type tracked struct {
	labels labels.Labels
	ref    storage.SeriesRef
	source *series // nil for up and its companions
	alive  bool    // was in the last scrape
	lost   bool    // its last sample is of a kind that the server cannot store: there is nothing that could end
}

func newScraper(s *Server, r *Region, t *Target) *scraper {
	full := func(l labels.Labels) labels.Labels {
		if !s.RegionLabel {
			return l
		}
		return labels.NewBuilder(l).Set("region", r.Name).Labels()
	}
	sc := &scraper{server: s, region: r, target: t}
	if !t.Rules {
		for _, name := range []string{"up", "scrape_samples_scraped", "scrape_duration_seconds"} {
			l := labels.FromStrings(labels.MetricName, name, "job", t.Job, "instance", t.Instance)
			sc.meta = append(sc.meta, &tracked{labels: full(l)})
		}
	}
	for i := range t.series {
		sc.own = append(sc.own, &tracked{labels: full(t.series[i].labels), source: &t.series[i]})
	}
	return sc
}

// run scrapes the target if that is due in the slot, and if the server is there to do it.
func (sc *scraper) run(app storage.AppenderV2, slotStart int64) error {
	t := sc.target
	offset := slotStart - Begin - t.Phase/Slot*Slot
	if offset < 0 || offset%t.Interval != 0 {
		return nil
	}
	due := slotStart + t.Phase%Slot
	f := sc.server.Faults
	if f.down(due) {
		sc.forget()
		return nil
	}
	if f.away(t.key(), due) {
		return nil
	}
	a := appending{app, sc.server, sc.server.Clock(t.key(), due)}
	switch {
	case !t.Life.Has(due) || f.forgot(t.key(), due):
		return a.end(slices.Concat(sc.meta, sc.own))
	case anyHas(t.Down, due):
		return sc.failed(a)
	default:
		return sc.scraped(a)
	}
}

// forget is what a crash does: no stale markers for what vanishes while the server is away.
func (sc *scraper) forget() {
	for _, s := range slices.Concat(sc.meta, sc.own) {
		s.alive = false
	}
}

func (sc *scraper) failed(a appending) error {
	if err := a.end(sc.own); err != nil {
		return err
	}
	return sc.report(a, 0, 0)
}

func (sc *scraper) scraped(a appending) error {
	n, start := 0, int64(0)
	if sc.region.StartTimes {
		start = sc.target.startedAt(a.t)
	}
	for _, s := range sc.own {
		v, shown := s.source.at(a.t)
		if !shown {
			if err := a.end([]*tracked{s}); err != nil {
				return err
			}
			continue
		}
		n++
		if sc.region.Decimals {
			v.f = decimal(v.f)
		}
		if err := a.append(s, start, v); err != nil {
			return err
		}
	}
	return sc.report(a, 1, n)
}

// report writes up and its companions.
func (sc *scraper) report(a appending, up float64, samples int) error {
	duration := math.Round(1e9*(0.01+0.02*noise(seed(sc.target.Instance), a.t/gaugeStep))) / 1e9
	for i, f := range []float64{up, float64(samples), duration} {
		if i >= len(sc.meta) {
			break
		}
		if err := a.append(sc.meta[i], 0, sample{f: f}); err != nil {
			return err
		}
	}
	return nil
}

// appending writes the samples of one scrape, all at time t in unix ms.
type appending struct {
	app    storage.AppenderV2
	server *Server
	t      int64
}

func (a appending) append(s *tracked, start int64, v sample) error {
	s.alive = true
	s.lost = !a.server.Kind.holds(v)
	if s.lost || !a.server.Keep.Has(a.t) {
		return nil
	}
	ref, err := a.app.Append(s.ref, s.labels, start, a.t, v.f, v.h, v.fh, storage.AppendV2Options{})
	s.ref = ref
	return err
}

// end writes stale markers for those of the series that the last scrape showed.
func (a appending) end(all []*tracked) error {
	for _, s := range all {
		if !s.alive {
			continue
		}
		s.alive = false
		if s.lost || s.source != nil && s.source.noMarker || !a.server.Keep.Has(a.t) {
			continue
		}
		if _, err := a.app.Append(s.ref, s.labels, 0, a.t, math.Float64frombits(value.StaleNaN), nil, nil, storage.AppendV2Options{}); err != nil {
			return err
		}
	}
	return nil
}

// write runs all scrape loops of the server over the window and hands each slot's appender over for commit.
func (s *Server) write(ctx context.Context, window Span, begin func() storage.AppenderV2, done func(slotStart int64) error) error {
	var loops []*scraper
	for _, r := range s.Regions {
		for _, t := range r.Targets {
			loops = append(loops, newScraper(s, r, t))
		}
	}
	slices.SortStableFunc(loops, func(a, b *scraper) int { return int(a.target.Phase%Slot - b.target.Phase%Slot) })
	for at := window.From; at < window.To; at += Slot {
		if err := ctx.Err(); err != nil {
			return err
		}
		app := begin()
		for _, l := range loops {
			if err := l.run(app, at); err != nil {
				return err
			}
		}
		if err := app.Commit(); err != nil {
			return err
		}
		if err := done(at); err != nil {
			return err
		}
	}
	return nil
}
