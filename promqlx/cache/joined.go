package cache

import (
	"bytes"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// joined puts an answer together of blocks and of evaluated parts, which are added in the order of time.
type joined struct {
	series promql.Matrix
	index  map[uint64][]int // of series, by the hash of their labels

	// The block that was added last: most blocks have the series of the one before, in the same order.
	symbols []byte
	before  []labelled
}

// labelled is the encoded labels of a series, and its place in joined.series.
type labelled struct {
	labels []byte
	place  int
}

// newJoined returns an empty answer.
func newJoined() *joined { return &joined{index: map[uint64][]int{}} }

// place returns the place of the series with some labels, which it adds if there is none.
func (j *joined) place(ls labels.Labels) int {
	h := ls.Hash()
	for _, i := range j.index[h] {
		if labels.Equal(j.series[i].Metric, ls) {
			return i
		}
	}
	j.series = append(j.series, promql.Series{Metric: ls})
	j.index[h] = append(j.index[h], len(j.series)-1)
	return len(j.series) - 1
}

// addBlock adds the samples of a block from one time to another one (ms, inclusive).
func (j *joined) addBlock(b *Block, from, to int64) error {
	r := reader{rest: b.series}
	symbols := make([]string, 0, 64)
	for n := r.number(); n > 0 && !r.failed; n-- {
		symbols = append(symbols, string(r.bytes()))
	}
	table := b.series[:len(b.series)-len(r.rest)]
	same := bytes.Equal(table, j.symbols)
	var list []labelled
	builder := labels.NewScratchBuilder(16)
	for n := r.number(); n > 0 && !r.failed; n-- {
		begin := r.rest
		pairs := r.number()
		if pairs > uint64(len(r.rest)) {
			return errNoBlock
		}
		names := r
		for range 2 * pairs {
			r.number()
		}
		if r.failed {
			break
		}
		own := labelled{labels: begin[:len(begin)-len(r.rest)]}
		if i := len(list); same && i < len(j.before) && bytes.Equal(own.labels, j.before[i].labels) {
			own.place = j.before[i].place
		} else {
			builder.Reset()
			for range pairs {
				name, value := names.number(), names.number()
				if name >= uint64(len(symbols)) || value >= uint64(len(symbols)) {
					return errNoBlock
				}
				builder.Add(symbols[name], symbols[value])
			}
			builder.Sort()
			own.place = j.place(builder.Labels())
		}
		list = append(list, own)
		one := &j.series[own.place]
		one.Floats = r.floats(one.Floats, b.From, b.step, from, to)
		for m := r.number(); m > 0 && !r.failed; m-- {
			if err := j.addHistogram(own.place, r.bytes(), from, to); err != nil {
				return err
			}
		}
	}
	j.symbols, j.before = table, list
	if r.failed {
		return errNoBlock
	}
	return nil
}

// addHistogram adds the histogram of a chunk if its time is from one time to another one (ms, inclusive).
func (j *joined) addHistogram(place int, data []byte, from, to int64) (err error) {
	defer func() {
		if recover() != nil { // upstream's iterators may panic over damaged chunks
			err = errNoBlock
		}
	}()
	if len(data) < 3 {
		return errNoBlock
	}
	chunk, err := chunkenc.FromData(chunkenc.EncFloatHistogram, data)
	if err != nil {
		return errNoBlock
	}
	it := chunk.Iterator(nil)
	if it.Next() != chunkenc.ValFloatHistogram {
		return errNoBlock
	}
	if t, h := it.AtFloatHistogram(nil); t >= from && t <= to {
		s := &j.series[place]
		s.Histograms = append(s.Histograms, promql.HPoint{T: t, H: h})
	}
	return nil
}

// addMatrix adds the samples of an evaluated answer from one time to another one (ms, inclusive). It copies
// them, as their memory belongs to the engine.
func (j *joined) addMatrix(m promql.Matrix, from, to int64) {
	for _, s := range m {
		own := &j.series[j.place(s.Metric)]
		for _, p := range s.Floats {
			if p.T >= from && p.T <= to {
				own.Floats = append(own.Floats, p)
			}
		}
		for _, p := range s.Histograms {
			if p.T >= from && p.T <= to {
				own.Histograms = append(own.Histograms, promql.HPoint{T: p.T, H: p.H.Copy()})
			}
		}
	}
}

// result returns the answer: the series that have samples, sorted by labels.
func (j *joined) result() promql.Matrix {
	out := slices.DeleteFunc(slices.Clone(j.series), func(s promql.Series) bool { return len(s.Floats)+len(s.Histograms) == 0 })
	slices.SortFunc(out, func(a, b promql.Series) int { return labels.Compare(a.Metric, b.Metric) })
	return out
}
