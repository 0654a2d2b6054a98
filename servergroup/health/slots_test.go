package health

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSlots_InTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(2)
		var mtx sync.Mutex
		var order []int
		var releases []func()
		for i := range 5 {
			go func() {
				release, err := s.Acquire(t.Context(), nil)
				require.NoError(t, err)
				mtx.Lock()
				defer mtx.Unlock()
				order = append(order, i)
				releases = append(releases, release)
			}()
			synctest.Wait()
		}
		require.Equal(t, []int{0, 1}, order)
		require.Equal(t, []int{2, 3}, []int{s.InUse(), s.Waiting()})
		for i := range 5 {
			mtx.Lock()
			release := releases[i]
			mtx.Unlock()
			release()
			release() // once is enough
			synctest.Wait()
			require.LessOrEqual(t, s.InUse(), 2)
		}
		require.Equal(t, []int{0, 1, 2, 3, 4}, order)
		require.Zero(t, s.InUse())
	})
}

// TestSlots_TurnsGoRound by client, and by query of each client: a query of many requests delays
// another by one request, and a client of many queries delays another by one query's.
func TestSlots_TurnsGoRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(1)
		release, err := s.Acquire(t.Context(), &Asker{Client: "before"})
		require.NoError(t, err)
		var order []string
		lineUp := func(name string, a *Asker, requests int) {
			for range requests {
				go func() {
					release, err := s.Acquire(t.Context(), a)
					require.NoError(t, err)
					order = append(order, name) // there is one slot
					release()
				}()
				synctest.Wait()
			}
		}
		lineUp("a1", &Asker{Client: "a"}, 4)
		lineUp("a2", &Asker{Client: "a"}, 2)
		lineUp("b1", &Asker{Client: "b"}, 2)
		lineUp("own", nil, 1)
		lineUp("b2", &Asker{Client: "b"}, 1)
		release()
		synctest.Wait()
		require.Equal(t, []string{"a1", "b1", "own", "a2", "b2", "a1", "b1", "a2", "a1", "a1"}, order)
		require.Zero(t, s.InUse()+s.Waiting()+len(s.queries)+len(s.turns))
	})
}

// TestSlots_AQueryLeavesRoom: whoever comes finds a slot, however many requests one query has.
func TestSlots_AQueryLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(5)
		ctx, cancel := context.WithCancel(t.Context())
		flood := func(a *Asker) {
			for range 100 {
				go func() {
					if release, err := s.Acquire(ctx, a); err == nil {
						<-ctx.Done()
						release()
					}
				}()
			}
			synctest.Wait()
		}
		flood(&Asker{Client: "a"})
		require.Equal(t, []int{3, 97}, []int{s.InUse(), s.Waiting()})
		release, err := s.Acquire(t.Context(), &Asker{Client: "a"})
		require.NoError(t, err)
		release()
		flood(nil) // what oneprom asks for itself is not one query
		require.Equal(t, 5, s.InUse())
		cancel()
		synctest.Wait()
		require.Zero(t, s.InUse()+s.Waiting()+len(s.queries)+len(s.turns))
	})
}

func TestSlots_WhoLeavesTakesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(1)
		release, err := s.Acquire(t.Context(), nil)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = s.Acquire(ctx, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "timed out waiting for one of 1 request slots")
		require.Zero(t, s.Waiting())
		release()
		release, err = s.Acquire(t.Context(), nil)
		require.NoError(t, err)
		release()
	})
}

func TestSlots_ShrinkWhenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(8)
		s.Refused(0)
		require.Equal(t, 4, s.Limit())
		for range 10 {
			s.Refused(0)
		}
		require.Equal(t, 1, s.Limit())
		for range 100 {
			s.Succeeded()
		}
		require.Equal(t, 8, s.Limit())

		s.Refused(2 * time.Second)
		began := time.Now()
		release, err := s.Acquire(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 2*time.Second, time.Since(began))
		release()
		// Whoever wants more is not left alone for longer.
		s.Refused(time.Hour)
		began = time.Now()
		release, err = s.Acquire(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, longestPause, time.Since(began))
		release()
	})
}

func TestSlots_NilDoesNotBound(t *testing.T) {
	s := NewSlots(0)
	release, err := s.Acquire(t.Context(), nil)
	require.NoError(t, err)
	release()
	s.Succeeded()
	s.Refused(time.Second)
	require.Zero(t, s.InUse()+s.Waiting()+s.Limit())
}

func TestExtra(t *testing.T) {
	var e Extra
	spend := func() (n int) {
		for e.Spend() {
			n++
		}
		return n
	}
	require.Equal(t, leastExtra, spend())
	for range 100 {
		e.Request()
	}
	require.Equal(t, 15, spend())
	for range 10_000 {
		e.Request()
	}
	require.Equal(t, mostExtra, spend())
}
