package promqlx

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/promqlx/answer"
	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// evaluation is the evaluation of a part over one piece of a partition.
type evaluation struct {
	*execution
	part     *plan.Part
	piece    *partition.Piece
	recorded *explain.PieceTrace // nil if the query is not traced
}

// evaluatePiece evaluates a part over a piece.
func (x *execution) evaluatePiece(ctx context.Context, p *plan.Part, piece *partition.Piece) (answer.Answer, error) {
	e := &evaluation{execution: x, part: p, piece: piece, recorded: x.trace.Piece(piece)}
	a, err := e.evaluate(ctx)
	series, samples := a.Size()
	e.recorded.Answered(a.By, series, samples)
	return a, err
}

// evaluate has the piece's replica evaluate the part if that is possible. If it is not, it
// evaluates the part locally.
func (e *evaluation) evaluate(ctx context.Context) (answer.Answer, error) {
	if len(e.piece.Turns) > 1 && !e.part.IsSelectorAtItsSteps() && e.piece.Annotated(e.part.Key()) {
		return e.evaluateTurns(ctx)
	}
	local, err := e.piece.Local(ctx, e.part.IsSelector())
	if err == nil && local == "" {
		var a answer.Answer
		if a, err = e.evaluateRemotely(ctx); err == nil {
			return e.verifyAtTurns(ctx, a)
		}
	}
	e.recorded.Local(local, err)
	if err := context.Cause(ctx); err != nil {
		return answer.Answer{}, err
	}
	if e.part.IsSelectorAtItsSteps() {
		return e.resample()
	}
	a, err := e.evaluateLocally(ctx)
	if err != nil {
		return answer.Answer{}, err
	}
	return e.verifyAtTurns(ctx, a)
}

// verifyAtTurns returns the answer at the turns of the piece, if it passes answer.Verify. An
// annotation may be about steps between the turns: each turn is then evaluated by itself.
func (e *evaluation) verifyAtTurns(ctx context.Context, a answer.Answer) (answer.Answer, error) {
	if len(e.piece.Turns) == 1 {
		return a, a.Verify(e.part)
	}
	if len(a.Warnings) == 0 {
		a.Keep(e.piece.Turns)
		return a, a.Verify(e.part)
	}
	e.piece.MarkAnnotated(e.part.Key())
	return e.evaluateTurns(ctx)
}

// evaluateTurns evaluates each turn of the piece by itself.
func (e *evaluation) evaluateTurns(ctx context.Context) (answer.Answer, error) {
	var all answer.Answer
	for _, turn := range e.piece.PerTurn() {
		one, err := e.evaluatePiece(ctx, e.part, turn)
		if err != nil {
			return answer.Answer{}, err
		}
		all.Add(one)
	}
	return all, nil
}

// atStart is how annotations from within a subquery end. The engine gives them the position
// at which the text of the part begins, so that the position in the query is not known.
const atStart = "(1:1)"

// evaluateRemotely has the piece's replica evaluate the part.
func (e *evaluation) evaluateRemotely(ctx context.Context) (answer.Answer, error) {
	text, err := e.part.TextFor(e.piece.Labels(), e.piece.Matchers)
	if err != nil {
		return answer.Answer{}, err
	}
	got, err := e.piece.Evaluate(ctx, e.part.Key(), text, e.part.Carries)
	if err != nil {
		return answer.Answer{}, err
	}
	unplaced := func(annotation string) bool { return strings.HasSuffix(annotation, atStart) }
	if slices.ContainsFunc(slices.Concat(got.Infos, got.Warnings), unplaced) && e.part.HasSubquery() {
		return answer.Answer{}, plan.ErrInexpressible
	}
	return answer.Remote(got, func() map[string]string { return e.part.Positions(text, e.text, e.engine.parser) }), nil
}

// evaluateLocally evaluates the part over the piece's series.
func (e *evaluation) evaluateLocally(ctx context.Context) (answer.Answer, error) {
	return e.evaluateOver(ctx, e.part, e.piece.Steps, func(leaves []plan.Leaf) storage.Querier {
		return &querier{execution: e.execution, piece: e.piece, leaves: leaves}
	})
}

// evaluateOver evaluates a part over the series of a querier for the leaves of the part.
func (x *execution) evaluateOver(ctx context.Context, p *plan.Part, st transport.Steps, querierFor func([]plan.Leaf) storage.Querier) (answer.Answer, error) {
	return x.evaluateAt(ctx, p.Copy(), st, func(stmt *parser.EvalStmt) storage.Querier {
		return querierFor(plan.Leaves(stmt, x.engine.subqueryStep))
	})
}

// evaluateAt evaluates an expression, which it may change, at some steps.
func (x *execution) evaluateAt(ctx context.Context, e parser.Expr, st transport.Steps, querierFor func(*parser.EvalStmt) storage.Querier) (answer.Answer, error) {
	var from storage.Querier
	queryable := storage.QueryableFunc(func(int64, int64) (storage.Querier, error) { return from, nil })
	opts := promql.NewPrometheusQueryOpts(false, ms(st.Lookback))
	q, err := x.engine.parts.NewRangeQuery(ctx, queryable, opts, "0", time.UnixMilli(st.Start), time.UnixMilli(st.End), ms(st.Step))
	if err != nil {
		return answer.Answer{}, fmt.Errorf("evaluating a part: %w", err)
	}
	defer q.Close()
	stmt := q.Statement().(*parser.EvalStmt)
	stmt.Expr = e
	from = querierFor(stmt)
	res := q.Exec(ctx)
	if res.Err != nil {
		return answer.Answer{}, partError(res.Err)
	}
	m, err := res.Matrix()
	if err != nil {
		return answer.Answer{}, fmt.Errorf("evaluating a part: %w", err)
	}
	return answer.Local(m, res.Warnings, x.text)
}

// resample evaluates a part that is a selector at its own steps. It needs no engine: the
// piece's series stay compressed until the query reads them.
func (e *evaluation) resample() (answer.Answer, error) {
	st := e.piece.Steps
	leaves := plan.Leaves(&parser.EvalStmt{
		Expr: e.part.Expr, Start: time.UnixMilli(st.Start), End: time.UnixMilli(st.End), Interval: ms(st.Step), LookbackDelta: ms(st.Lookback),
	}, e.engine.subqueryStep)
	sets := make([]storage.SeriesSet, len(e.piece.Turns))
	for i := range sets { // begun before the first is read, so that the series are merged once
		sets[i] = e.fetches.series(leaves[0].Selector.Selection, e.piece)
	}
	var out answer.Answer
	for i, set := range sets {
		if err := out.AddResampled(set, e.piece.Turns[i], e.recorded.Read); err != nil {
			return answer.Answer{}, err
		}
	}
	return out, nil
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
