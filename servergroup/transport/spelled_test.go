package transport

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
)

func TestJoinSpellings(t *testing.T) {
	run := func(replica string, samples ...float64) Series { // times and values; a marker has the value -1
		s := &dedup.Samples{}
		for i := 0; i < len(samples); i += 2 {
			v := samples[i+1]
			if v == -1 {
				v = dedup.StaleNaN
			}
			s.Append(0, int64(samples[i]), v)
		}
		return Series{Labels: labels.FromStrings("le", "1.0"), Replica: replica, Run: s}
	}
	charged := 0
	r := Request{MinT: 0, MaxT: 100, Charge: func(n int) error { charged += n; return nil }}
	f := func(want []Series, list ...Series) {
		t.Helper()
		list, err := Arrange("http://a", list)
		require.NoError(t, err)
		got, err := JoinSpellings(list, r)
		require.NoError(t, err)
		require.Len(t, got, len(want))
		for i := range want {
			require.Equal(t, want[i].Replica, got[i].Replica)
			a, b := want[i].Run.(*dedup.Samples), got[i].Run.(*dedup.Samples)
			require.Equal(t, a.T, b.T)
			for j := range a.T {
				require.Equal(t, a.Stale(j), b.Stale(j))
				require.True(t, a.Stale(j) || a.F[j] == b.F[j])
			}
		}
	}
	old := "\xfdle\xfe1\xff"
	f([]Series{run("", 1, 1, 2, 2)}, run("", 1, 1, 2, 2))
	f([]Series{run("", 1, 1, 2, 2)}, run(old, 1, 1, 2, 2))
	require.Zero(t, charged)
	f([]Series{run("", 1, 1, 2, 2, 3, 3, 4, 4)}, run(old, 1, 1, 2, 2), run("", 3, 3, 4, 4))
	require.Equal(t, 2*64, charged)
	// The format of a target changes between two scrapes: the marker is no end.
	f([]Series{run("", 1, 1, 2, 2, 3, 3)}, run("", 1, 1, 2, -1), run(old, 2, 2, 3, 3))
	f([]Series{run("", 1, 1, 2, 2, 3, 3)}, run(old, 1, 1, 2, -1), run("", 2, 2, 3, 3))
	f([]Series{run("", 1, 1, 2, 2, 4, 3)}, run(old, 1, 1, 3, -1), run("", 2, 2, 4, 3))
	// It ends, and another begins later.
	f([]Series{run("", 1, 1, 2, -1, 9, 3, 10, -1)}, run(old, 1, 1, 2, -1), run("", 9, 3, 10, -1))
	// Replicas are not joined.
	f([]Series{run("a", 1, 1, 2, 2), run("b", 1, 5)}, run("a", 1, 1), run("a"+old, 2, 2), run("b"+old, 1, 5))
}
