package evidence

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
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/replica"
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
	// YoungAge (ms) is how long an answer is believed that may be another one soon.
	YoungAge = 15 * 1000
	// mostWait is how long a flight waits for older ones at the most.
	mostWait = time.Second
	// settling (ms) is how long after the samples that a slice is decided by a
	// replica may still be about to write them.
	settling = 4 * 60 * 1000
)

// Cache is what is known of the scrapes of a group. The zero value is
// ready for use.
type Cache struct {
	mtx  sync.Mutex
	book *book
}

// Group is whose scrapes are compared.
type Group struct {
	Config   *config.Group
	Replicas []*replica.Replica
}

// book is what is known of one set of replicas.
type book struct {
	group Group
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
func (c *Cache) of(g Group, limit int64) *book {
	var urls strings.Builder
	for _, r := range g.Replicas {
		urls.WriteString(r.URL() + "\n")
	}
	c.mtx.Lock()
	defer c.mtx.Unlock()
	if c.book == nil || c.book.urls != urls.String() || c.book.table.size() > keptTargets {
		c.book = newBook(g, urls.String(), limit)
	}
	return c.book
}

func newBook(g Group, urls string, limit int64) *book {
	return &book{
		group: g, urls: urls, limit: limit, table: newTargetTable(),
		slices:  bytelru.New[int64, *sliceScrapes](keptSlices),
		flights: map[int64]*flight{},
		records: make([]recordNames, len(g.Replicas)),
		lookups: bytelru.New[lookupKey, *lookedUp](keptLookups),
	}
}

func (b *book) now() int64 { return b.group.Replicas[0].Now().UnixMilli() }

// margin is how far (ms) around a slice samples decide on what is in it.
func (b *book) margin() int64 { return dedup.MarginOf(len(b.group.Replicas)) }

// holds reports whether s says all that can be known at a time (now, ms) for a
// query whose samples reach until to (ms).
func (b *book) holds(s *sliceScrapes, to, now int64) bool {
	if len(s.failed) == 0 && s.asked > s.begin+scrapeSlice+b.margin()+settling {
		return true
	}
	return s.asked >= b.newest(s.begin, to, now) && now-s.asked < YoungAge
}

// newest is the last moment (ms) of a slice that concerns a query at all.
func (b *book) newest(begin, to, now int64) int64 {
	return min(to, begin+scrapeSlice-1, now)
}

// between returns the slices that meet [from, to] (ms), in the order of time. It
// fails if the query ends, or if a fetch holds more than the limit.
func (b *book) between(ctx context.Context, from, to int64) ([]*sliceScrapes, error) {
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
			if err := guard.Call(func() error { return b.get(ctx, part, run, to) }); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return out, context.Cause(ctx)
}

// get fills out with the slices from begin (ms) on for a query that reaches until
// to (ms). What is not known is fetched once for all queries that want it.
func (b *book) get(ctx context.Context, out []*sliceScrapes, begin, to int64) error {
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
func (b *book) claim(out []*sliceScrapes, begin, to int64) []*flight {
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
		if !b.group.Replicas[0].Run(func(ctx context.Context) {
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
func (b *book) await(ctx context.Context, f *flight) {
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
func (b *book) land(f *flight, err error) {
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
func (b *book) fly(ctx context.Context, into []*sliceScrapes) (err error) {
	defer guard.Recover(&err)
	told := make([][]transport.Series, len(b.group.Replicas))
	from := into[0].begin - b.margin() - dedup.Margin
	to := into[len(into)-1].begin + scrapeSlice - 1 + b.margin()
	held := &fanout.Budget{Limit: b.limit}
	failed, err := b.ask(ctx, nil, func(ctx context.Context, i int, r *replica.Replica) error {
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
func (b *book) ask(ctx context.Context, before map[int]error, f func(ctx context.Context, i int, r *replica.Replica) error) (map[int]error, error) {
	failed := maps.Clone(before)
	if failed == nil {
		failed = map[int]error{}
	}
	errs, err := fanout.Each(ctx, b.group.Replicas, false, func(ctx context.Context, i int) error {
		if before[i] != nil {
			return nil
		}
		return f(ctx, i, b.group.Replicas[i])
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
func (b *book) fetchUp(ctx context.Context, r *replica.Replica, from, to int64, held *fanout.Budget) ([]transport.Series, error) {
	fetch := func() ([]transport.Series, error) {
		p, err := r.Ready(ctx)
		if err != nil {
			return nil, err
		}
		return p.Client.AllowPartial(false).Fetch(ctx, p.Method, transport.Request{
			Matchers: matchUp, MinT: from, MaxT: to,
			Labels: labelmap.NewRules(b.group.Config, p.External).Apply,
			Charge: held.Charge,
		})
	}
	list, err := fetch()
	var e *transport.Error
	if errors.As(err, &e) && e.Unsupported() {
		r.Forget() // the backend is not what it was when it was probed
		list, err = fetch()
	}
	if err != nil {
		return nil, err
	}
	list, err = transport.Arrange(r.URL(), list)
	return append([]transport.Series{}, list...), err
}
