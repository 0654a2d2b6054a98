package cache

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFlush_IsShared: a process knows what others have flushed soon afterwards, also if several do so at once.
func TestFlush_IsShared(t *testing.T) {
	behind := NewMemory(1 << 20)
	var processes []*Cache
	for range 3 {
		store := NewTiered(NewMemory(1 << 20))
		store.Use(behind)
		processes = append(processes, New(store, nil))
	}
	whole := answerOf(rand.New(rand.NewPCG(3, 4)), GridOf(0, 1000), 0, 1_000_000)
	now := int64(10_000_000)
	found := func(c *Cache, group string) bool {
		f := c.Find(context.Background(), Question{Key: group, Groups: []string{group}, Start: 0, End: 99_000, Step: 1000, Settled: now, Now: now, Believed: long})
		return len(f.Missing()) == 0
	}
	evaluate := func(group string) {
		ask(t, processes[0], Question{Key: group, Groups: []string{group}, Start: 0, End: 99_000, Step: 1000, Settled: now, Now: now, Believed: long}, whole)
	}
	for _, group := range []string{"a", "b", "c"} {
		evaluate(group)
		for _, c := range processes {
			require.True(t, found(c, group))
		}
	}
	now += 1000
	processes[0].Flush(Flush{Group: "a", From: 0, To: 10_000, At: now})
	processes[1].Flush(Flush{Group: "b", From: 99_000, To: 1 << 40, At: now})
	processes[2].Flush(Flush{Group: "c", From: 200_000, To: 1 << 40, At: now})
	require.False(t, found(processes[0], "a"))
	for range 3 {
		now += flushAge
		for _, c := range processes {
			found(c, "a")
		}
	}
	for i, c := range processes {
		require.False(t, found(c, "a"), i)
		require.False(t, found(c, "b"), i)
		require.True(t, found(c, "c"), i)
		require.Len(t, c.flushes.list, 3)
	}
	evaluate("a")
	for i, c := range processes {
		require.True(t, found(c, "a"), "%d: one of the processes has evaluated it", i)
	}
}

// TestFlush_IsBounded: too many are one of everything, and old ones are forgotten.
func TestFlush_IsBounded(t *testing.T) {
	c := New(NewMemory(1<<20), nil)
	for i := range int64(maxFlushes + 1) {
		c.Flush(Flush{Group: "a", From: 5, To: 6, At: 1000 + i})
	}
	require.Len(t, c.flushes.list, 1)
	require.Len(t, c.flushes.of(Question{}), 1)
	require.EqualValues(t, 1000+maxFlushes, c.flushes.list[0].At)
	c.Flush(Flush{Group: "b", At: 2001 + keptFor.Milliseconds()})
	require.Len(t, c.flushes.list, 1)
	require.Equal(t, "b", c.flushes.list[0].Group)
}
