package servergroup

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestByteLRU(t *testing.T) {
	l := newByteLRU[string, int](10)
	has := func(keys string) {
		t.Helper()
		for _, k := range "abcd" {
			_, ok := l.entries[string(k)]
			require.Equal(t, strings.ContainsRune(keys, k), ok, "%c", k)
		}
	}
	l.put("a", 1, 4)
	l.put("b", 2, 4)
	l.put("a", 3, 4)
	has("ab")
	l.put("c", 4, 4)
	has("ac")
	v, ok := l.get("a")
	require.True(t, ok)
	require.Equal(t, 3, v)
	l.put("d", 5, 6)
	has("ad")
	l.put("b", 6, 11)
	has("")
	require.Zero(t, l.used)
}
