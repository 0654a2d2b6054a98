package findings

import (
	"bytes"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// logged returns findings, and what counts a text in their log.
func logged() (f *Recent, count func(text string) int) {
	var log bytes.Buffer
	return New(slog.New(slog.NewTextHandler(&log, nil))), func(text string) int { return strings.Count(log.String(), text) }
}

func TestRecent_AgeOut(t *testing.T) {
	f, count := logged()
	at := func(minutes int) time.Time { return time.UnixMilli(0).Add(time.Duration(minutes) * time.Minute) }
	require.Empty(t, f.List(at(0)))
	f.Add("a", "text a", at(0))
	f.Add("b", "text b", at(1))
	f.Add("a", "another example", at(30))
	require.Equal(t, []string{"text a", "text b"}, f.List(at(61)))
	require.Equal(t, []string{"text a"}, f.List(at(62)))
	require.Equal(t, []string{"text a"}, f.List(at(90)), "an hour after it was last seen")
	require.Empty(t, f.List(at(91)))
	require.Equal(t, 1, count("text a"), "it is logged once")
	require.Zero(t, count("another example"))

	// It comes back: that is news, with what shows it now.
	f.Add("a", "third example", at(200))
	require.Equal(t, []string{"third example"}, f.List(at(200)))
	require.Equal(t, 1, count("third example"))
}

func TestRecent_AreBounded(t *testing.T) {
	f, count := logged()
	start := time.UnixMilli(0)
	for i := range 3 * mostKept {
		f.Add(strconv.Itoa(i), fmt.Sprintf("text %d", i), start)
	}
	require.Len(t, f.List(start), mostKept)
	require.Len(t, f.seen, mostKept)
	require.Equal(t, mostKept, count("level=WARN"))
	// What is told no more makes room for what is.
	later := start.Add(Age + time.Second)
	f.Add("new", "new text", later)
	require.Equal(t, []string{"new text"}, f.List(later))
}

func TestRecent_OfManyAnswersAtOnce(t *testing.T) {
	f := New(slog.New(slog.DiscardHandler))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 {
				f.Add(strconv.Itoa(j%7), "text", time.UnixMilli(int64(i)))
				f.List(time.UnixMilli(0))
			}
		})
	}
	wg.Wait()
	require.Len(t, f.List(time.UnixMilli(8)), 7)
}

func TestShorten(t *testing.T) {
	require.True(t, strings.HasSuffix(Shorten(strings.Repeat("x", 300)), "…"))
	require.Equal(t, `{a="b"}`, Shorten(`{a="b"}`))
}
