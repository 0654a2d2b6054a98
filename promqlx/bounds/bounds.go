// Package bounds refuses queries that are nested too deep, or too long, before anyone parses
// them.
//
// Upstream's parser and engine call themselves for each level of a query, and look at the rest of
// it from each level again: a few megabytes of parentheses would exhaust the stack of the process,
// or keep a processor for hours. The bounds are on the text, so that they hold first.
package bounds

import (
	"fmt"

	"github.com/prometheus/prometheus/promql/parser"
)

const (
	// maxDepth is how many operators, and how many brackets, may be within one another.
	maxDepth = 2000
	// maxWords is how many words a query may have: names, numbers, strings, operators, brackets.
	maxWords = 100_000
)

// Error is the error of a query that exceeds a bound.
type Error struct{ reason string }

func (e *Error) Error() string { return e.reason }

// Parser returns a parser that refuses what Check refuses.
func Parser(p parser.Parser) parser.Parser { return bounded{p} }

type bounded struct{ parser.Parser }

// ParseExpr implements parser.Parser.
func (p bounded) ParseExpr(query string) (parser.Expr, error) {
	if err := Check(query); err != nil {
		return nil, err
	}
	return p.Parser.ParseExpr(query)
}

// Check returns an *Error for a query that exceeds a bound. It says nothing about queries that
// cannot be parsed.
func Check(query string) error {
	if len(query) <= maxDepth { // no word is shorter than a byte
		return nil
	}
	_, err := depthOf(query)
	return err
}

// depthOf returns how many operators are within one another, at most.
func depthOf(query string) (int, error) {
	var (
		s        = scan{levels: []level{{}}}
		lexer    = parser.Lex(query)
		item     parser.Item
		previous parser.ItemType
	)
	for words := 0; ; {
		lexer.NextItem(&item)
		if item.Typ == parser.EOF || item.Typ == parser.ERROR {
			break
		}
		if item.Typ == parser.COMMENT {
			continue
		}
		if words++; words > maxWords {
			return 0, &Error{fmt.Sprintf("the query is too long: it has more than %d words", maxWords)}
		}
		s.add(item.Typ, previous)
		previous = item.Typ
		if len(s.levels) > maxDepth+1 || s.deepest > maxDepth {
			return 0, tooDeep
		}
	}
	for len(s.levels) > 1 { // of a query that cannot be parsed
		s.close()
	}
	if s.top().end(); s.top().depth > maxDepth {
		return 0, tooDeep
	}
	return s.top().depth, nil
}

var tooDeep = &Error{fmt.Sprintf(
	"the query is nested too deep: more than %d operators, or brackets, within one another; a chain such as `a or b or ...` is nested, too", maxDepth)}

// scan finds out how deep operators are nested, without parsing. What it finds is hardly ever
// more than the truth, and never less than half of it.
type scan struct {
	levels  []level // of brackets that are open, from the outside
	deepest int     // of any level
}

// level is what is between two brackets, or two commas between them.
type level struct {
	// run counts operators of equal precedence that no looser one separates: each of these is
	// within the next. longest is the longest run so far.
	run, longest [precedences]int
	within       int // the depth of the deepest bracket
	depth        int // of what was between commas
}

// end ends what is between two commas.
func (l *level) end() {
	depth := l.within
	for _, n := range l.longest {
		depth += n
	}
	*l = level{depth: max(l.depth, depth)}
}

func (s *scan) top() *level { return &s.levels[len(s.levels)-1] }

// close ends a level.
func (s *scan) close() {
	if len(s.levels) == 1 {
		return // a bracket that was never opened
	}
	s.top().end()
	depth := s.top().depth
	s.levels = s.levels[:len(s.levels)-1]
	s.top().within = max(s.top().within, depth)
	s.deepest = max(s.deepest, depth)
}

// add adds a word after another.
func (s *scan) add(word, previous parser.ItemType) {
	switch word {
	case parser.LEFT_BRACKET: // what is before it is within it, too
		s.operator(unary)
		s.levels = append(s.levels, level{})
	case parser.LEFT_PAREN, parser.LEFT_BRACE:
		s.levels = append(s.levels, level{})
	case parser.RIGHT_PAREN, parser.RIGHT_BRACE, parser.RIGHT_BRACKET:
		s.close()
	case parser.COMMA:
		s.top().end()
	default:
		p, ok := precedence(word)
		if !ok || previous == parser.OFFSET || previous == parser.AT { // the sign of a time
			return
		}
		if (word == parser.ADD || word == parser.SUB) && !endsOperand(previous) {
			p = unary
		}
		s.operator(p)
	}
}

// operator adds an operator of a precedence.
func (s *scan) operator(p int) {
	l := s.top()
	l.run[p]++
	l.longest[p] = max(l.longest[p], l.run[p])
	clear(l.run[p+1:])
	s.deepest = max(s.deepest, l.longest[p])
}

// The precedences of operators, from the loosest.
const (
	unary       = 6
	precedences = unary + 1
)

// precedence returns how close an operator binds.
func precedence(word parser.ItemType) (int, bool) {
	switch word {
	case parser.LOR:
		return 0, true
	case parser.LAND, parser.LUNLESS:
		return 1, true
	case parser.EQLC, parser.NEQ, parser.LTE, parser.LSS, parser.GTE, parser.GTR, parser.TRIM_UPPER, parser.TRIM_LOWER:
		return 2, true
	case parser.ADD, parser.SUB:
		return 3, true
	case parser.MUL, parser.DIV, parser.MOD, parser.ATAN2:
		return 4, true
	case parser.POW:
		return 5, true
	}
	return 0, false
}

// endsOperand reports whether an operator after a word has an operand on its left.
func endsOperand(word parser.ItemType) bool {
	switch word {
	case 0, parser.COMMA, parser.LEFT_PAREN, parser.LEFT_BRACE, parser.LEFT_BRACKET, parser.BOOL:
		return false
	}
	_, operator := precedence(word)
	return !operator
}
