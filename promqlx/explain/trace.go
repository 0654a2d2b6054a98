package explain

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Trace records one execution of a plan: which pieces its parts were divided into, who
// answered them, and what was fetched. A nil Trace records nothing. A Trace is safe for
// concurrent use.
type Trace struct {
	mtx    sync.Mutex // guards all below
	chosen map[assignment][]*partition.Piece
	pieces map[*partition.Piece]*PieceTrace
	errs   map[assignment]error // of partitions that did not answer
	// fetches are the fetches for each piece, nil for the query itself. They are in the
	// order in which they began, which is that of the selectors.
	fetches map[*partition.Piece][]*FetchTrace
	// stretches are the traces of the plans of stretches.
	stretches map[*plan.Routed]*Trace
}

// assignment is a part that a partition is asked for.
type assignment struct {
	part      *plan.Part
	partition *partition.Partition
}

// NewTrace returns an empty trace.
func NewTrace() *Trace {
	return &Trace{
		chosen:  map[assignment][]*partition.Piece{},
		pieces:  map[*partition.Piece]*PieceTrace{},
		errs:    map[assignment]error{},
		fetches: map[*partition.Piece][]*FetchTrace{},

		stretches: map[*plan.Routed]*Trace{},
	}
}

// Of returns the trace of the plan of a stretch.
func (t *Trace) Of(stretch *plan.Routed) *Trace {
	if t == nil {
		return nil
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	if t.stretches[stretch] == nil {
		t.stretches[stretch] = NewTrace()
	}
	return t.stretches[stretch]
}

// Chose records the pieces that a partition's share of a part is divided into.
func (t *Trace) Chose(p *plan.Part, partition *partition.Partition, pieces []*partition.Piece) {
	if t == nil {
		return
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	t.chosen[assignment{p, partition}] = pieces
}

// Failed records why a partition did not answer a part. If err is nil, it does nothing.
func (t *Trace) Failed(p *plan.Part, partition *partition.Partition, err error) {
	if t == nil || err == nil {
		return
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	t.errs[assignment{p, partition}] = err
}

// Piece begins the record of a piece.
func (t *Trace) Piece(p *partition.Piece) *PieceTrace {
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
func (t *Trace) Fetch(p *partition.Piece, sel view.Selection) *FetchTrace {
	if t == nil {
		return nil
	}
	out := &FetchTrace{selection: sel, began: time.Now()}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	t.fetches[p] = append(t.fetches[p], out)
	return out
}

// PieceTrace records the evaluation of one piece. A nil PieceTrace records nothing. Only one
// goroutine may write it.
type PieceTrace struct {
	began   time.Time
	took    time.Duration // until the answer had arrived, or failed
	local   string        // why the piece was evaluated locally; "" if it was not
	series  int           // in the answer
	samples int           // in the answer: one for each step at which a series has a value
	by      string        // the URL of the replica that evaluated; "" if none did
}

// Local records why the piece is evaluated locally: the error, or else why.
func (t *PieceTrace) Local(why string, err error) {
	if t == nil {
		return
	}
	if t.local = why; err != nil {
		t.local = err.Error()
	}
}

// Answered records an answer: the URL of the replica that evaluated the piece, "" if none
// did, and the numbers of series and samples. Series that are resampled while they are read
// are recorded by Read instead.
func (t *PieceTrace) Answered(by string, series, samples int) {
	if t == nil {
		return
	}
	t.took, t.by, t.series, t.samples = time.Since(t.began), by, series, samples
}

// Read records a series of the answer that was resampled, with the number of its samples.
func (t *PieceTrace) Read(samples int) {
	if t == nil || samples == 0 {
		return
	}
	t.series++
	t.samples += samples
}

// pieceTrace returns the record of a piece, nil if there is none.
func (t *Trace) pieceTrace(p *partition.Piece) *PieceTrace {
	if t == nil {
		return nil
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	return t.pieces[p]
}

// FetchTrace records one fetch. A nil FetchTrace records nothing.
type FetchTrace struct {
	selection view.Selection
	began     time.Time
	took      atomic.Int64 // ns until the series had arrived
	series    atomic.Int64
	samples   atomic.Int64 // samples that were read, after the merge
}

// Record returns a set that is recorded while it is read. done counts the goroutine that
// records how long the fetch takes.
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

// tracedSet counts the series that are read.
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

// tracedSeries counts the samples that are read.
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

// fetched describes the fetches for a piece, nil for the query itself.
func (t *Trace) fetched(p *partition.Piece) []Fetch {
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

// lastFetches returns the last n fetches for the query itself. They are those of info().
func (t *Trace) lastFetches(n int) []*FetchTrace {
	if n == 0 {
		return nil
	}
	t.mtx.Lock()
	defer t.mtx.Unlock()
	all := t.fetches[nil]
	return all[len(all)-n:]
}

// piecesOf describes the pieces that a partition's share of a part was divided into. failed
// is the reason why it was not answered; "" if it was.
func (t *Trace) piecesOf(p *plan.Part, partition *partition.Partition) (out []Piece, failed string) {
	t.mtx.Lock()
	pieces, err := t.chosen[assignment{p, partition}], t.errs[assignment{p, partition}]
	t.mtx.Unlock()
	for _, piece := range pieces {
		out = append(out, t.pieceOf(p, piece))
	}
	if err != nil {
		failed = err.Error()
	}
	return out, failed
}

// pieceOf describes one piece.
func (t *Trace) pieceOf(p *plan.Part, piece *partition.Piece) Piece {
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
	seen := t.pieceTrace(piece)
	if seen == nil { // the query ended before the piece was evaluated
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
	out.Text, _ = p.TextFor(piece.Labels(), piece.Matchers)
	return out
}
