package evidence

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Counts do not show replicas that lack different series, but equally many. So where the series of a
// selector are few, the replicas tell which ones are there at each time, and what holds for counts
// holds for the count of each series, which is 0 or 1.

const (
	// maxPresent is how many series there may be, times the times at which they are looked at.
	maxPresent = 500_000
	// maxPresentBytes is the most bytes of one answer.
	maxPresentBytes = 4 << 20
	// keptSizes bounds what is kept of how many series selectors have (bytes).
	keptSizes = 1 << 20
)

// present are the series that a replica has, by the hash of their labels without the name, with the
// times at which they are there, a bit each.
type present map[uint64][]uint64

// compareSeries compares which series of a selector the replicas have at the times in [from, to) (ms),
// and adds the times, by replica, at which it lacks one to low. It reports false, and adds nothing, if
// that is not to be found out: the series are too many, or a replica does not tell. Replicas that
// failed before are not asked.
func (h *history) compareSeries(ctx context.Context, f *countFetch, send []*labels.Matcher, from, to int64, before map[int]error) (told bool, failed map[int]error, err error) {
	first, end := from-f.what.step, to+f.what.step
	few, err := h.few(ctx, f.what, send, first, end, before)
	if err != nil || !few {
		return false, nil, err
	}
	there := make([]present, len(h.group.Replicas))
	failed, err = h.ask(ctx, before, func(ctx context.Context, i int, r *replica.Replica) (err error) {
		there[i], err = h.replicaPresent(ctx, r, send, first, end, f.what)
		return err
	})
	if err != nil {
		return false, nil, err
	}
	for i, own := range there {
		if own == nil && failed[i] == nil {
			h.keepSize(f.what.selector, math.Inf(1))
			return false, nil, nil
		}
	}
	for r, lacks := range lackedBy(there) {
		for i := range (to - from) / f.what.step {
			if at := i + 1; lacks != nil && lacks[at/64]&(1<<(at%64)) != 0 {
				f.low[r] = append(f.low[r], from+i*f.what.step)
			}
		}
	}
	return true, failed, nil
}

// selectorSize is how many series a selector had when that was found out (ms).
type selectorSize struct {
	series float64
	at     int64
}

// few reports whether the series of a selector are few enough at the times in [from, to) (ms). If
// that is not known, they are counted at the last of these times. If there were many more before, the
// answer is cut off.
func (h *history) few(ctx context.Context, what countedSelector, send []*labels.Matcher, from, to int64, before map[int]error) (bool, error) {
	now := h.now()
	h.mtx.Lock()
	size, known := h.sizes.Get(what.selector)
	h.mtx.Unlock()
	if !known || now-size.at >= OldCountAge {
		counts := make([]float64, len(h.group.Replicas))
		failed, err := h.ask(ctx, before, func(ctx context.Context, i int, r *replica.Replica) error {
			list, err := replicaCounts(ctx, r, send, to-what.step, to, what)
			if len(list) > 0 {
				counts[i] = list[0]
			}
			return err
		})
		if err != nil || len(failed) > len(before) {
			return false, err
		}
		size.series = slices.Max(counts)
		h.keepSize(what.selector, size.series)
	}
	return size.series*float64(to-from)/float64(what.step) <= maxPresent, nil
}

// keepSize remembers how many series a selector has.
func (h *history) keepSize(selector string, series float64) {
	now := h.now()
	h.mtx.Lock()
	defer h.mtx.Unlock()
	h.sizes.Add(selector, selectorSize{series, now}, 64+len(selector))
}

// replicaPresent returns which series of a selector, whose matchers for replicas are send, a replica has
// at the multiples of the step in [from, to) (ms), which begins with one. The result is nil if it does
// not tell.
func (h *history) replicaPresent(ctx context.Context, r *replica.Replica, send []*labels.Matcher, from, to int64, what countedSelector) (present, error) {
	p, err := r.Ready(ctx)
	if err != nil || p.Kind != transport.Prometheus || p.Dialect.Fronted {
		return nil, err
	}
	rules, left := labelmap.NewRules(h.group.Config, nil), maxPresentBytes
	list, err := p.Client.AllowPartial(false).PresentSeries(ctx, labelmap.Selectable(send), transport.Steps{
		Start: from, End: to - what.step, Step: what.step, Lookback: what.lookback(),
	}, transport.Request{
		Labels: func(raw []labels.Label) (labels.Labels, string) {
			for i, l := range raw {
				if slices.Contains(labelmap.NumberLabels, l.Name) { // releases spell them differently
					raw[i].Value, _ = labelmap.Canonical(l.Value)
				}
			}
			return rules.Apply(raw)
		},
		Charge: func(bytes int) error {
			if left -= bytes; left < 0 {
				return errManyPresent
			}
			return nil
		},
	})
	switch {
	case errors.Is(err, errManyPresent) || err != nil && transport.ClassOf(err) == transport.ClassUser:
		return nil, nil
	case err != nil:
		return nil, err
	}
	out := make(present, len(list))
	for _, s := range list {
		key := s.Labels.Hash()
		if at := out[key]; at != nil {
			for i := range at {
				at[i] |= s.At[i]
			}
		} else {
			out[key] = s.At
		}
	}
	return out, nil
}

var errManyPresent = fmt.Errorf("series of more than %d bytes", maxPresentBytes)

// lackedBy returns the times, by replica, at which it lacks a series that a twin has; nil stands for
// none.
func lackedBy(there []present) [][]uint64 {
	out := make([][]uint64, len(there))
	for t, twins := range there {
		for key, twin := range twins {
			for r, own := range there {
				if r != t && own != nil && !slices.Equal(own[key], twin) {
					out[r] = addLow(out[r], own[key], twin)
				}
			}
		}
	}
	return out
}

// addLow adds the times to dst at which a series is low: it is not there then, nor at the times
// before and after, and a twin's is at all three of them. own is nil if it is never there.
func addLow(dst, own, twin []uint64) []uint64 {
	if dst == nil {
		dst = make([]uint64, len(twin))
	}
	for i := range twin {
		before, at, after := around(twin, i)
		low := before & at & after
		if own != nil {
			before, at, after = around(own, i)
			low &^= before | at | after
		}
		dst[i] |= low
	}
	return dst
}

// around returns an element of a list of bits, and what its bits have before and after them.
func around(list []uint64, i int) (before, at, after uint64) {
	before, at, after = list[i]<<1, list[i], list[i]>>1
	if i > 0 {
		before |= list[i-1] >> 63
	}
	if i+1 < len(list) {
		after |= list[i+1] << 63
	}
	return before, at, after
}
