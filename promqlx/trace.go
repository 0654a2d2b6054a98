package promqlx

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Trace is the record of what became of one execution of a query: which pieces its
// parts were divided into, who answered them, and what was fetched. A nil Trace
// records nothing. It is safe for concurrent use.
type Trace struct {
	mtx    sync.Mutex // guards all below
	chosen map[asked][]*servergroup.Piece
	pieces map[*servergroup.Piece]*pieceTrace
	errs   map[asked]error // of partitions that did not answer
	// fetches are those of selectors by the piece that they are for, nil for the query
	// itself, in the order in which they began: that of the selectors.
	fetches map[*servergroup.Piece][]*fetchTrace
}

// asked is a partition that is asked for a part.
type asked struct {
	part      *plan.Part
	partition *servergroup.Partition
}

func newTrace() *Trace {
	return &Trace{
		chosen:  map[asked][]*servergroup.Piece{},
		pieces:  map[*servergroup.Piece]*pieceTrace{},
		errs:    map[asked]error{},
		fetches: map[*servergroup.Piece][]*fetchTrace{},
	}
}

// chose records what a partition's share of a part is divided into.
func (t *Trace) chose(p *plan.Part, partition *servergroup.Partition, pieces []*servergroup.Piece) {
	if t == nil {
		return
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	t.chosen[asked{p, partition}] = pieces
}

// failed records that a partition did not answer a part; err may be nil.
func (t *Trace) failed(p *plan.Part, partition *servergroup.Partition, err error) {
	if t == nil || err == nil {
		return
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	t.errs[asked{p, partition}] = err
}

// piece begins the record of a piece.
func (t *Trace) piece(p *servergroup.Piece) *pieceTrace {
	if t == nil {
		return nil
	}
	out := &pieceTrace{began: time.Now()}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	t.pieces[p] = out
	return out
}

// fetch begins the record of a fetch, which is for a piece unless that is nil.
func (t *Trace) fetch(p *servergroup.Piece, sel servergroup.Selection) *fetchTrace {
	if t == nil {
		return nil
	}
	out := &fetchTrace{selection: sel, began: time.Now()}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	t.fetches[p] = append(t.fetches[p], out)
	return out
}

// pieceTrace is the record of one piece. Nil records nothing. One goroutine writes
// it.
type pieceTrace struct {
	began   time.Time
	took    time.Duration // until the answer was there, or failed
	here    string        // why it was evaluated here; "" if it was not
	series  int           // of the answer
	samples int           // of the answer: one for each step at which a series is
	by      string        // the URL of the replica that evaluated; "" if none did
}

// local records why the piece is evaluated here.
func (t *pieceTrace) local(why string, err error) {
	if t == nil {
		return
	}
	if t.here = why; err != nil {
		t.here = err.Error()
	}
}

// answered records an answer. What its views show is recorded by read.
func (t *pieceTrace) answered(a answer) {
	if t == nil {
		return
	}
	t.took, t.by = time.Since(t.began), a.by
	for _, s := range a.series {
		if s.view == nil {
			t.read(s.samples.Len())
		}
	}
}

// read records a series of the answer, with the number of its samples.
func (t *pieceTrace) read(samples int) {
	if t == nil || samples == 0 {
		return
	}
	t.series++
	t.samples += samples
}

// of returns the record of a piece, nil if there is none.
func (t *Trace) of(p *servergroup.Piece) *pieceTrace {
	if t == nil {
		return nil
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	return t.pieces[p]
}

// fetchTrace is the record of one fetch. Nil records nothing.
type fetchTrace struct {
	selection servergroup.Selection
	began     time.Time
	took      atomic.Int64 // ns until the series were there
	series    atomic.Int64
	samples   atomic.Int64 // that were read of them, after the merge
}

// of returns a set that is recorded while it is read. done is told when all has
// been recorded of how long it took.
func (t *fetchTrace) of(set storage.SeriesSet, done *sync.WaitGroup) storage.SeriesSet {
	if t == nil {
		return set
	}
	done.Go(func() {
		set.Warnings() // waits for the series
		t.took.Store(int64(time.Since(t.began)))
	})
	return &tracedSet{set, t}
}

type tracedSet struct {
	storage.SeriesSet
	trace *fetchTrace
}

func (s *tracedSet) Next() bool {
	ok := s.SeriesSet.Next()
	if ok {
		s.trace.series.Add(1)
	}
	return ok
}

func (s *tracedSet) At() storage.Series { return tracedSeries{s.SeriesSet.At(), s.trace} }

type tracedSeries struct {
	storage.Series
	trace *fetchTrace
}

func (s tracedSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	own, ok := it.(*tracedIterator)
	if !ok {
		own = &tracedIterator{}
	}
	own.Iterator, own.trace, own.started = s.Series.Iterator(own.Iterator), s.trace, false
	return own
}

// tracedIterator counts the samples that it arrives at.
type tracedIterator struct {
	chunkenc.Iterator
	trace   *fetchTrace
	started bool
	at      int64 // ms
}

func (it *tracedIterator) Next() chunkenc.ValueType { return it.arrived(it.Iterator.Next()) }

func (it *tracedIterator) Seek(t int64) chunkenc.ValueType { return it.arrived(it.Iterator.Seek(t)) }

func (it *tracedIterator) arrived(v chunkenc.ValueType) chunkenc.ValueType {
	if v == chunkenc.ValNone {
		return v
	}
	if at := it.AtT(); !it.started || at != it.at {
		it.started, it.at = true, at
		it.trace.samples.Add(1)
	}
	return v
}

// fetched explains the fetches for a piece, nil for the query itself.
func (t *Trace) fetched(p *servergroup.Piece) []ExplainedFetch {
	if t == nil {
		return nil
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	var out []ExplainedFetch
	for _, f := range t.fetches[p] {
		out = append(out, ExplainedFetch{
			Selector: transport.Selector(f.selection.Matchers), Milliseconds: milliseconds(time.Duration(f.took.Load())),
			Series: f.series.Load(), Samples: f.samples.Load(),
		})
	}
	return out
}

// late returns the last n fetches for the query itself: those of info().
func (t *Trace) late(n int) []*fetchTrace {
	if n == 0 {
		return nil
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	all := t.fetches[nil]
	return all[len(all)-n:]
}

// explainPieces explains what a partition's share of a part was divided into, and
// why it was not answered, if it was not.
func (t *Trace) explainPieces(p *plan.Part, partition *servergroup.Partition) (out []ExplainedPiece, failed string) {
	t.mtx.Lock()
	pieces, err := t.chosen[asked{p, partition}], t.errs[asked{p, partition}]
	t.mtx.Unlock()
	for _, piece := range pieces {
		out = append(out, t.explainPiece(p, piece))
	}
	if err != nil {
		failed = err.Error()
	}
	return out, failed
}

func (t *Trace) explainPiece(p *plan.Part, piece *servergroup.Piece) ExplainedPiece {
	out := ExplainedPiece{Steps: explainedSteps(piece.Steps), Replica: piece.Replica(), Why: piece.Why, Execution: executedRemotely, Fetches: t.fetched(piece)}
	if len(piece.Turns) > 1 {
		for _, turn := range piece.Turns {
			out.Turns = append(out.Turns, explainedSteps(turn))
		}
	}
	var narrowed []string
	for _, m := range piece.Narrowed() {
		narrowed = append(narrowed, m.String())
	}
	out.Targets = strings.Join(narrowed, ", ")
	seen := t.of(piece)
	if seen == nil { // the query ended before
		return out
	}
	out.Milliseconds, out.Series, out.Samples = milliseconds(seen.took), seen.series, seen.samples
	if out.Local = seen.here; out.Local != "" {
		out.Execution = executedHere
		return out
	}
	if seen.by != piece.Replica() {
		out.AnsweredBy = seen.by
	}
	out.Text, _ = p.TextFor(piece.Matchers)
	return out
}
