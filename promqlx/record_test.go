package promqlx

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/guard"
)

// TestRecord_OfThoseThatShare: each knows the plan, when its evaluation began, and the
// result, whoever began the execution.
func TestRecord_OfThoseThatShare(t *testing.T) {
	e, s := heldEngine(t)
	synctest.Test(t, func(t *testing.T) {
		ws := waitersFor(t, 2, e, threeSeries, at(60, 70))
		records := []*Record{{}, {}}
		s.hold()
		first := begin(WithRecord(t.Context(), records[0]), ws[0])
		synctest.Wait()
		time.Sleep(time.Second)
		second := begin(WithRecord(t.Context(), records[1]), ws[1])
		synctest.Wait()
		for _, r := range records {
			require.Zero(t, r.Began(), "it waits for a slot")
			require.Len(t, r.PlanDigest(), 16)
			require.Equal(t, records[0].PlanDigest(), r.PlanDigest())
		}
		time.Sleep(time.Second)
		freed := time.Now()
		s.free(true)
		require.NoError(t, (<-first).Err)
		require.NoError(t, (<-second).Err)
		for i, r := range records {
			require.Equal(t, freed, r.Began())
			series, samples := r.Result()
			require.EqualValues(t, 3, series)
			require.EqualValues(t, 33, samples)
			ws[i].Close()
		}
	})
}

func TestRecord_PlanDigestTellsPlansApart(t *testing.T) {
	const data = "\n  m{a=\"b\"} 1x100"
	eu, us := groupAt("eu", map[string]string{"region": "eu"}, newStore(t, data)), groupAt("us", map[string]string{"region": "us"}, newStore(t, data))
	both, _ := heldEngine(t, eu, us)
	one, _ := heldEngine(t, eu)
	digest := func(e *Engine, text string, at times) string {
		t.Helper()
		r := &Record{}
		w := waiterFor(t, e, text, at)
		defer w.Close()
		require.NoError(t, w.Exec(WithRecord(t.Context(), r)).Err)
		return r.PlanDigest()
	}
	known := digest(both, `sum(m)`, at(60, 70))
	require.Equal(t, known, digest(both, `sum(m)`, at(60, 70)))
	require.Equal(t, known, digest(both, ` sum( m ) # the same`, at(80, 95)), "at another time")
	for text, other := range map[string]string{
		"another function": digest(both, `min(m)`, at(60, 70)),
		"another selector": digest(both, `sum(m{a="b"})`, at(60, 70)),
		"another rest":     digest(both, `sum(m) + 1`, at(60, 70)),
		"no parts":         digest(both, `m unless m`, at(60, 70)),
		"other groups":     digest(one, `sum(m)`, at(60, 70)),
	} {
		require.NotEqual(t, known, other, text)
	}
}

func TestRecord_OfNothing(t *testing.T) {
	r := &Record{}
	require.Zero(t, r.Began())
	require.Empty(t, r.PlanDigest())
	series, samples := r.Result()
	require.Zero(t, series+samples)
}

// TestRethrow: what somebody else has recovered is a panic again, other errors are not.
func TestRethrow(t *testing.T) {
	bug := &guard.PanicError{Value: "oh"}
	require.PanicsWithValue(t, bug, func() { rethrow(fmt.Errorf("expanding series: %w", bug)) })
	var list []int
	var upstreams error
	func() {
		defer func() { upstreams = fmt.Errorf("unexpected error: %w", recover().(error)) }()
		_ = list[len(list)]
	}()
	require.PanicsWithValue(t, upstreams, func() { rethrow(upstreams) })
	require.NotPanics(t, func() { rethrow(nil) })
	require.NotPanics(t, func() { rethrow(errors.New("x")) })
	require.Equal(t, error(bug), partError(fmt.Errorf("%w", bug)).(interface{ Unwrap() error }).Unwrap())
}
