package bytelru

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCache_IsBoundedInBytes(t *testing.T) {
	l := New[string, int](10)
	has := func(keys string) {
		t.Helper()
		for _, k := range "abcd" {
			ok := l.entries.Contains(string(k))
			require.Equal(t, strings.ContainsRune(keys, k), ok, "%c", k)
		}
	}
	l.Add("a", 1, 4)
	l.Add("b", 2, 4)
	l.Add("a", 3, 4)
	has("ab")
	l.Add("c", 4, 4)
	has("ac")
	v, ok := l.Get("a")
	require.True(t, ok)
	require.Equal(t, 3, v)
	l.Add("d", 5, 6)
	has("ad")
	l.Add("b", 6, 11)
	has("")
	require.Zero(t, l.Bytes())
	require.Zero(t, l.Len())
}
