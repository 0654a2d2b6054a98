package recorder

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/stretchr/testify/require"
)

// fillDisk has writing fail, as on a disk that is full, until the disk has room again: what writes the
// log writes to /dev/full, and what asks for room finds a folder in its place.
func (b *bench) fillDisk(t *testing.T) (makeRoom func()) {
	t.Helper()
	wal := filepath.Join(b.path, "wal")
	_, last, err := wlog.Segments(wal)
	require.NoError(t, err)
	writer := writerOf(t, wlog.SegmentName(wal, last))
	kept, err := syscall.Dup(writer)
	require.NoError(t, err)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer full.Close()
	probe := filepath.Join(b.path, probeFile)
	require.NoError(t, os.MkdirAll(filepath.Join(probe, "not-empty"), 0o700))
	require.NoError(t, syscall.Dup3(int(full.Fd()), writer, syscall.O_CLOEXEC))
	return func() {
		require.NoError(t, syscall.Dup3(kept, writer, syscall.O_CLOEXEC))
		require.NoError(t, syscall.Close(kept))
		require.NoError(t, os.RemoveAll(probe)) // from here on the log may be opened again
		b.mtx.Lock()
		defer b.mtx.Unlock()
		b.tried = time.Time{} // so that nobody waits for another try
	}
}

// writerOf returns the descriptor with which this process writes a file.
func writerOf(t *testing.T, file string) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, e := range list {
		n, err := strconv.Atoi(e.Name())
		require.NoError(t, err)
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || to != file {
			continue
		}
		if flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(n), syscall.F_GETFL, 0); errno == 0 && flags&syscall.O_ACCMODE == syscall.O_WRONLY {
			return n
		}
	}
	t.Fatal("nobody writes", file)
	return -1
}

// TestRecorder_FullDisk: when the disk has room again, what rules record is written again. All that was
// recorded is sent, and once; what was not is counted, and said.
func TestRecorder_FullDisk(t *testing.T) {
	t.Parallel()
	rc := newReceiver(t)
	b := newBench(t, "[{url: '"+rc.URL+"', queue_config: {batch_send_deadline: 5ms}}]")
	b.recordUntilSent(t, "first", rc)
	want := map[string]int{} // samples that were recorded
	for round := range 3 {
		name := strconv.Itoa(round)
		_, err := b.record(t, "before"+name, 100)
		require.NoError(t, err)
		want["before"+name] = 100

		makeRoom := b.fillDisk(t)
		for range 2 {
			_, err = b.record(t, "during"+name, 2000) // more than a page of the log
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.ErrorIs(t, err, ErrLost)
			require.ErrorContains(t, err, b.path)
		}
		require.Contains(t, b.logged.String(), ErrLost.Error())
		require.InDelta(t, 4000*(round+1), testutil.ToFloat64(b.metrics.lost), 0)
		makeRoom()

		_, err = b.record(t, "after"+name, 100)
		require.NoError(t, err)
		want["after"+name] = 100
		require.Contains(t, b.logged.String(), "the log of samples was opened again")
		require.InDelta(t, round+1, testutil.ToFloat64(b.metrics.reopened), 0)
	}
	b.recordUntilSent(t, "last", rc)
	got := func() map[string]int {
		got := map[string]int{}
		for name := range want {
			got[name] = rc.total(name)
		}
		return got
	}
	require.Eventually(t, func() bool { return maps.Equal(want, got()) }, soon, time.Millisecond, "%v: %s", want, b.logged)
	require.NotContains(t, b.logged.String(), "error tailing WAL")
	require.NotContains(t, b.logged.String(), "repair", "segments are not replaced while somebody reads them")
}

// TestRecorder_FullDiskWhileNobodyReceives: what waits for a receiver that is away is not lost because the
// disk is full meanwhile.
func TestRecorder_FullDiskWhileNobodyReceives(t *testing.T) {
	t.Parallel()
	rc := newReceiver(t)
	b := newBench(t, "[{url: '"+rc.URL+"', queue_config: {capacity: 1, max_samples_per_send: 1, max_shards: 1, batch_send_deadline: 5ms, min_backoff: 5ms, max_backoff: 5ms}}]")
	b.recordUntilSent(t, "first", rc)
	rc.refuses.Store(true)
	_, err := b.record(t, "before", 100)
	require.NoError(t, err)
	makeRoom := b.fillDisk(t)
	_, err = b.record(t, "during", 2000)
	require.ErrorIs(t, err, ErrLost)
	makeRoom()
	_, err = b.record(t, "after", 100)
	require.NoError(t, err)
	rc.refuses.Store(false)
	require.Eventually(t, func() bool {
		_, err := b.record(t, "more", 1) // remote write looks for more when it is told that there is, or after 15 s
		return err == nil && rc.total("before") == 100 && rc.total("after") == 100
	}, soon, 10*time.Millisecond, b.logged)
}

// TestRecorder_FullDiskForMany: what one of many appenders was told is recorded is sent, and once.
func TestRecorder_FullDiskForMany(t *testing.T) {
	t.Parallel()
	rc := newReceiver(t)
	b := newBench(t, "[{url: '"+rc.URL+"', queue_config: {batch_send_deadline: 5ms}}]")
	b.recordUntilSent(t, "first", rc)
	var writers sync.WaitGroup
	var recorded sync.Map
	ctx, cancel := context.WithCancel(t.Context())
	stop := func() { cancel(); writers.Wait() }
	t.Cleanup(stop) // before the recorder is closed
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprint("w", w, "i", i)
				if _, err := b.record(t, name, 100); err == nil {
					recorded.Store(name, true)
				}
			}
		})
	}
	for range 3 {
		lost, reopened := testutil.ToFloat64(b.metrics.lost), testutil.ToFloat64(b.metrics.reopened)
		makeRoom := b.fillDisk(t)
		require.Eventually(t, func() bool { return testutil.ToFloat64(b.metrics.lost) > lost }, soon, time.Millisecond)
		makeRoom()
		require.Eventually(t, func() bool { return testutil.ToFloat64(b.metrics.reopened) > reopened }, soon, time.Millisecond)
	}
	stop()
	b.recordUntilSent(t, "last", rc)
	recorded.Range(func(name, _ any) bool {
		require.Eventually(t, func() bool { return rc.total(name.(string)) >= 100 }, soon, time.Millisecond, name)
		require.Equal(t, 100, rc.total(name.(string)), name)
		return true
	})
}
