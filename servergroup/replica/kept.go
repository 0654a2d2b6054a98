package replica

import "math"

// Kept is which samples a server keeps, by their time.
type Kept struct {
	// Since is the time (ms) from which on it keeps all that it has got, but for the holes, and will do
	// so until the next probe.
	Since int64
	// None is the time (ms) before which it has no samples.
	None int64
	// Holes are what its blocks leave out between them: it was away for hours, or has lost a block.
	Holes []Hole
}

// Hole is a span of time (ms, inclusive).
type Hole struct{ From, To int64 }

// Kept returns which samples the server keeps, as its last probe has shown; known is false if none has.
// current reports whether nothing has happened since that makes it doubtful.
func (r *Replica) Kept() (k Kept, known, current bool) {
	now := r.now().UnixMilli()
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if r.lastProfile == nil || r.lastProfile.TakesTurns != "" {
		return Kept{}, false, false
	}
	k, known = r.past.kept(now)
	return k, known, known && r.profile != nil && !r.suspect && r.Health.Usable()
}

// kept is Replica.Kept at a time (ms). Retention removes whole blocks, the oldest first: what the
// oldest one has may be gone at any moment. If there is one only, that is all that the server has.
func (p past) kept(now int64) (k Kept, ok bool) {
	switch {
	case len(p.blocks) > 0:
		k = Kept{Since: p.blocks[0].MinTime, None: p.blocks[0].MinTime}
		if len(p.blocks) > 1 {
			k.Since = p.blocks[0].MaxTime
		}
		end := p.blocks[0].MaxTime
		for _, b := range p.blocks[1:] {
			if b.MinTime > end {
				k.Holes = append(k.Holes, Hole{end, b.MinTime})
			}
			end = max(end, b.MaxTime)
		}
		return k, true
	case p.head != nil: // late samples may be older
		return Kept{Since: *p.head, None: math.MinInt64}, true
	case p.lowest != nil && *p.lowest < now: // no block is longer than a tenth of what is kept
		return Kept{Since: *p.lowest + (now-*p.lowest)/10, None: *p.lowest}, true
	}
	return Kept{}, false
}
