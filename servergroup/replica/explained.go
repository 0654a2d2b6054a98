package replica

import (
	"hash/maphash"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
)

// maxExplained bounds what is kept of a server's labels. Beyond it, all is forgotten.
const maxExplained = 1 << 14

// explained remembers which doubts about a server's external labels (labelmap.Doubts) its
// configuration has dispelled. Labels that series have themselves stay theirs whatever becomes of the
// external ones.
//
// A label that all series of a selector have themselves is remembered for that selector. For
// selectors that were never asked before, it is enough that the label, with the value, was explained
// for another one: most labels that are common to all series of a selector are so for many.
type explained struct {
	seed maphash.Seed

	mtx    sync.Mutex // guards hashes
	hashes map[uint64]struct{}
}

func newExplained() *explained {
	return &explained{seed: maphash.MakeSeed(), hashes: map[uint64]struct{}{}}
}

// sighting is a label in the answer to a selector, which is 0 for any selector. The label is empty
// for the selector itself.
type sighting struct {
	selector uint64
	label    labels.Label
}

// selector returns the hash of matchers, which is not 0.
func (e *explained) selector(ms []*labels.Matcher) uint64 {
	var h maphash.Hash
	h.SetSeed(e.seed)
	for _, m := range ms {
		maphash.WriteComparable(&h, labels.Label{Name: m.Name, Value: m.Value})
		_ = h.WriteByte(byte(m.Type)) // never fails
	}
	return max(h.Sum64(), 1)
}

func (e *explained) has(s sighting) bool {
	_, ok := e.hashes[maphash.Comparable(e.seed, s)]
	return ok
}

// all reports whether the doubts about an answer to a selector are explained.
func (e *explained) all(selector uint64, doubts []labels.Label) bool {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	asked := e.has(sighting{selector: selector})
	if slices.ContainsFunc(doubts, func(l labels.Label) bool {
		return !e.has(sighting{selector, l}) && (asked || !e.has(sighting{label: l}))
	}) {
		return false
	}
	if !asked {
		e.remember(selector, doubts)
	}
	return true
}

// add remembers that the doubts about an answer to a selector are explained.
func (e *explained) add(selector uint64, doubts []labels.Label) {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	e.remember(selector, doubts)
}

func (e *explained) remember(selector uint64, doubts []labels.Label) {
	if len(e.hashes) > maxExplained {
		clear(e.hashes)
	}
	e.hashes[maphash.Comparable(e.seed, sighting{selector: selector})] = struct{}{}
	for _, l := range doubts {
		e.hashes[maphash.Comparable(e.seed, sighting{selector, l})] = struct{}{}
		e.hashes[maphash.Comparable(e.seed, sighting{label: l})] = struct{}{}
	}
}
