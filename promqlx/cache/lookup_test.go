package cache

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

// lives are texts, each with the time (ms) of which it is an answer.
type lives map[string]Run

// during returns the answer over some time.
func (l lives) during(r Run) (texts []string) {
	for text, life := range l {
		if life.From <= r.To && life.To >= r.From {
			texts = append(texts, text)
		}
	}
	slices.Sort(texts)
	return texts
}

// lookUp answers a lookup by a cache, with which some blocks cannot be kept. It returns what was asked for that is
// kept, and that is not.
func lookUp(t *testing.T, c *Cache, q Question, l lives, left ...int64) (answer []string, missing, rest []Run) {
	t.Helper()
	blocks := q.Blocks()
	if len(blocks) == 0 {
		return l.during(Run{q.Start, q.End}), nil, []Run{{q.Start, q.End}}
	}
	f := c.FindSets(t.Context(), q, blocks, true)
	require.LessOrEqual(t, len(f.Missing), maxMissing)
	require.LessOrEqual(t, len(f.Rest), maxRest+1)
	answer = f.Texts
	for _, r := range f.Rest {
		answer = append(answer, l.during(r)...)
	}
	for _, r := range f.Missing {
		texts := l.during(r)
		answer = append(answer, texts...)
		if slices.Contains(left, r.From/hour%10) {
			c.LeaveSet(f, r)
		} else {
			c.KeepSet(f, r, texts)
		}
	}
	slices.Sort(answer)
	return slices.Compact(answer), f.Missing, f.Rest
}

// TestSets_AreTheAnswer: a lookup has the same answer, whatever was looked up before, for whatever times.
func TestSets_AreTheAnswer(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		l := lives{}
		for i := range 300 {
			from := rnd.Int64N(60*day) - 10*day
			l[strconv.Itoa(i)] = Run{from, from + rnd.Int64N(hour<<rnd.IntN(8))}
		}
		c := New(NewMemory(1<<20), nil)
		now := 10 * day
		for range 60 {
			now += rnd.Int64N(5 * hour)
			q := Question{Key: "k", Start: now - rnd.Int64N(25*day), Settled: now - 4*hour, Now: now, Believed: long}
			q.End = q.Start + rnd.Int64N(now+day-q.Start)
			if rnd.IntN(4) == 0 {
				q.End = math.MaxInt64
			}
			got, _, _ := lookUp(t, c, q, l, 3, 7)
			require.Equal(t, l.during(Run{q.Start, q.End}), got)
		}
	}
}

// TestSets_AreUsed: a lookup over a long time keeps some blocks each time, until only the ends are asked for.
func TestSets_AreUsed(t *testing.T) {
	c := New(NewMemory(1<<20), nil)
	now := 100*day + 10*hour + hour/2
	q := Question{Key: "k", Start: now - 30*day, End: now, Settled: now - 4*hour, Now: now, Believed: long}
	// 13 hours, 29 days, and 6 hours
	blocks := q.Blocks()
	require.Len(t, blocks, 48)
	require.Equal(t, Run{70*day + 11*hour, 70*day + 12*hour - 1}, blocks[0])
	require.Equal(t, Run{99 * day, 100*day - 1}, blocks[41])
	require.Equal(t, Run{100*day + 5*hour, 100*day + 6*hour - 1}, blocks[47])
	l := lives{"a": {0, now}, "b": {now - day, now - day}}
	asked := 0
	for range 6 {
		_, missing, _ := lookUp(t, c, q, l, 3) // three hours cannot be kept
		require.Len(t, missing, maxMissing)
		asked += len(missing)
	}
	require.Equal(t, 48, asked)
	got, missing, rest := lookUp(t, c, q, l, 3)
	require.Equal(t, []string{"a", "b"}, got)
	require.Empty(t, missing)
	require.Equal(t, []Run{
		{100*day + 6*hour, now},
		{100*day + 3*hour, 100*day + 4*hour - 1},
		{70*day + 23*hour, 71*day - 1},
		{70*day + 13*hour, 70*day + 14*hour - 1},
		{q.Start, 70*day + 11*hour - 1},
	}, rest)
}

// TestSets_Blocks: windows of which most is not settled, and such without a bound, have none.
func TestSets_Blocks(t *testing.T) {
	now := 1000 * day
	f := func(want int, start, end int64) {
		t.Helper()
		require.Len(t, Question{Start: start, End: end, Settled: now - 4*hour, Now: now}.Blocks(), want)
	}
	f(4, now-8*hour, now)
	f(0, now-8*hour+1, now)
	f(4, now-8*hour, math.MaxInt64)
	f(4, now-8*hour, now-4*hour-1)
	f(1, now-50*hour, now-49*hour-1)
	f(0, now-50*hour+1, now-49*hour)
	f(0, math.MinInt64/2, now)
	f(0, math.MinInt64/2, math.MaxInt64)
	f(0, now+day, now+2*day)
	f(0, now, now-day)
	f(0, math.MaxInt64, math.MaxInt64)
	f(2, -2*day, -1)
	f(10, -10*day, -1)
	f(0, now-402*day, now-day)
}

// TestSets_KeysAreApart: what was kept is not used for another question, nor before or after its time.
func TestSets_KeysAreApart(t *testing.T) {
	c := New(NewMemory(1<<20), nil)
	l := lives{"a": {0, 5 * day}}
	now := 5 * day
	q := Question{Key: "k", Start: 4 * day, End: 4*day + 3*hour - 1, Settled: now - 4*hour, Now: now, Believed: func(int64) int64 { return hour }}
	f := func(want int, change func(*Question)) {
		t.Helper()
		other := q
		change(&other)
		found := c.FindSets(t.Context(), other, other.Blocks(), true)
		require.Len(t, found.Missing, want)
		require.Equal(t, want == 3, len(found.Texts) == 0)
	}
	lookUp(t, c, q, l)
	f(1, func(q *Question) {
		q.Start += 2 * hour
		q.End += 2 * hour
		q.End = 4*day + 4*hour - 1
		q.Start = 4*day + 2*hour
	})
	f(0, func(*Question) {})
	f(3, func(q *Question) { q.Key = "l" })
	f(3, func(q *Question) { q.Now-- })
	f(3, func(q *Question) { q.Since = now + 1 })
	f(0, func(q *Question) { q.Now += hour })
	f(3, func(q *Question) { q.Now += hour + 1 })
	q.Now += 2 * hour
	lookUp(t, c, q, l) // the same as before
	f(0, func(q *Question) { q.Now += 20 * hour })
	l["b"] = l["a"]
	q.Now += 25 * hour
	lookUp(t, c, q, l) // another one
	f(0, func(q *Question) { q.Now += hour })
	f(3, func(q *Question) { q.Now += hour + 1 })
}

// TestSets_Flush: of what is flushed, nothing is used.
func TestSets_Flush(t *testing.T) {
	c := New(NewMemory(1<<20), nil)
	now := 5 * day
	q := Question{Key: "k", Start: 4 * day, End: 4*day + 3*hour - 1, Settled: now - 4*hour, Now: now, Believed: long, Groups: []string{"g"}}
	l := lives{"a": {0, 5 * day}}
	f := func(flush Flush, want ...Run) {
		t.Helper()
		lookUp(t, c, q, l)
		q.Now += 1000
		flush.At = q.Now - 500
		c.Flush(flush)
		_, missing, _ := lookUp(t, c, q, l)
		require.Equal(t, want, missing)
	}
	f(Flush{Group: "other", From: 0, To: now})
	f(Flush{Group: "g", From: 0, To: 4*day - 1})
	f(Flush{Group: "g", From: 4*day + hour - 1, To: 4*day + hour - 1}, Run{4 * day, 4*day + hour - 1})
	f(Flush{From: 4*day + 3*hour - 1, To: now}, Run{4*day + 2*hour, 4*day + 3*hour - 1})
}

// TestSets_Large: a set that is large is not kept, and not asked for by itself for some time.
func TestSets_Large(t *testing.T) {
	c := New(NewMemory(64<<20), nil)
	now := 5 * day
	q := Question{Key: "k", Start: 4 * day, End: 4*day + 2*hour - 1, Settled: now - 4*hour, Now: now, Believed: long}
	l := lives{strings.Repeat("x", maxSet+1): {4 * day, 4*day + 1}, "a": {4 * day, 5 * day}}
	_, missing, _ := lookUp(t, c, q, l)
	require.Len(t, missing, 2)
	got, missing, rest := lookUp(t, c, q, l)
	require.Len(t, got, 2)
	require.Empty(t, missing)
	require.Equal(t, []Run{{4 * day, 4*day + hour - 1}}, rest)
	q.Now += leftFor + 1
	_, missing, _ = lookUp(t, c, q, l)
	require.Len(t, missing, 1)
	// Nothing is asked for by itself if nothing can be kept.
	q.Key = "l"
	f := c.FindSets(t.Context(), q, q.Blocks(), false)
	require.Empty(t, f.Missing)
	require.Equal(t, []Run{{q.Start, q.End}}, f.Rest)
}

// TestSets_Series: a series is that of its text.
func TestSets_Series(t *testing.T) {
	for _, ls := range []labels.Labels{labels.EmptyLabels(), labels.FromStrings("__name__", "m", "a", strings.Repeat("x", 300), "b.ü", "\xff\"")} {
		got, err := SeriesOf(TextOf(ls))
		require.NoError(t, err)
		require.True(t, labels.Equal(ls, got))
	}
	_, err := SeriesOf("\x05a")
	require.ErrorIs(t, err, errNoBlock)
}
