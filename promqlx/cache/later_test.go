package cache

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestCache_Later: who asks for what is about to be kept waits for it, and others do not.
func TestCache_Later(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(NewMemory(1<<20), nil)
		q := Question{Key: "k", Start: 0, End: 99_000, Step: 1000, Settled: 900_000, Now: 1_000_000, Believed: long}
		done, found := make(chan bool), make(chan string, 1)
		find := func(ctx context.Context, q Question) {
			f := c.Find(ctx, q)
			found <- string(f.Outcome(f.Missing()))
		}
		kept := c.Find(t.Context(), q)
		m, _ := benchAnswer(1, 100)
		for i := range m[0].Floats {
			m[0].Floats[i].T = int64(i) * 1000
		}
		keep := c.Later(kept, func() { <-done; c.Keep(kept, Run{0, 99_000}, m, nil) })
		ctx, cancel := context.WithCancel(t.Context())
		go find(ctx, q)
		synctest.Wait()
		require.Empty(t, found)
		cancel()
		require.Equal(t, "miss", <-found)

		part := q
		part.Start, part.End = 10_000, 30_000
		go find(t.Context(), part)
		synctest.Wait()
		require.Empty(t, found)
		other := q
		other.Key = "other"
		find(t.Context(), other)
		require.Equal(t, "miss", <-found)

		go keep()
		close(done)
		require.Equal(t, "hit", <-found)
		find(t.Context(), q)
		require.Equal(t, "hit", <-found)
		require.Empty(t, c.awaited.pending)
	})
}
