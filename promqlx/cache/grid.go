// Package cache keeps answers to range queries in blocks, and puts answers together of blocks that were kept
// and of what was evaluated anew.
//
// A Grid divides the time of all queries with the same step and phase into blocks, at absolute times: a block
// does not depend on the query that made it. A Key says what an answer is of. A block is encoded to bytes,
// which a Store keeps, in this process or in others.
//
// The same store keeps answers to lookups of series, and of names and values of labels, by the hour and the day.
package cache

// Grid is the steps of all range queries with one step and one phase, divided into blocks.
type Grid struct {
	Step  int64 // ms
	Phase int64 // ms, from 0 to Step-1: what is left of a step's time
}

// blockSteps is how many steps a block has. Blocks are looked up and decoded one by one, and what is not in
// whole blocks is evaluated each time: the fewer steps, the more of the former, and the less of the latter.
const blockSteps = 32

// GridOf returns the grid that has a step at start (ms).
func GridOf(start, step int64) Grid {
	return Grid{Step: step, Phase: ((start % step) + step) % step}
}

// Block returns the number of the block that has the step at t (ms).
func (g Grid) Block(t int64) int64 { return floorDiv(g.index(t), blockSteps) }

// Begin is the time of the first step of a block (ms).
func (g Grid) Begin(block int64) int64 { return g.Phase + block*blockSteps*g.Step }

// End is the time of the last step of a block (ms).
func (g Grid) End(block int64) int64 { return g.Begin(block+1) - g.Step }

// index returns the number of the step at t (ms).
func (g Grid) index(t int64) int64 { return floorDiv(t-g.Phase, g.Step) }

// floor returns the time of the last step at t or before it (ms).
func (g Grid) floor(t int64) int64 { return g.Phase + g.index(t)*g.Step }

// floorDiv is a / b, rounded down.
func floorDiv(a, b int64) int64 {
	n := a / b
	if a%b < 0 {
		n--
	}
	return n
}
