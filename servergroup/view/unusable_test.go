package view

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestUnusable_IsBounded(t *testing.T) {
	u := NewUnusable()
	now := time.UnixMilli(0)
	long := strings.Repeat("x", 10_000)
	for i := range 300 {
		u.Add(fmt.Sprint(i, long), "why", now)
	}
	_, ok := u.Reason("0"+long, now)
	require.False(t, ok)
	why, ok := u.Reason("299"+long, now)
	require.True(t, ok)
	require.Equal(t, "why", why)
	require.LessOrEqual(t, u.answers.Bytes(), keptUnusable)
}
