package toxics

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// askers ask while the configuration changes.
const askers = 4

// TestReload_UnderLoad lets groups come, go and change while questions are asked: no answer may be
// anything but that of one of the configurations, and nothing of those that are gone may stay.
func TestReload_UnderLoad(t *testing.T) {
	w := sharedWorld()
	r := newRig(t, w)
	r.start(t)
	steps := []struct {
		zones   []zone
		options []string
	}{
		{zones: zones},
		{zones: zones[:2]}, // one less
		{zones: zones[:2], options: []string{"remote_read: never"}},       // changed
		{zones: zones, options: []string{"remote_read: never"}},           // one more
		{zones: zones, options: []string{"headers: {X-Reload: 'again'}"}}, // changed again
	}
	reload := func(i int) {
		step := steps[i%len(steps)]
		r.configure(t, step.zones, step.options...)
		require.NoError(t, r.server.Reload(t.Context()))
	}
	// What is open without a group that anybody asks is there for good.
	left := func() (goroutines, files int) {
		require.NoError(t, os.WriteFile(r.file, []byte("server_groups: [{name: nobody, static_configs: [{targets: ['127.0.0.1:1']}]}]"), 0o600))
		require.NoError(t, r.server.Reload(t.Context()))
		r.client.CloseIdleConnections()
		pause(t, 200*time.Millisecond)
		return runtime.NumGoroutine(), openFiles(t)
	}
	for i := range steps {
		reload(i)
		r.askAll(t.Context(), w, i, ailment{})
	}
	goroutines, files := left()
	reload(0)

	var answers, failures atomic.Int64
	var first sync.Once
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for asker := range askers {
		asking.Go(func() {
			for n := asker; ctx.Err() == nil; n += askers {
				list := questions(n)
				q := list[n/askers%len(list)]
				got := r.ask(context.WithoutCancel(ctx), q)
				answers.Add(1)
				if why := ofSomeConfiguration(w, q, got); why != "" {
					failures.Add(1)
					first.Do(func() { t.Errorf("%s: %s", q.path, why) })
				}
			}
		})
	}
	began := time.Now()
	for i := range reloads {
		reload(i + 1)
		if i%2 == 0 { // every other reload follows at once
			seen := answers.Load()
			require.Eventually(t, func() bool { return answers.Load() >= seen+askers }, recovery, time.Millisecond)
		}
	}
	took := time.Since(began)
	stop()
	asking.Wait()
	require.Zero(t, failures.Load(), "of %d", answers.Load())

	after, open := left()
	for range 50 { // connections end in the background
		if after <= goroutines && open <= files {
			break
		}
		after, open = left()
	}
	t.Logf("%d reloads in %s beside %d answers; goroutines %d, then %d; open files %d, then %d",
		reloads, took.Round(time.Millisecond), answers.Load(), goroutines, after, files, open)
	const noise = 10 // of the runtime, and of clients' connections; a leak is of hundreds
	require.LessOrEqual(t, after, goroutines+noise, "goroutines")
	require.LessOrEqual(t, open, files+noise, "open files")
	for name, p := range r.proxies {
		require.Zero(t, p.Open(), "connections to %s", name)
	}
}

// ofSomeConfiguration says why an answer is not that of any of the configurations; "" if it is.
func ofSomeConfiguration(w *world, q question, got reply) (why string) {
	for _, gone := range [][]string{nil, {zones[2].name}} {
		if got.err == nil && got.status == http.StatusOK && w.judge(q, got, ailment{}, gone).outcome == right {
			return ""
		}
	}
	return fmt.Sprintf("after %s: status %d, %v: %s", got.after, got.status, got.err, got.body)
}

// openFiles is how many files, sockets among them, this process has open; 0 where that is not known.
func openFiles(t *testing.T) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	list, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	n := 0
	for _, file := range list {
		// The servers of the world map the head of their data a minute after their start.
		if target, _ := os.Readlink("/proc/self/fd/" + file.Name()); !strings.Contains(target, "/chunks_head/") {
			n++
		}
	}
	return n
}
