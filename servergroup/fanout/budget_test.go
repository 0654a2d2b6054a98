package fanout

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestBudget_WhoHasMoreThanItsShareIsCutOff(t *testing.T) {
	var share *ShareError
	b := &Budget{Limit: 100}
	a, twin := b.Answer("http://a", "http://a", 2), b.Answer("http://b", "http://b", 2)
	require.NoError(t, a.Charge(60))
	require.NoError(t, twin.Charge(10))
	require.ErrorAs(t, a.Charge(31), &share)
	require.EqualError(t, share, "http://a: answer cut off, as the query would hold more than 100 bytes with it (--query.max-fetched-bytes)")
	require.EqualValues(t, 10, b.Used(), "what is thrown away is not held")
	require.ErrorAs(t, a.Charge(1), &share)

	// The twin can have all, and not more.
	require.NoError(t, twin.Charge(90))
	require.ErrorAs(t, twin.Charge(1), &share)
	require.EqualError(t, AllOver([]error{share, share}), "query needs more than 100 bytes of data from the server groups, most of it from http://b: narrow its selectors or its range, or raise --query.max-fetched-bytes")
	require.NoError(t, AllOver([]error{share, errors.New("down")}))
	require.NoError(t, AllOver(nil))
}

// TestBudget_WhoHasLittleGoesOn, although it is the one that crosses the limit.
func TestBudget_WhoHasLittleGoesOn(t *testing.T) {
	b := &Budget{Limit: 100}
	a, twin := b.Answer("http://a", "http://a", 2), b.Answer("http://b", "http://b", 2)
	require.NoError(t, a.Charge(95))
	require.NoError(t, twin.Charge(10))
	require.EqualValues(t, 10, b.Used())
	var share *ShareError
	require.ErrorAs(t, a.Charge(1), &share)
}

// TestBudget_QueryIsTooLarge where nobody has more than its share, or all of it is read already.
func TestBudget_QueryIsTooLarge(t *testing.T) {
	var over *BudgetError
	b := &Budget{Limit: 100}
	a, twin := b.Answer("http://a", "http://a", 2), b.Answer("http://b", "http://b", 2)
	require.NoError(t, a.Charge(50))
	require.NoError(t, twin.Charge(50))
	other := b.Answer("http://c", "http://c", 1)
	require.ErrorAs(t, other.Charge(1), &over)

	b = &Budget{Limit: 100}
	a = b.Answer("http://a", "http://a", 2)
	require.NoError(t, a.Charge(95))
	a.End()
	require.ErrorAs(t, b.Answer("http://b", "http://b", 2).Charge(10), &over)

	alone := (&Budget{Limit: 100}).Answer("http://a", `server group "a"`, 1)
	require.ErrorAs(t, alone.Charge(101), &over)
	require.Equal(t, `server group "a"`, over.Most)
	require.NoError(t, new(Budget).Answer("http://a", "http://a", 1).Charge(1<<40))
}

func TestFirst_BlamesWhoSendsMuchMoreThanItsTwin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for bytes, blamed := range map[int]bool{10: true, 40: false} {
			extra, list, _ := trio(t)
			for range 5 {
				b := &Budget{Limit: 100}
				winner, _ := First(t.Context(), list[:2], extra, Retryable, func(_ context.Context, i int) error {
					a := b.Answer(list[i].URL(), "", 2)
					defer a.End()
					return a.Charge([]int{101, bytes}[i])
				})
				require.Equal(t, 1, winner)
			}
			synctest.Wait()
			require.Equal(t, !blamed, list[0].Health.Usable())
		}
	})
}
