package shared

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// maxQueued values, of maxQueuedBytes in all, wait to be written.
	maxQueued      = 4096
	maxQueuedBytes = 64 << 20
	// queuedOverhead is about what a waiting value takes beyond its key and value (bytes).
	queuedOverhead = 100
	// What waits is written in rounds of up to maxRound values, of which the first roundBytes are
	// taken without regard to the size of the last.
	maxRound   = 100
	roundBytes = 4 << 20
)

// queued is a value that waits to be written.
type queued struct {
	key   string
	value []byte
	ttl   time.Duration
}

func (q queued) size() int64 { return int64(len(q.key) + len(q.value) + queuedOverhead) }

// queue holds what waits to be written, and what is being written.
type queue struct {
	waiting chan queued
	metrics *Metrics

	mtx    sync.Mutex // guards the fields below
	bytes  int64
	closed bool
}

func (q *queue) init(m *Metrics) { q.waiting, q.metrics = make(chan queued, maxQueued), m }

// put adds a value, and reports whether there was room for it.
func (q *queue) put(v queued) bool {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	if q.closed || q.bytes+v.size() > maxQueuedBytes {
		return false
	}
	select {
	case q.waiting <- v:
		q.add(v.size())
		return true
	default:
		return false
	}
}

// add changes how many bytes are counted. The caller holds mtx.
func (q *queue) add(size int64) {
	q.bytes += size
	q.metrics.queued.Add(float64(size))
}

// done makes the room of a value free.
func (q *queue) done(v queued) {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	q.add(-v.size())
}

// round returns a value with some of those that wait behind it.
func (q *queue) round(first queued) []queued {
	values, size := []queued{first}, first.size()
	for len(values) < maxRound && size < roundBytes {
		select {
		case v := <-q.waiting:
			values, size = append(values, v), size+v.size()
		default:
			return values
		}
	}
	return values
}

// close forgets what waits, and takes nothing more.
func (q *queue) close() {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	q.closed = true
	for {
		select {
		case v := <-q.waiting:
			q.add(-v.size())
			q.metrics.count("set", "dropped", 1)
		default:
			return
		}
	}
}

// writeQueued writes what comes into the queue, until ctx ends.
func (s *Store) writeQueued(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-s.queue.waiting:
			values := s.queue.round(first)
			s.write(ctx, values)
			for _, v := range values {
				s.queue.done(v)
			}
		}
	}
}

// errNoServer is the error of writing while no server is known.
var errNoServer = errors.New("no server is known")

// write writes values to their servers.
func (s *Store) write(ctx context.Context, values []queued) {
	servers := s.servers.Load()
	items := map[*server][]item{}
	for _, v := range values {
		name := s.sealer.name(v.key)
		server := servers.of(name)
		if server == nil {
			s.opts.Metrics.count("set", resultOf(errNoServer, ""), 1)
			continue
		}
		items[server] = append(items[server], item{name, s.sealer.seal(v.key, v.value), v.ttl})
	}
	var all sync.WaitGroup
	for server, items := range items {
		all.Go(func() { server.set(ctx, items) })
	}
	all.Wait()
}
