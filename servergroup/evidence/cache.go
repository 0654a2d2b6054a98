package evidence

import (
	"context"
	"fmt"
	"maps"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/bytelru"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// The bounds of what is kept per group (bytes).
const (
	keptSlices  = 40 << 20
	keptTargets = 16 << 20 // labels of targets
	keptLookups = 8 << 20
)

const (
	// maxRunSlices is the most slices of one fetch: those of six hours.
	maxRunSlices = 12
	// maxRuns is the most fetches that one query waits for at a time.
	maxRuns = 4
	// ProvisionalAge (ms) is how long an answer is used that may change soon.
	ProvisionalAge = 15 * 1000
	// maxWait is the longest time that a fetch waits for older ones.
	maxWait = time.Second
	// settleTime (ms) is how long after the time of a sample a replica may still be about
	// to write it.
	settleTime = 4 * 60 * 1000
	// maxStepBack (ms) is how far a clock is put back that is kept right.
	maxStepBack = 5 * 1000
)

// Cache remembers what the scrapes of one group have shown. It is safe for concurrent use; the
// zero value is ready for use.
type Cache struct {
	// Losses are what audits have found.
	Losses Losses

	mtx     sync.Mutex
	history *history
	latest  int64 // when history was used last (ms)
}

// Group is a server group whose replicas are compared.
type Group struct {
	Config   *config.Group
	Replicas []*replica.Replica
}

// history is what is known of the scrapes of one set of replicas.
type history struct {
	group    Group
	replicas string // their URLs and generations
	limit    int64  // bytes of one fetch
	table    *targetTable

	mtx      sync.Mutex // guards the fields below
	slices   *bytelru.Cache[int64, *sliceScrapes]
	fetches  map[int64]*sliceFetch // the youngest running one, by slice
	recorded []recordNames         // of the replicas
	lookups  *bytelru.Cache[lookupKey, *sliceTargets]
	counts   *bytelru.Cache[countKey, *countedSlice]
	stamps   *bytelru.Cache[lookupKey, sliceStamps]
	untold   *bytelru.Cache[string, untold]  // by selector
	counting map[countedSelector]*countFetch // the youngest running one
	ups      map[*replica.Replica]keptUps

	countSlots chan struct{} // holds an element for each counting that runs
}

// sliceFetch is a fetch of consecutive slices that is running, or waits for older ones.
type sliceFetch struct {
	slices []*sliceScrapes // empty until done is closed
	after  []*sliceFetch   // older fetches of these slices, which it waits for
	asked  int64           // when it started, ms; math.MaxInt64 while it waits
	done   chan struct{}
	err    error // why there is nothing in them
}

// historyOf returns the history of a group's replicas at a time (now, ms). It is new if the replicas have changed, if
// one of them may have lost samples, or if the clock was put back: what was taken for settled while
// it was ahead may have been about to be written, and what was young then would never be old.
func (c *Cache) historyOf(g Group, limit, now int64) *history {
	var replicas strings.Builder
	for _, r := range g.Replicas {
		fmt.Fprintf(&replicas, "%s %d\n", r.URL(), r.Generation())
	}
	c.mtx.Lock()
	defer c.mtx.Unlock()
	putBack := now < c.latest-maxStepBack
	if c.history == nil || c.history.replicas != replicas.String() || c.history.table.size() > keptTargets || putBack {
		c.history, c.latest = newHistory(g, replicas.String(), limit), now
	}
	c.latest = max(c.latest, now)
	return c.history
}

func newHistory(g Group, replicas string, limit int64) *history {
	return &history{
		group: g, replicas: replicas, limit: limit, table: newTargetTable(),
		slices:   bytelru.New[int64, *sliceScrapes](keptSlices),
		fetches:  map[int64]*sliceFetch{},
		recorded: make([]recordNames, len(g.Replicas)),
		lookups:  bytelru.New[lookupKey, *sliceTargets](keptLookups),
		counts:   bytelru.New[countKey, *countedSlice](keptCounts),
		stamps:   bytelru.New[lookupKey, sliceStamps](keptStamps),
		untold:   bytelru.New[string, untold](keptUntold),
		counting: map[countedSelector]*countFetch{}, ups: map[*replica.Replica]keptUps{}, countSlots: make(chan struct{}, maxCounting),
	}
}

func (h *history) now() int64 { return h.group.Replicas[0].Now().UnixMilli() }

// margin is how far (ms) around a slice samples decide on what is in it.
func (h *history) margin() int64 { return dedup.MarginOf(len(h.group.Replicas)) }

// upToDate reports whether a slice can be used at a time (now, ms) for a query whose samples
// reach until to (ms).
func (h *history) upToDate(s *sliceScrapes, to, now int64) bool {
	if h.settled(s) {
		return true
	}
	return s.asked >= h.newest(s.begin, to, now) && now-s.asked < ProvisionalAge
}

// settled reports whether a slice cannot change any more.
func (h *history) settled(s *sliceScrapes) bool {
	return len(s.failed) == 0 && s.asked > s.begin+scrapeSlice+h.margin()+settleTime
}

// newest is the last time (ms) of a slice that a query at now needs.
func (h *history) newest(begin, to, now int64) int64 {
	return min(to, begin+scrapeSlice-1, now)
}

// slicesIn returns the slices that overlap [from, to] (ms), in the order of time. It fails if
// the query ends, or if a fetch exceeds the limit.
func (h *history) slicesIn(ctx context.Context, from, to int64) ([]*sliceScrapes, error) {
	first, last := sliceBegin(from), sliceBegin(to)
	out := make([]*sliceScrapes, (last-first)/scrapeSlice+1)
	if floorTo(first, maxRunSlices*scrapeSlice) == floorTo(last, maxRunSlices*scrapeSlice) {
		if err := h.fill(ctx, out, first, to); err != nil { // one run
			return out, err
		}
		return out, context.Cause(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	room := make(chan struct{}, maxRuns)
	for begin := first; begin <= last && ctx.Err() == nil; {
		run := begin
		begin = min(last+scrapeSlice, floorTo(run, maxRunSlices*scrapeSlice)+maxRunSlices*scrapeSlice)
		part := out[(run-first)/scrapeSlice : (begin-first)/scrapeSlice]
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			if err := guard.Call(func() error { return h.fill(ctx, part, run, to) }); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return out, context.Cause(ctx)
}

// fill fills out with the slices from begin (ms) on for a query that reaches until to (ms).
// Slices that are not cached are fetched once for all queries that want them.
func (h *history) fill(ctx context.Context, out []*sliceScrapes, begin, to int64) error {
	waits := h.claim(out, begin, to)
	for i, f := range waits {
		if f == nil {
			continue
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if f.err != nil {
			return f.err
		}
		t := begin + int64(i)*scrapeSlice
		out[i] = f.slices[(t-f.slices[0].begin)/scrapeSlice]
	}
	return nil
}

// claim fills in the slices that are cached. It returns the fetches of the others, by index,
// which it starts unless they are running.
func (h *history) claim(out []*sliceScrapes, begin, to int64) []*sliceFetch {
	now := h.now()
	waits := make([]*sliceFetch, len(out))
	var fresh []*sliceFetch
	h.mtx.Lock()
	defer h.mtx.Unlock()
	var last *sliceFetch // the new one that ends with the slice before
	for i := range out {
		t := begin + int64(i)*scrapeSlice
		if s, ok := h.slices.Get(t); ok && h.upToDate(s, to, now) {
			out[i], last = s, nil
			continue
		}
		older := h.fetches[t]
		if older != nil && older.asked >= h.newest(t, to, now) {
			waits[i], last = older, nil
			continue
		}
		if last == nil {
			last = &sliceFetch{asked: math.MaxInt64, done: make(chan struct{})}
			fresh = append(fresh, last)
		}
		if older != nil {
			last.after = append(last.after, older)
		}
		last.slices = append(last.slices, &sliceScrapes{begin: t, table: h.table, failed: map[int]error{}})
		waits[i], h.fetches[t] = last, last
	}
	for _, f := range fresh {
		if len(f.after) == 0 {
			f.start(now)
		}
		if !h.group.Replicas[0].Run(func(ctx context.Context) {
			h.awaitOlder(ctx, f)
			h.finish(f, h.fetchSlices(ctx, f.slices))
		}) {
			f.err = lifetime.ErrEnded
			close(f.done)
		}
	}
	return waits
}

// awaitOlder waits until the older fetches of the slices have ended, and starts f. Queries that
// reach until now have different times, so that none can use a fetch that was started before,
// but all can share the next one. It waits for maxWait at most, as a replica may hang.
func (h *history) awaitOlder(ctx context.Context, f *sliceFetch) {
	if len(f.after) == 0 {
		return // it has started
	}
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	for _, older := range f.after {
		select {
		case <-older.done:
		case <-ctx.Done():
		}
	}
	h.mtx.Lock()
	defer h.mtx.Unlock()
	f.start(h.now())
}

// start marks a fetch as started at a time (ms).
func (f *sliceFetch) start(now int64) {
	f.asked, f.after = now, nil
	for _, s := range f.slices {
		s.asked = now
	}
}

// finish ends a fetch, with an error if it failed, and caches its slices.
func (h *history) finish(f *sliceFetch, err error) {
	h.mtx.Lock()
	defer h.mtx.Unlock()
	f.err = err
	for _, s := range f.slices {
		if h.fetches[s.begin] == f {
			delete(h.fetches, s.begin)
		}
		if err == nil {
			h.slices.Add(s.begin, s, s.bytes())
		}
	}
	close(f.done)
}

// fetchSlices fills slices. It does not end with the query that needs them, as other queries
// may wait for them too, but with ctx.
func (h *history) fetchSlices(ctx context.Context, into []*sliceScrapes) (err error) {
	defer guard.Recover(&err)
	ups := make([][]transport.Series, len(h.group.Replicas))
	from := into[0].begin - h.margin() - dedup.Margin
	to := into[len(into)-1].begin + scrapeSlice - 1 + h.margin()
	held := &fanout.Budget{Limit: h.limit}
	failed, err := h.ask(ctx, nil, func(ctx context.Context, i int, r *replica.Replica) error {
		list, err := h.fetchUp(ctx, r, from, to, "", held)
		ups[i] = list
		return err
	})
	if err != nil {
		return err
	}
	compareDecodable(into, ups, failed, h.comparedBefore(into))
	for _, s := range into {
		s.failed = failed
	}
	return nil
}

// ask calls f concurrently for every replica that has not failed before, and returns the errors
// of all replicas by index. It fails if their answers exceed the limit, or if ctx ends.
func (h *history) ask(ctx context.Context, before map[int]error, f func(ctx context.Context, i int, r *replica.Replica) error) (map[int]error, error) {
	failed := maps.Clone(before)
	if failed == nil {
		failed = map[int]error{}
	}
	errs, err := fanout.Each(ctx, h.group.Replicas, false, func(ctx context.Context, i int) error {
		if before[i] != nil {
			return nil
		}
		return f(ctx, i, h.group.Replicas[i])
	})
	if err == nil {
		err = context.Cause(ctx)
	}
	for i, e := range errs {
		if e != nil {
			failed[i] = e
		}
	}
	return failed, err
}

// MatchUp are the matchers of the series that tell of scrapes.
var MatchUp = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "up")}

// fetchUp returns the series `up` of a replica, sorted; the result is never nil. why is as
// transport.Request.Func.
func (h *history) fetchUp(ctx context.Context, r *replica.Replica, from, to int64, why string, held *fanout.Budget) ([]transport.Series, error) {
	var list []transport.Series
	err := r.UpToDate(func() error {
		p, err := r.Ready(ctx)
		if err != nil {
			return err
		}
		rules := labelmap.NewRules(h.group.Config, p.External)
		list, err = r.Fetch(ctx, p, p.Client.AllowPartial(false), p.Method, rules, transport.Request{
			Matchers: MatchUp, MinT: from, MaxT: to, Func: why, Charge: held.Charge,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	list, err = transport.Arrange(r.URL(), list)
	return append([]transport.Series{}, list...), err
}
