package proxy

import (
	"errors"
	"log/slog"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMemory_DefaultsFit what there is, and what the command line gives stays.
func TestMemory_DefaultsFit(t *testing.T) {
	const mib, gib = int64(1) << 20, int64(1) << 30
	for _, c := range []struct {
		limit int64
		slots int
		bytes Bytes
		cache Bytes
	}{
		{100 * mib, 4, 32 << 20, 10 << 20},
		{460 * mib, 7, 32 << 20, 46 << 20}, // 512 MiB
		{9 * gib / 10, 14, 61 << 20, 92 << 20},
		{9 * gib / 5, 20, 122 << 20, 184 << 20},
		{18 * gib / 5, 20, 245 << 20, 256 << 20},
		{72 * gib / 5, 20, 983 << 20, 256 << 20},
		{15 * gib, 20, 1 << 30, 256 << 20},
		{900 * gib, 20, 1 << 30, 256 << 20},
	} {
		o := options(t)
		o.fit(c.limit)
		require.Equal(t, c.slots, o.MaxConcurrency, c.limit)
		require.Equal(t, c.bytes, o.MaxFetchedBytes, c.limit)
		require.Equal(t, c.cache, o.CacheSize, c.limit)
		require.Equal(t, o.MaxFetchedBytes.String(), o.Flags["query.max-fetched-bytes"], "clients see what is in use")
		require.Equal(t, o.CacheSize.String(), o.Flags["cache.size"])
	}
	o := options(t, "--query.max-concurrency=20", "--query.max-fetched-bytes=1GiB", "--cache.size=256MiB")
	o.fit(100 * mib)
	require.Equal(t, 20, o.MaxConcurrency)
	require.Equal(t, Bytes(1<<30), o.MaxFetchedBytes)
	require.Equal(t, Bytes(256<<20), o.CacheSize)
	o = options(t, "--cache.size=0")
	o.fit(900 * gib)
	require.Zero(t, o.CacheSize)
}

// TestMemory_Limit is set as Prometheus sets it, unless the environment or a flag says otherwise.
func TestMemory_Limit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	const unlimited = 1 << 62
	limited := func(there uint64, err error, flags ...string) (int64, Options) {
		debug.SetMemoryLimit(unlimited)
		o := options(t, flags...)
		o.Logger = slog.New(slog.DiscardHandler)
		o.limitMemory(func() (uint64, error) { return there, err })
		return debug.SetMemoryLimit(-1), o
	}
	got, o := limited(2<<30, nil)
	require.EqualValues(t, 1932735283, got, "nine tenths")
	require.Equal(t, Bytes(122<<20), o.MaxFetchedBytes)
	got, _ = limited(2<<30, nil, "--auto-gomemlimit.ratio=0.5")
	require.EqualValues(t, 1<<30, got)
	for _, flags := range [][]string{{"--no-auto-gomemlimit"}, nil} {
		got, o = limited(2<<30, errors.New("no cgroups"), flags...)
		require.EqualValues(t, unlimited, got)
		require.Equal(t, Bytes(1<<30), o.MaxFetchedBytes)
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	got, _ = limited(2<<30, nil)
	require.EqualValues(t, unlimited, got, "what the runtime has of the environment stays")

	o = options(t, "--auto-gomemlimit.ratio=1.1")
	require.ErrorContains(t, o.validate(), "--auto-gomemlimit.ratio=1.1: must be more than 0, and at most 1")
}
