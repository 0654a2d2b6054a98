package servergroup

import (
	"context"
	"errors"
	"maps"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/bytelru"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// What is kept per group (bytes).
const (
	keptSlices  = 40 << 20
	keptTargets = 16 << 20 // their labels
	keptLookups = 8 << 20
)

const (
	// runSlices is the most slices that are asked for at once: those of six hours.
	runSlices = 12
	// runsAtOnce is how many runs of slices one query waits for at once.
	runsAtOnce = 4
	// youngAge (ms) is how long an answer is believed that may be another one soon.
	youngAge = 15 * 1000
	// mostWait is how long a flight waits for older ones at the most.
	mostWait = time.Second
	// settling (ms) is how long after the samples that a slice is decided by a
	// replica may still be about to write them.
	settling = 4 * 60 * 1000
)

// evidenceCache is what is known of the scrapes of a group. The zero value is
// ready for use.
type evidenceCache struct {
	mtx  sync.Mutex
	book *evidenceBook
}

// evidenceBook is what is known of one set of replicas.
type evidenceBook struct {
	group groupView
	urls  string
	limit int64 // bytes of one fetch
	table *targetTable

	mtx     sync.Mutex // guards the fields below
	slices  *bytelru.Cache[int64, *sliceScrapes]
	flights map[int64]*flight // the youngest under way, by slice
	records []recordNames     // of the replicas
	lookups *bytelru.Cache[lookupKey, *lookedUp]
}

// flight is a fetch of consecutive slices under way, or about to be.
type flight struct {
	slices []*sliceScrapes // empty until done is closed
	after  []*flight       // older ones of these slices, which it waits for
	asked  int64           // when it departed, ms; math.MaxInt64 while it waits
	done   chan struct{}
	err    error // why there is nothing in them
}

// of returns the book of a group that has these replicas.
func (c *evidenceCache) of(g groupView, limit int64) *evidenceBook {
	var urls strings.Builder
	for _, r := range g.replicas {
		urls.WriteString(r.url() + "\n")
	}
	c.mtx.Lock()
	defer c.mtx.Unlock()
	if c.book == nil || c.book.urls != urls.String() || c.book.table.size() > keptTargets {
		c.book = newEvidenceBook(g, urls.String(), limit)
	}
	return c.book
}

func newEvidenceBook(g groupView, urls string, limit int64) *evidenceBook {
	return &evidenceBook{
		group: g, urls: urls, limit: limit, table: newTargetTable(),
		slices:  bytelru.New[int64, *sliceScrapes](keptSlices),
		flights: map[int64]*flight{},
		records: make([]recordNames, len(g.replicas)),
		lookups: bytelru.New[lookupKey, *lookedUp](keptLookups),
	}
}

func (b *evidenceBook) now() int64 { return b.group.replicas[0].now().UnixMilli() }

// margin is how far (ms) around a slice samples decide on what is in it.
func (b *evidenceBook) margin() int64 { return dedup.MarginOf(len(b.group.replicas)) }

// holds tells whether s says all that can be known at a time (now, ms) for a
// query whose samples reach until to (ms).
func (b *evidenceBook) holds(s *sliceScrapes, to, now int64) bool {
	if len(s.failed) == 0 && s.asked > s.begin+scrapeSlice+b.margin()+settling {
		return true
	}
	return s.asked >= b.newest(s.begin, to, now) && now-s.asked < youngAge
}

// newest is the last moment (ms) of a slice that concerns a query at all.
func (b *evidenceBook) newest(begin, to, now int64) int64 {
	return min(to, begin+scrapeSlice-1, now)
}

// between returns the slices that meet [from, to] (ms), in the order of time. It
// fails if the query ends, or if a fetch holds more than the limit.
func (b *evidenceBook) between(ctx context.Context, from, to int64) ([]*sliceScrapes, error) {
	first, last := sliceBegin(from), sliceBegin(to)
	out := make([]*sliceScrapes, (last-first)/scrapeSlice+1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	room := make(chan struct{}, runsAtOnce)
	for begin := first; begin <= last && ctx.Err() == nil; {
		run := begin
		begin = min(last+scrapeSlice, floorTo(run, runSlices*scrapeSlice)+runSlices*scrapeSlice)
		part := out[(run-first)/scrapeSlice : (begin-first)/scrapeSlice]
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			if err := guarded(func() error { return b.get(ctx, part, run, to) }); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return out, context.Cause(ctx)
}

// get fills out with the slices from begin (ms) on for a query that reaches until
// to (ms). What is not known is fetched once for all queries that want it.
func (b *evidenceBook) get(ctx context.Context, out []*sliceScrapes, begin, to int64) error {
	waits := b.claim(out, begin, to)
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

// claim fills in what is known, and returns the flights that bring the others.
func (b *evidenceBook) claim(out []*sliceScrapes, begin, to int64) []*flight {
	now := b.now()
	waits := make([]*flight, len(out))
	var fresh []*flight
	b.mtx.Lock()
	defer b.mtx.Unlock()
	var last *flight // the fresh one that ends with the slice before
	for i := range out {
		t := begin + int64(i)*scrapeSlice
		if s, ok := b.slices.Get(t); ok && b.holds(s, to, now) {
			out[i], last = s, nil
			continue
		}
		older := b.flights[t]
		if older != nil && older.asked >= b.newest(t, to, now) {
			waits[i], last = older, nil
			continue
		}
		if last == nil {
			last = &flight{asked: math.MaxInt64, done: make(chan struct{})}
			fresh = append(fresh, last)
		}
		if older != nil {
			last.after = append(last.after, older)
		}
		last.slices = append(last.slices, &sliceScrapes{begin: t, table: b.table, failed: map[int]error{}})
		waits[i], b.flights[t] = last, last
	}
	for _, f := range fresh {
		if len(f.after) == 0 {
			f.depart(now)
		}
		if !b.group.replicas[0].life.Run(func(ctx context.Context) {
			b.await(ctx, f)
			b.land(f, b.fly(ctx, f.slices))
		}) {
			f.err = lifetime.ErrEnded
			close(f.done)
		}
	}
	return waits
}

// await waits until it is a flight's turn: queries that reach until now have another
// now each, and so share none that is under way, but may share the one after it. It
// does not wait for long, as a replica may hang.
func (b *evidenceBook) await(ctx context.Context, f *flight) {
	if len(f.after) == 0 {
		return // it has departed
	}
	ctx, cancel := context.WithTimeout(ctx, mostWait)
	defer cancel()
	for _, older := range f.after {
		select {
		case <-older.done:
		case <-ctx.Done():
		}
	}
	b.mtx.Lock()
	defer b.mtx.Unlock()
	f.depart(b.now())
}

// depart sets out, at a time (ms).
func (f *flight) depart(now int64) {
	f.asked, f.after = now, nil
	for _, s := range f.slices {
		s.asked = now
	}
}

// land hands over what a flight brought.
func (b *evidenceBook) land(f *flight, err error) {
	b.mtx.Lock()
	defer b.mtx.Unlock()
	f.err = err
	for _, s := range f.slices {
		if b.flights[s.begin] == f {
			delete(b.flights, s.begin)
		}
		if err == nil {
			b.slices.Add(s.begin, s, s.bytes())
		}
	}
	close(f.done)
}

// fly fills slices. It goes on when the query that needs them ends, as others may
// wait for them too, and ends with the Set.
func (b *evidenceBook) fly(ctx context.Context, into []*sliceScrapes) (err error) {
	defer transport.Guard(&err)
	told := make([][]transport.Series, len(b.group.replicas))
	from := into[0].begin - b.margin() - dedup.Margin
	to := into[len(into)-1].begin + scrapeSlice - 1 + b.margin()
	held := &Budget{Limit: b.limit}
	failed, err := b.ask(ctx, nil, func(ctx context.Context, i int, r *replica) error {
		list, err := b.fetchUp(ctx, r, from, to, held)
		told[i] = list
		return err
	})
	if err != nil {
		return err
	}
	compareSound(into, told, failed)
	for _, s := range into {
		s.failed = failed
	}
	return nil
}

// ask calls f for every replica at once, but for those that failed before, and
// returns the errors of all by index. It fails if what they hold is too much, or
// if ctx ends.
func (b *evidenceBook) ask(ctx context.Context, before map[int]error, f func(ctx context.Context, i int, r *replica) error) (map[int]error, error) {
	failed := maps.Clone(before)
	if failed == nil {
		failed = map[int]error{}
	}
	errs, err := Each(ctx, b.group.replicas, false, func(ctx context.Context, i int) error {
		if before[i] != nil {
			return nil
		}
		return f(ctx, i, b.group.replicas[i])
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

var matchUp = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "up")}

// fetchUp returns the series `up` of a replica, sorted, and not nil.
func (b *evidenceBook) fetchUp(ctx context.Context, r *replica, from, to int64, held *Budget) ([]transport.Series, error) {
	fetch := func() ([]transport.Series, error) {
		p, err := r.ready(ctx)
		if err != nil {
			return nil, err
		}
		return p.client.AllowPartial(false).Fetch(ctx, p.method, transport.Request{
			Matchers: matchUp, MinT: from, MaxT: to,
			Labels: labelmap.NewRules(b.group.cfg, p.external).Apply,
			Charge: held.Charge,
		})
	}
	list, err := fetch()
	var e *transport.Error
	if errors.As(err, &e) && e.Unsupported() {
		r.forget() // the backend is not what it was when it was probed
		list, err = fetch()
	}
	if err != nil {
		return nil, err
	}
	list, err = arrange(r.url(), list)
	return append([]transport.Series{}, list...), err
}
