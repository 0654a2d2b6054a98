package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/promql"
)

const (
	// maxRuns is how many runs of steps of one query are evaluated: each costs requests of its own.
	maxRuns = 4
	// nearBlocks is how many blocks in between are evaluated again, rather than that there are two runs.
	nearBlocks = 2
	// maxAnnotatedRuns is how many runs are evaluated of a query that has annotations.
	maxAnnotatedRuns = 64
)

// Found is what is kept of the answer to a question.
type Found struct {
	Question
	grid      Grid
	key       string
	first     int64    // the number of the first block
	blocks    []*Block // from the first on; nil where there is none
	stale     []*Block // as blocks: those that are not used any more
	annotated bool     // whether answers to the question have had annotations
}

func newFound(q Question) *Found {
	f := &Found{Question: q, grid: GridOf(q.Start, q.Step)}
	f.End -= (q.End - q.Start) % q.Step
	f.key = fmt.Sprintf("%d %d %s", f.grid.Step, f.grid.Phase, q.Key)
	f.first = f.grid.Block(f.Start)
	f.blocks = make([]*Block, f.grid.Block(f.End)-f.first+1)
	f.stale = make([]*Block, len(f.blocks))
	return f
}

// storeKey is the key of a block in the store.
func (f *Found) storeKey(block int64) string {
	return hashed(fmt.Sprintf("%d block %d %s", version, block, f.key))
}

// annotatedKey is the key of the value that says that answers have annotations.
func (f *Found) annotatedKey() string { return hashed(fmt.Sprintf("%d annotated %s", version, f.key)) }

func hashed(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Run is some steps, from one to another one (ms).
type Run struct{ From, To int64 }

// wanted returns the steps of a block that the question asks for.
func (f *Found) wanted(block int64) Run {
	return Run{max(f.Start, f.grid.Begin(block)), min(f.End, f.grid.End(block))}
}

// kept returns the steps of a block, by its index, that are taken from it; ok is false if there are none. A
// block with annotations is used whole or not at all: one of them may be of a step that is not wanted.
func (f *Found) kept(i int) (run Run, ok bool) {
	b, wanted := f.blocks[i], f.wanted(f.first+int64(i))
	if b == nil || len(b.notes) > 0 && (b.From < wanted.From || b.To > wanted.To) {
		return Run{}, false
	}
	run = Run{max(wanted.From, b.From), min(wanted.To, b.To)}
	return run, run.From <= run.To
}

// Missing returns the runs of steps that have to be evaluated, in the order of time. Steps between runs that are
// near each other are evaluated again, unless annotations have to be told apart by block.
func (f *Found) Missing() (runs []Run) {
	miss := func(from, to int64) {
		if from <= to {
			runs = append(runs, Run{from, to})
		}
	}
	for i := range f.blocks {
		wanted := f.wanted(f.first + int64(i))
		if kept, ok := f.kept(i); ok {
			miss(wanted.From, kept.From-f.Step)
			miss(kept.To+f.Step, wanted.To)
		} else {
			miss(wanted.From, wanted.To)
		}
	}
	if f.annotated && len(runs) <= maxAnnotatedRuns {
		return runs
	}
	for i := 1; i < len(runs); {
		if f.between(runs[i-1], runs[i]) <= nearBlocks*blockSteps {
			runs = joinRuns(runs, i)
		} else {
			i++
		}
	}
	for len(runs) > maxRuns {
		nearest := 1
		for i := 2; i < len(runs); i++ {
			if f.between(runs[i-1], runs[i]) < f.between(runs[nearest-1], runs[nearest]) {
				nearest = i
			}
		}
		runs = joinRuns(runs, nearest)
	}
	return runs
}

// joinRuns makes one run of that at index i, the one before, and what is between them.
func joinRuns(runs []Run, i int) []Run {
	runs[i-1].To = runs[i].To
	return slices.Delete(runs, i, i+1)
}

// between is how many steps lie between two runs.
func (f *Found) between(a, b Run) int64 { return (b.From-a.To)/f.Step - 1 }

// Join returns the answer, of the blocks that were found and of the answers to the runs that were missing, and
// the annotations of the blocks. It fails if a block is broken.
func (f *Found) Join(runs []Run, answers []promql.Matrix) (promql.Matrix, []Note, error) {
	j := newJoined()
	var notes []Note
	for i, b := range f.blocks {
		kept, ok := f.kept(i)
		if !ok {
			continue
		}
		for len(runs) > 0 && runs[0].To < kept.From {
			j.addMatrix(answers[0], runs[0].From, runs[0].To)
			runs, answers = runs[1:], answers[1:]
		}
		if len(runs) > 0 && runs[0].From <= kept.From {
			continue // they are evaluated again
		}
		if err := j.addBlock(b, kept.From, kept.To); err != nil {
			return nil, nil, fmt.Errorf("block %d: %w", f.first+int64(i), err)
		}
		for _, n := range b.notes {
			if !slices.Contains(notes, n) {
				notes = append(notes, n)
			}
		}
	}
	for i, run := range runs {
		j.addMatrix(answers[i], run.From, run.To)
	}
	return j.result(), notes, nil
}

// Blocks returns how many blocks the answer has, and how many of them were found.
func (f *Found) Blocks() (all, found int) {
	for i := range f.blocks {
		if _, ok := f.kept(i); ok {
			found++
		}
	}
	return len(f.blocks), found
}

// Made returns when the oldest and the newest part of what was found was evaluated (ms); 0 if nothing was.
func (f *Found) Made() (oldest, newest int64) {
	for i, b := range f.blocks {
		if _, ok := f.kept(i); !ok {
			continue
		}
		if oldest == 0 || b.Made < oldest {
			oldest = b.Made
		}
		newest = max(newest, b.Made)
	}
	return oldest, newest
}

// Outcome is what was found of an answer.
type Outcome string

// The outcomes: all of it, some, and nothing.
const (
	Hit     Outcome = "hit"
	Partial Outcome = "partial"
	Miss    Outcome = "miss"
)

// Outcome returns what was found, if some runs are missing.
func (f *Found) Outcome(missing []Run) Outcome {
	switch {
	case len(missing) == 0:
		return Hit
	case len(missing) == 1 && missing[0] == Run{f.Start, f.End}:
		return Miss
	}
	return Partial
}
