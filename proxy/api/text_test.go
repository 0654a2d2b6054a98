package api

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestClip(t *testing.T) {
	require.Equal(t, "ab", Clip("ab", 2))
	require.Equal(t, "ab…", Clip("abc", 2))
	require.Equal(t, "a…", Clip("aäb", 2))
	require.Equal(t, "a�b", Clip("a\xffb", 9))
}
