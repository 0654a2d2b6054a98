package replica

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDiffering(t *testing.T) {
	f := func(want []string, a, b map[string]string) {
		t.Helper()
		require.Equal(t, want, differing(a, b))
		require.Equal(t, want, differing(b, a))
	}
	f(nil, nil, nil)
	f(nil, map[string]string{"a": "1"}, map[string]string{"a": "1"})
	f([]string{"a"}, map[string]string{"a": "1"}, map[string]string{"a": "2"})
	f([]string{"a"}, map[string]string{"a": "1"}, map[string]string{})
	f([]string{"a", "b"}, map[string]string{"a": "1", "b": "1", "c": "1"}, map[string]string{"b": "2", "a": "2", "c": "1"})
}
