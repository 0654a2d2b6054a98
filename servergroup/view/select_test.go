package view

import (
	"context"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/guard"
)

func TestLater_PanicIsItsError(t *testing.T) {
	var done sync.WaitGroup
	set := StartFetch(context.Background(), &done, func() ([]storage.Series, annotations.Annotations, error) { panic("oh") }).Read()
	require.False(t, set.Next())
	var bug *guard.PanicError
	require.ErrorAs(t, set.Err(), &bug)
	require.EqualError(t, bug, "panic: oh")
	require.Contains(t, string(bug.Stack), "TestLater_PanicIsItsError")
	done.Wait()
}
