package lifetime

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEnd_WaitsForWhatRuns(t *testing.T) {
	l := New()
	over := false
	require.True(t, l.Run(func(ctx context.Context) {
		<-ctx.Done()
		over = true
	}))
	l.End()
	require.True(t, over)
	require.ErrorIs(t, l.Context().Err(), context.Canceled)
	require.False(t, l.Run(func(context.Context) { t.Error("begun after the end") }))
	l.End()
}
