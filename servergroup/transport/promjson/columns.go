package promjson

import (
	"github.com/prometheus/prometheus/model/histogram"

	"github.com/oneprom/oneprom/dedup"
)

// columns gathers the samples of one series, whose number is not known before its end. Floats
// and histograms come in separate lists, each in time order.
type columns struct {
	t  []int64 // ms
	f  []float64
	ht []int64 // ms
	h  []*histogram.FloatHistogram
}

func (c *columns) reset() { c.t, c.f, c.ht, c.h = c.t[:0], c.f[:0], c.ht[:0], c.h[:0] }

// release removes all samples, and large buffers.
func (c *columns) release() {
	clear(c.h[:cap(c.h)])
	if cap(c.t)+cap(c.ht) > keptScratch {
		*c = columns{}
	}
	c.reset()
}

// add appends a float and reports whether its time is after the previous one; if not, it does
// nothing.
func (c *columns) add(t int64, f float64) bool {
	if n := len(c.t); n > 0 && t <= c.t[n-1] {
		return false
	}
	c.t = append(c.t, t)
	c.f = append(c.f, f)
	return true
}

// addHistogram is add for a histogram.
func (c *columns) addHistogram(t int64, h *histogram.FloatHistogram) bool {
	if n := len(c.ht); n > 0 && t <= c.ht[n-1] {
		return false
	}
	c.ht = append(c.ht, t)
	c.h = append(c.h, h)
	return true
}

// take returns the samples in columns of exactly their size. If a float and a histogram have
// the same time, ok is false and t is that time (ms).
func (c *columns) take(from *slab) (s dedup.Samples, t int64, ok bool) {
	n := len(c.t) + len(c.ht)
	s.T, s.F = from.cut(n)
	if len(c.ht) == 0 {
		copy(s.T, c.t)
		copy(s.F, c.f)
		return s, 0, true
	}
	s.FH = make([]*histogram.FloatHistogram, n)
	var i, j int
	for k := range n {
		switch {
		case j == len(c.ht) || i < len(c.t) && c.t[i] < c.ht[j]:
			s.T[k], s.F[k] = c.t[i], c.f[i]
			i++
		case i < len(c.t) && c.t[i] == c.ht[j]:
			return s, c.t[i], false
		default:
			s.T[k], s.FH[k] = c.ht[j], c.h[j]
			j++
		}
	}
	return s, 0, true
}

const (
	slabSize = 512 // samples; the first slabs of a response are shorter
	slabMost = 32  // the longest columns that are cut from a slab, in samples
)

// slab is memory for short columns, so that the samples of a vector are not allocated one by
// one. A column that is cut from a slab keeps all of the slab in memory.
type slab struct {
	t    []int64
	f    []float64
	last int // how long it was in the beginning
}

// cut returns zeroed columns of n samples, without capacity for more.
func (s *slab) cut(n int) (t []int64, f []float64) {
	if n == 0 {
		return nil, nil
	}
	if n > slabMost {
		return make([]int64, n), make([]float64, n)
	}
	if n > len(s.t) {
		s.last = min(max(2*s.last, slabMost), slabSize)
		s.t, s.f = make([]int64, s.last), make([]float64, s.last)
	}
	t, f = s.t[:n:n], s.f[:n:n]
	s.t, s.f = s.t[n:], s.f[n:]
	return t, f
}
