package view

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestUseless_IsBounded(t *testing.T) {
	u := NewUseless()
	now := time.UnixMilli(0)
	long := strings.Repeat("x", 10_000)
	for i := range 300 {
		u.Add(fmt.Sprint(i, long), "why", now)
	}
	_, known := u.Of("0"+long, now)
	require.False(t, known)
	why, known := u.Of("299"+long, now)
	require.True(t, known)
	require.Equal(t, "why", why)
	require.LessOrEqual(t, u.known.Bytes(), keptUseless)
}
