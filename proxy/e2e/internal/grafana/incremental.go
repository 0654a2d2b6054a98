package grafana

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// overlap is how much of what it has a refresh asks for again.
const overlap = 10 * time.Minute

// Incremental is a panel that on a refresh asks only for what is new.
type Incremental struct {
	DataSource *DataSource
	Expr       string
	Step       time.Duration

	end    time.Time // of the last answer, aligned; zero before the first
	frames map[string]Frame
}

// Refresh shows [from, to] and returns the merged frames, sorted by labels. The
// old points inside the overlap are replaced by the new answer; what is older is
// kept, so answers that do not repeat themselves show as a seam.
func (p *Incremental) Refresh(ctx context.Context, from, to time.Time) ([]Frame, error) {
	ask := from
	if since := align(p.end.Add(-overlap), p.Step); !p.end.IsZero() && since.After(from) {
		ask = since
	}
	r, err := p.DataSource.Range(ctx, p.Expr, ask, to, p.Step)
	if err != nil {
		return nil, err
	}
	p.keep(align(from, p.Step).UnixMilli(), align(ask, p.Step).UnixMilli())
	for _, f := range r.Frames {
		key := fmt.Sprint(f.Labels)
		old := p.frames[key]
		p.frames[key] = Frame{Labels: f.Labels, Times: append(old.Times, f.Times...), Values: append(old.Values, f.Values...)}
	}
	p.end = align(to, p.Step)
	return p.sorted(), nil
}

// keep cuts the frames down to the points in [from, until), in ms.
func (p *Incremental) keep(from, until int64) {
	kept := map[string]Frame{}
	for key, f := range p.frames {
		lo, _ := slices.BinarySearch(f.Times, from)
		hi, _ := slices.BinarySearch(f.Times, until)
		if lo < hi {
			kept[key] = Frame{Labels: f.Labels, Times: slices.Clone(f.Times[lo:hi]), Values: slices.Clone(f.Values[lo:hi])}
		}
	}
	p.frames = kept
}

func (p *Incremental) sorted() []Frame {
	keys := make([]string, 0, len(p.frames))
	for key := range p.frames {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	frames := make([]Frame, 0, len(keys))
	for _, key := range keys {
		frames = append(frames, p.frames[key])
	}
	return frames
}
