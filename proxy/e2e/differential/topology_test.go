package differential

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// arrange makes the groups: shards, each of them once or in two tiers in time.
func (w *world) arrange(r *rand.Rand) {
	shards := 1 + min(r.IntN(4), r.IntN(4))
	tiers := 1
	if shards <= 2 && r.IntN(2) == 0 {
		tiers = 2
	}
	told := shards > 1 && r.IntN(2) == 0 || shards == 1 && r.IntN(4) == 0
	w.steady, w.sparse = r.IntN(3) == 0, r.IntN(3) == 0
	w.early = r.IntN(2) == 0
	kinds := kindsOf(r)
	if w.changing { // mostly what a replica may answer alone
		shards, tiers = 1+max(0, r.IntN(4)-2), 1+max(0, r.IntN(5)-3)
		told = told || r.IntN(2) == 0
		w.early = r.IntN(8) > 0
		if r.IntN(8) > 0 {
			kinds = slices.DeleteFunc(kinds, kind.queryAPI)
		}
		if len(kinds) == 0 {
			kinds = []kind{{read: backendtest.Streamed}}
		}
	}
	for shard := range shards {
		g := group{shard: shard, first: w.start, last: w.end}
		if told {
			g.inject = string(rune('a' + shard))
		}
		if tiers == 1 {
			w.addGroup(r, g, kinds)
			continue
		}
		recent, archive := w.seam(r, g, kinds)
		if w.start%3 == 0 && !w.changing { // no time_range says who has what
			recent.from, archive.to, archive.last, archive.copyOf = 0, 0, w.end, "?"
			recent.copied = true
		}
		if r.IntN(2) == 0 {
			recent, archive = archive, recent
		}
		w.addGroup(r, recent, kinds)
		w.addGroup(r, archive, kinds)
		pair := w.groups[len(w.groups)-2:]
		for i := range pair {
			if pair[i].copyOf != "" {
				pair[i].copyOf = pair[1-i].name
			}
		}
	}
	w.blocks = w.blockEnds(r)
	w.st = !slices.ContainsFunc(w.servers, func(s server) bool { return !s.kind.startTimestamps() }) && r.IntN(3) == 0 && !w.changing
}

// blockEnds are where the blocks of the servers' storage end: at multiples of their length, as in a
// Prometheus, where no chunk goes beyond that. What is later is in their heads.
func (w *world) blockEnds(r *rand.Rand) (ends []int64) {
	if !w.changing {
		return nil
	}
	w.blockLength = 25*minute + r.Int64N(40*minute)
	for t := w.start - w.start%w.blockLength + w.blockLength; t < w.end-10*minute && len(ends) < 3; t += w.blockLength {
		ends = append(ends, t)
	}
	w.unruled = r.IntN(3) == 0
	w.later = []int64{minute, 20 * minute, 3 * 60 * minute}[r.IntN(3)]
	return ends
}

// seam cuts a group in two tiers.
func (w *world) seam(r *rand.Rand, g group, kinds []kind) (recent, archive group) {
	recent, archive = g, g
	recent.from = w.start + 10*minute + r.Int64N(w.end-w.start-20*minute)
	archive.to = recent.from + seamOverlap(r, kinds)
	recent.first, archive.last = recent.from, archive.to
	if r.IntN(2) == 0 { // they hold more than they are asked for
		recent.first = max(w.start, recent.from-r.Int64N(30*minute))
		archive.last = min(w.end, archive.to+r.Int64N(30*minute))
	}
	return recent, archive
}

// seamOverlap is for how long (ms) both tiers are asked; -1: for no time at all,
// but without a hole between them. The query API shows the end of a series only if
// it shows the sample before it.
func seamOverlap(r *rand.Rand, kinds []kind) int64 {
	switch {
	case slices.ContainsFunc(kinds, kind.queryAPI):
		return 3*minute + r.Int64N(30*minute)
	case r.IntN(2) == 0:
		return -1
	}
	return r.Int64N(30 * minute)
}

// addGroup gives a group its name, copies and servers.
func (w *world) addGroup(r *rand.Rand, g group, kinds []kind) {
	g.name = string(rune('a' + len(w.groups)))
	n := 1 + r.IntN(3)
	stored := n > 1 && r.IntN(6) == 0 // one store keeps what all replicas have written
	if w.changing {
		n, stored = 2+r.IntN(2), false
	}
	labelled := stored || r.IntN(4) == 0
	shifted := w.steady && r.IntN(3) > 0
	if g.copied || g.copyOf != "" {
		shifted = false // which samples are shown depends on who is asked
	}
	if seam := g.from != 0 || g.to != 0; seam && slices.ContainsFunc(kinds, kind.queryAPI) {
		shifted = false // an end at a seam that cannot be seen: see docs/fidelity.md
	}
	for i := range n {
		if i == 0 || !stored {
			w.servers = append(w.servers, server{kind: kinds[r.IntN(len(kinds))]})
		}
		h := holder{server: len(w.servers) - 1}
		if labelled {
			h.replica = string(rune('0' + i))
		}
		if i > 0 && shifted {
			h.shift = 0.01 + 0.98*r.Float64()
		}
		g.copies = append(g.copies, len(w.copies))
		w.copies = append(w.copies, h)
	}
	w.groups = append(w.groups, g)
}

// shards is the number of shards that the groups make.
func (w *world) shards() (n int) {
	for _, g := range w.groups {
		n = max(n, g.shard+1)
	}
	return n
}

// injected is the label value that the groups of a shard inject.
func (w *world) injected(shard int) string {
	for _, g := range w.groups {
		if g.shard == shard {
			return g.inject
		}
	}
	return ""
}

// distribute decides which copies hold which samples.
func (w *world) distribute(r *rand.Rand) {
	for i := range w.groups {
		g := &w.groups[i]
		f := w.faults(r, g)
		for j := range w.series {
			s := &w.series[j]
			for k, p := range s.samples {
				if p.shadow != 0 || !g.has(s, p.t) {
					continue
				}
				for n, c := range g.copies {
					if !f.holds(n, s.target, p.t+s.lag) {
						continue
					}
					if w.copies[c].shift == 0 {
						s.samples[k].held |= 1 << c
						continue
					}
					// Odd, as equal milliseconds may be taken for a shared clock.
					if shift := int64(w.copies[c].shift*float64(s.interval)) | 1; g.has(s, p.t+shift) {
						s.samples = append(s.samples, p.shadowOf(s, shift, 1<<c))
					}
				}
			}
		}
	}
	for _, s := range w.series {
		slices.SortFunc(s.samples, func(a, b sample) int { return cmp.Compare(a.t, b.t) })
	}
}

// shadowOf is what a replica with another clock has instead of p: a value that
// strikes the eye, but for `up`, which tells of the scrape.
func (p *sample) shadowOf(s *series, shift int64, held uint16) sample {
	c := *p
	c.t, c.held, c.shadow = p.t+shift, held, shift
	if !c.stale() && c.h == nil && c.fh == nil && s.labels.Get(labels.MetricName) != "up" {
		c.f += 1e6
	}
	return c
}

// faults are why copies of a group lack samples. At each time one of the copies,
// the anchor, has everything, and for four minutes more on both sides of its
// time: so every sample is held, stale markers are held by a copy that has the
// sample before too, and wherever the merge compares the clocks of copies (it
// looks at the three slices of 90 s around) there are timestamps that they share.
type faults struct {
	anchors []span // in turn, one after the other
	anchor  []int
	away    [][]span         // of copies
	lost    []map[int][]span // of copies: of targets
	misses  []uint64         // of copies: of 1000 scrapes
	salt    uint64
}

const anchorOverlap = 4 * minute

func (w *world) faults(r *rand.Rand, g *group) *faults {
	f := &faults{salt: r.Uint64()}
	n := len(g.copies)
	keeper := w.changing && r.IntN(4) > 0
	for at := w.start; at < w.end; {
		to := at + 6*minute + r.Int64N(40*minute)
		if keeper {
			to = w.end
		}
		f.anchors = append(f.anchors, span{at - anchorOverlap, to + anchorOverlap})
		first := r.IntN(n)
		if w.copies[g.copies[n-1]].shift != 0 {
			first = 0
		}
		f.anchor = append(f.anchor, first)
		g.anchors = append(g.anchors, anchor{f.anchors[len(f.anchors)-1], g.copies[first]})
		at = to
	}
	for range n {
		// Where samples are much earlier than their scrapes, a hole in the scrapes does not show where
		// the hole in the samples is. The counts of series do, if it is not shorter than shortest.
		if w.changing && (w.lagged || r.IntN(3) > 0) { // it was never away
			var away []span
			if w.lagged && r.IntN(3) == 0 {
				from := w.start + r.Int64N(w.end-w.start)
				away = []span{{from, from + shortest + r.Int64N(60*minute)}}
			}
			f.away, f.lost, f.misses = append(f.away, away), append(f.lost, map[int][]span{}), append(f.misses, 0)
			continue
		}
		f.away = append(f.away, w.spans(r, r.IntN(4), 60*minute))
		lost := map[int][]span{}
		for range r.IntN(5) {
			target := r.IntN(6)
			lost[target] = append(lost[target], w.spans(r, 1, 30*minute)...)
		}
		f.lost = append(f.lost, lost)
		f.misses = append(f.misses, []uint64{0, 10, 50, 150, 200}[r.IntN(5)])
	}
	for i := range f.lost {
		if w.changing && r.IntN(2) == 0 { // it had no such rule then
			f.lost[i][ruled] = w.spans(r, 1+r.IntN(3), 120*minute)
		}
	}
	return f
}

// holds reports whether copy n of the group has the scrape of a target at t.
func (f *faults) holds(n, target int, t int64) bool {
	for i, s := range f.anchors {
		if f.anchor[i] == n && t >= s.from && t < s.to {
			return true
		}
	}
	return !within(f.away[n], t) && !within(f.lost[n][target], t) &&
		mix(f.salt+mix(uint64(t))+mix(uint64(target)+mix(uint64(n))))%1000 >= f.misses[n]
}

// mix spreads the bits of x (the last step of splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
