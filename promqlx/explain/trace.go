package explain

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
	pieces map[*servergroup.Piece]*PieceTrace
	errs   map[asked]error // of partitions that did not answer
	// fetches are those of selectors by the piece that they are for, nil for the query
	// itself, in the order in which they began: that of the selectors.
	fetches map[*servergroup.Piece][]*FetchTrace
}

// asked is a partition that is asked for a part.
type asked struct {
	part      *plan.Part
	partition *servergroup.Partition
}

// NewTrace returns an empty trace.
func NewTrace() *Trace {
	return &Trace{
		chosen:  map[asked][]*servergroup.Piece{},
		pieces:  map[*servergroup.Piece]*PieceTrace{},
		errs:    map[asked]error{},
		fetches: map[*servergroup.Piece][]*FetchTrace{},
	}
}

// Chose records what a partition's share of a part is divided into.
func (t *Trace) Chose(p *plan.Part, partition *servergroup.Partition, pieces []*servergroup.Piece) {
	if t == nil {
		return
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	t.chosen[asked{p, partition}] = pieces
}

// Failed records that a partition did not answer a part; err may be nil.
func (t *Trace) Failed(p *plan.Part, partition *servergroup.Partition, err error) {
	if t == nil || err == nil {
		return
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	t.errs[asked{p, partition}] = err
}

// Piece begins the record of a piece.
func (t *Trace) Piece(p *servergroup.Piece) *PieceTrace {
	if t == nil {
		return nil
	}
	out := &PieceTrace{began: time.Now()}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	t.pieces[p] = out
	return out
}

// Fetch begins the record of a fetch, which is for a piece unless that is nil.
func (t *Trace) Fetch(p *servergroup.Piece, sel servergroup.Selection) *FetchTrace {
	if t == nil {
		return nil
	}
	out := &FetchTrace{selection: sel, began: time.Now()}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	t.fetches[p] = append(t.fetches[p], out)
	return out
}

// PieceTrace is the record of one piece. Nil records nothing. One goroutine writes
// it.
type PieceTrace struct {
	began   time.Time
	took    time.Duration // until the answer was there, or failed
	local   string        // why it was evaluated here; "" if it was not
	series  int           // of the answer
	samples int           // of the answer: one for each step at which a series is
	by      string        // the URL of the replica that evaluated; "" if none did
}

// Local records why the piece is evaluated here.
func (t *PieceTrace) Local(why string, err error) {
	if t == nil {
		return
	}
	if t.local = why; err != nil {
		t.local = err.Error()
	}
}

// Answered records an answer: the URL of the replica that evaluated, "" if none did, and
// how many series and samples there are. What there is only while it is read is recorded
// by Read.
func (t *PieceTrace) Answered(by string, series, samples int) {
	if t == nil {
		return
	}
	t.took, t.by, t.series, t.samples = time.Since(t.began), by, series, samples
}

// Read records a series of the answer, with the number of its samples.
func (t *PieceTrace) Read(samples int) {
	if t == nil || samples == 0 {
		return
	}
	t.series++
	t.samples += samples
}

// of returns the record of a piece, nil if there is none.
func (t *Trace) of(p *servergroup.Piece) *PieceTrace {
	if t == nil {
		return nil
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	return t.pieces[p]
}

// FetchTrace is the record of one fetch. Nil records nothing.
type FetchTrace struct {
	selection servergroup.Selection
	began     time.Time
	took      atomic.Int64 // ns until the series were there
	series    atomic.Int64
	samples   atomic.Int64 // that were read of them, after the merge
}

// Record returns a set that is recorded while it is read. done is told when all has
// been recorded of how long it took.
func (t *FetchTrace) Record(set storage.SeriesSet, done *sync.WaitGroup) storage.SeriesSet {
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
	trace *FetchTrace
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
	trace *FetchTrace
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
	trace   *FetchTrace
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
func (t *Trace) fetched(p *servergroup.Piece) []Fetch {
	if t == nil {
		return nil
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	var out []Fetch
	for _, f := range t.fetches[p] {
		out = append(out, Fetch{
			Selector: transport.Selector(f.selection.Matchers), Milliseconds: milliseconds(time.Duration(f.took.Load())),
			Series: f.series.Load(), Samples: f.samples.Load(),
		})
	}
	return out
}

// late returns the last n fetches for the query itself: those of info().
func (t *Trace) late(n int) []*FetchTrace {
	if n == 0 {
		return nil
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	all := t.fetches[nil]
	return all[len(all)-n:]
}

// piecesOf explains what a partition's share of a part was divided into, and
// why it was not answered, if it was not.
func (t *Trace) piecesOf(p *plan.Part, partition *servergroup.Partition) (out []Piece, failed string) {
	t.mtx.Lock()
	pieces, err := t.chosen[asked{p, partition}], t.errs[asked{p, partition}]
	t.mtx.Unlock()
	for _, piece := range pieces {
		out = append(out, t.pieceOf(p, piece))
	}
	if err != nil {
		failed = err.Error()
	}
	return out, failed
}

func (t *Trace) pieceOf(p *plan.Part, piece *servergroup.Piece) Piece {
	out := Piece{Steps: stepsOf(piece.Steps), Replica: piece.Replica(), Why: piece.Why, Execution: Remotely, Fetches: t.fetched(piece)}
	if len(piece.Turns) > 1 {
		for _, turn := range piece.Turns {
			out.Turns = append(out.Turns, stepsOf(turn))
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
	if out.Local = seen.local; out.Local != "" {
		out.Execution = Locally
		return out
	}
	if seen.by != piece.Replica() {
		out.AnsweredBy = seen.by
	}
	out.Text, _ = p.TextFor(piece.Matchers)
	return out
}
