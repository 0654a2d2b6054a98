package cache

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// recordingStore is a store that tells what it was asked for.
type recordingStore struct {
	*Memory
	asked [][]string
}

func (s *recordingStore) Get(ctx context.Context, keys []string) [][]byte {
	s.asked = append(s.asked, keys)
	return s.Memory.Get(ctx, keys)
}

// TestTiered: the store behind memory is asked for what memory lacks, once.
func TestTiered(t *testing.T) {
	memory, behind := NewMemory(1<<20), &recordingStore{Memory: NewMemory(1 << 20)}
	tiered := NewTiered(memory)
	get := func(keys ...string) (values []string) {
		for _, value := range tiered.Get(t.Context(), keys) {
			values = append(values, string(value))
		}
		return values
	}
	tiered.Set("a", []byte("A"), time.Hour)
	require.Equal(t, []string{"A", ""}, get("a", "x"), "there is none behind")

	tiered.Use(behind)
	tiered.Set("b", []byte("B"), time.Hour)
	behind.Set("c", []byte("C"), time.Hour)
	behind.Set("d", []byte("D"), time.Hour)
	require.Equal(t, []string{"A", "B"}, get("a", "b"))
	require.Empty(t, behind.asked)
	require.Equal(t, []string{"C", "A", "", "D"}, get("c", "a", "x", "d"))
	require.Equal(t, []string{"C", "D"}, get("c", "d"))
	require.Equal(t, [][]string{{"c", "x", "d"}}, behind.asked)
	require.Equal(t, []byte("B"), behind.Memory.Get(t.Context(), []string{"b"})[0])

	tiered.Use(nil)
	require.Nil(t, tiered.Behind())
	require.Equal(t, []string{"C", ""}, get("c", "x"))
}
