package cache

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"
)

// long believes all for long.
func long(int64) int64 { return 1 << 40 }

// ask answers a question by a cache: what is missing is evaluated, which is to take it from the whole answer.
// It returns how many steps were evaluated.
func ask(t *testing.T, c *Cache, q Question, whole promql.Matrix) (answer promql.Matrix, evaluated int64) {
	f := c.Find(t.Context(), q)
	runs := f.Missing()
	var answers []promql.Matrix
	for i, run := range runs {
		require.LessOrEqual(t, run.From, run.To)
		require.Equal(t, f.grid, GridOf(run.From, q.Step))
		if i > 0 {
			require.Greater(t, run.From, runs[i-1].To)
		}
		evaluated += (run.To-run.From)/q.Step + 1
		answers = append(answers, within(whole, run.From, run.To))
	}
	answer, _, err := f.Join(runs, answers)
	require.NoError(t, err)
	for i, run := range runs {
		c.Keep(f, run, answers[i], nil)
	}
	return answer, evaluated
}

// TestCache_AnswersDoNotChange: whatever was asked before, for whatever times.
func TestCache_AnswersDoNotChange(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		const step = 1000
		c := New(NewMemory(1<<20), nil)
		phase := rnd.Int64N(step)
		const last = 1_000 * step
		whole := answerOf(rnd, GridOf(phase, step), phase, phase+last)
		now := phase + last/4
		for range 30 {
			now += rnd.Int64N(last / 20)
			start := phase + step*rnd.Int64N(500)
			q := Question{Key: "k", Start: start, End: min(phase+last, start+rnd.Int64N(400)*step+rnd.Int64N(step)), Step: step, Settled: now - 10*step, Now: now, Believed: long}
			got, _ := ask(t, c, q, whole)
			require.Equal(t, fmt.Sprint(within(whole, q.Start, q.End)), fmt.Sprint(got))
		}
	}
}

// TestCache_Refresh: a query whose window has moved by a few steps evaluates those, what is not settled, and now
// and then the last block, which is used for as long only as it was old.
func TestCache_Refresh(t *testing.T) {
	const step = 30_000
	c := New(NewMemory(1<<20), nil)
	whole := answerOf(rand.New(rand.NewPCG(3, 4)), GridOf(0, step), 0, 2000*step)
	all := int64(0)
	for i := range int64(100) {
		end := (1000 + i) * step
		_, evaluated := ask(t, c, Question{Key: "k", Start: end - 720*step, End: end, Step: step, Settled: end - 60_000, Now: end, Believed: long}, whole)
		if i == 0 {
			require.EqualValues(t, 721, evaluated)
		} else {
			require.LessOrEqual(t, evaluated, int64(6*blockSteps))
			all += evaluated
		}
	}
	require.LessOrEqual(t, all, int64(50*blockSteps))
}

// TestCache_KeysAreApart: answers to other questions, or of other grids, are not found.
func TestCache_KeysAreApart(t *testing.T) {
	c := New(NewMemory(1<<20), nil)
	whole := answerOf(rand.New(rand.NewPCG(3, 4)), GridOf(0, 1000), 0, 1_000_000)
	q := Question{Key: "k", Start: 0, End: 319_000, Step: 1000, Settled: 900_000, Now: 1_000_000, Believed: long}
	f := func(want int64, change func(*Question)) {
		t.Helper()
		other := q
		change(&other)
		found := c.Find(t.Context(), other)
		missing := int64(0)
		for _, run := range found.Missing() {
			missing += (run.To-run.From)/other.Step + 1
		}
		require.Equal(t, want, missing)
	}
	ask(t, c, q, whole)
	f(0, func(*Question) {})
	f(0, func(q *Question) { q.Start, q.End = 5000, 200_000 })
	f(0, func(q *Question) { q.End += 999 })
	f(32, func(q *Question) { q.End += 32_000 })
	f(320, func(q *Question) { q.Key = "l" })
	f(320, func(q *Question) { q.Start++; q.End++ })
	f(160, func(q *Question) { q.Step = 2000 })
	f(0, func(q *Question) { q.Now += 681_000 })
	f(32, func(q *Question) { q.Now += 681_001 }) // the last block is as old as it was when it was kept
	f(320, func(q *Question) { q.Now-- })         // it is of another clock
	f(160, func(q *Question) { q.Settled = 160_000 })
}

// TestCache_Believed: an answer is used for as long as what it rests on is believed, and then for long if the next
// one is the same.
func TestCache_Believed(t *testing.T) {
	c := New(NewMemory(1<<20), nil)
	g := GridOf(0, 1000)
	right, wrong := answerOf(rand.New(rand.NewPCG(3, 4)), g, 0, 100_000), answerOf(rand.New(rand.NewPCG(5, 4)), g, 0, 100_000)
	believed := int64(600_000)
	now := int64(10_000_000)
	q := Question{Key: "k", Start: 3000, End: 80_000, Step: 1000, Settled: now, Believed: func(oldest int64) int64 {
		require.GreaterOrEqual(t, oldest, int64(3000-77))
		return believed
	}, Reach: 77}
	after := func(ms int64, of promql.Matrix, evaluated int64) {
		t.Helper()
		now += ms
		q.Now = now
		_, n := ask(t, c, q, of)
		require.Equal(t, evaluated, n)
	}
	after(0, wrong, 78)
	after(600_000, right, 0)
	after(1, right, 78) // another answer
	after(600_000, right, 0)
	after(1, right, 78) // the same
	after(3_600_000, right, 0)
	after(3_600_000, right, 0)
	q.Since = now + 1
	after(2, right, 78) // something has changed
	after(1, right, 0)
}
