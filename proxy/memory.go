package proxy

import (
	"math"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
)

// Memory is how much memory oneprom takes, by its flags.
type Memory struct {
	Auto            bool    // GOMEMLIMIT is set by what the container or the system has
	Ratio           float64 // of that
	RefreshInterval model.Duration

	// slotsGiven, bytesGiven and cacheGiven report whether the command line has the flags whose defaults depend
	// on the memory.
	slotsGiven, bytesGiven, cacheGiven bool
}

// addFlags defines the flags, which are those of Prometheus.
func (m *Memory) addFlags(app *kingpin.Application) {
	app.Flag("auto-gomemlimit", "Set GOMEMLIMIT by the memory that the container, or else the system, has. A GOMEMLIMIT of the environment stays.").
		Default("true").BoolVar(&m.Auto)
	app.Flag("auto-gomemlimit.ratio", "Which part of that memory GOMEMLIMIT is.").
		Default("0.9").Float64Var(&m.Ratio)
	app.Flag("auto-gomemlimit.refresh-interval", "How often to look again, as the limit of a container may change. 0 is never.").
		Default("0s").SetValue(&m.RefreshInterval)
}

const (
	// memoryPerSlot is the memory for which there is a slot.
	memoryPerSlot = 64 << 20
	// fewestSlots is what a dashboard needs so that it does not load panel by panel.
	fewestSlots = 4
	// queriesAtBudget is how many queries may hold their whole budget at once, if each takes three
	// times as much memory, as decoding and evaluating do.
	queriesAtBudget = 5
	// leastBudget (bytes) is enough for an ordinary dashboard.
	leastBudget = 32 << 20
	// partForCache is the part of the memory that kept answers may take.
	partForCache = 10
	// mebibyte: less would only be hard to read.
	mebibyte = 1 << 20
)

// LimitMemory sets GOMEMLIMIT as Prometheus does, and fits the slots, the bytes of a query and those of kept
// answers, where the command line does not give them, to it.
func (o *Options) LimitMemory() {
	o.limitMemory(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem))
}

// limitMemory is LimitMemory, for the memory that a provider finds.
func (o *Options) limitMemory(provider memlimit.Provider) {
	if o.Memory.Auto {
		_, err := memlimit.SetGoMemLimitWithOpts(
			memlimit.WithRatio(o.Memory.Ratio), memlimit.WithProvider(provider),
			memlimit.WithRefreshInterval(time.Duration(o.Memory.RefreshInterval)),
			memlimit.WithLogger(o.Logger.With("component", "automemlimit")),
		)
		if err != nil {
			o.Logger.Warn("GOMEMLIMIT cannot be set automatically", "err", err)
		}
	}
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return // there is none
	}
	o.fit(limit)
	o.Logger.Info("memory", "gomemlimit_bytes", limit, "query_max_concurrency", o.MaxConcurrency, "query_max_fetched_bytes", o.MaxFetchedBytes.String(),
		"cache_size", o.CacheSize.String())
}

// fit makes slots, bytes and the cache fit a limit of memory, unless the command line gives them. They never
// become more than on a machine with 17 GiB.
func (o *Options) fit(limit int64) {
	if !o.Memory.slotsGiven {
		o.MaxConcurrency = min(o.MaxConcurrency, max(fewestSlots, int(limit/memoryPerSlot)))
		o.show("query.max-concurrency", strconv.Itoa(o.MaxConcurrency))
	}
	if !o.Memory.bytesGiven {
		budget := limit / (3 * queriesAtBudget) / mebibyte * mebibyte
		o.MaxFetchedBytes = min(o.MaxFetchedBytes, Bytes(max(leastBudget, budget)))
		o.show("query.max-fetched-bytes", o.MaxFetchedBytes.String())
	}
	if !o.Memory.cacheGiven {
		o.CacheSize = min(o.CacheSize, Bytes(limit/partForCache/mebibyte*mebibyte))
		o.show("cache.size", o.CacheSize.String())
	}
}

// show has /api/v1/status/flags show a value.
func (o *Options) show(flag, value string) {
	if _, ok := o.Flags[flag]; ok {
		o.Flags[flag] = value
	}
}
