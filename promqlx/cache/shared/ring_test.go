package shared

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// ringOf returns a ring of n servers.
func ringOf(n int) *ring {
	var nodes []node
	for i := range n {
		nodes = append(nodes, node{address: fmt.Sprintf("10.0.0.%d:11211", i)})
	}
	r, _ := (&ring{}).with(nodes, func(n node) *server { return &server{node: n, hash: hashOf(n.address)} })
	return r
}

// TestRing_MovesLittle: a server that is added takes its share of the names, and no other name
// moves.
func TestRing_MovesLittle(t *testing.T) {
	const names = 20_000
	for _, n := range []int{1, 2, 3, 9} {
		before, after := ringOf(n), ringOf(n+1)
		moved, counts := 0, map[string]int{}
		for i := range names {
			name := sealer{}.name(strconv.Itoa(i))
			from, to := before.of(name).node.address, after.of(name).node.address
			counts[to]++
			if from != to {
				moved++
				require.Equal(t, after.servers[n].node.address, to)
			}
		}
		share := float64(names) / float64(n+1)
		require.InEpsilon(t, share, float64(moved), 0.1)
		require.Len(t, counts, n+1)
		for address, count := range counts {
			require.InEpsilon(t, share, float64(count), 0.1, address)
		}
	}
}

// TestRing_Order: where a name is depends on nothing but the servers.
func TestRing_Order(t *testing.T) {
	r := ringOf(5)
	reversed := &ring{}
	for i := range r.servers {
		reversed.servers = append(reversed.servers, r.servers[4-i])
	}
	for i := range 1000 {
		name := strconv.Itoa(i)
		require.Same(t, r.of(name), reversed.of(name))
	}
	require.Nil(t, (&ring{}).of("x"))
	require.Equal(t, "10.0.0.4:11211", r.of("a").node.address, "as in every release")
}
