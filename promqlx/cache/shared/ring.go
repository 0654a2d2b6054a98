package shared

import (
	"hash/fnv"
)

// ring divides names among servers by rendezvous hashing: a name belongs to the server with the
// highest score for it. A server that comes takes its share of the names from all others, and the
// names of one that goes are shared by all others; nothing else moves.
type ring struct{ servers []*server }

// of returns the server that has a name; nil if there is none.
func (r *ring) of(name string) (best *server) {
	h := hashOf(name)
	var highest uint64
	for _, s := range r.servers {
		if score := mix(h ^ s.hash); best == nil || score > highest {
			best, highest = s, score
		}
	}
	return best
}

// with returns a ring of the servers of these nodes, of which those that are there already stay as
// they are, and the servers that are gone.
func (r *ring) with(nodes []node, start func(node) *server) (next *ring, gone []*server) {
	before := map[node]*server{}
	for _, s := range r.servers {
		before[s.node] = s
	}
	next = &ring{}
	seen := map[string]bool{}
	for _, n := range nodes {
		if seen[n.address] {
			continue
		}
		seen[n.address] = true
		s := before[n]
		if s == nil {
			s = start(n)
		}
		delete(before, n)
		next.servers = append(next.servers, s)
	}
	for _, s := range r.servers {
		if before[s.node] != nil {
			gone = append(gone, s)
		}
	}
	return next, gone
}

// hashOf is the same in all oneproms, so that they find each other's values.
func hashOf(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return mix(h.Sum64())
}

// mix lets each bit depend on all bits, as FNV does not (the last step of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
