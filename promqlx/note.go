package promqlx

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/prometheus/prometheus/util/annotations"
)

// note is an annotation of a part. As upstream's, it is known by its text, and tells its
// position in the query only when it is shown: of those that differ in nothing else, one
// is shown.
type note struct {
	text  string
	at    position
	kind  error // annotations.PromQLInfo or PromQLWarning
	shown bool
}

// position is a line and a column, from 1; the zero value is none.
type position struct{ line, column int }

func (p position) before(o position) bool {
	return p.line < o.line || p.line == o.line && p.column < o.column
}

func (p position) String() string { return fmt.Sprintf("%d:%d", p.line, p.column) }

var atEnd = regexp.MustCompile(`^(.*) \((\d+):(\d+)\)$`)

// newNote is the annotation of an answer. positions are those in the query, by those in
// what was evaluated.
func newNote(text string, kind error, positions map[string]string) *note {
	m := atEnd.FindStringSubmatch(text)
	if m == nil {
		return &note{text: text, kind: kind}
	}
	at := m[2] + ":" + m[3]
	if own, ok := positions[at]; ok {
		at = own
	}
	n := &note{text: m[1], kind: kind}
	_, _ = fmt.Sscanf(at, "%d:%d", &n.at.line, &n.at.column)
	return n
}

func (n *note) Error() string {
	if !n.shown || n.at == (position{}) {
		return n.text
	}
	return fmt.Sprintf("%s (%s)", n.text, n.at)
}

func (n *note) Unwrap() error { return n.kind }

// SetQuery implements what upstream wants of annotations: from now on the note is shown.
func (n *note) SetQuery(string) {
	if !n.shown {
		n.shown = true
	}
}

// Merge implements what upstream wants of annotations: of two it keeps the one that the
// engine comes to last.
func (n *note) Merge(other error) error {
	if o, ok := other.(*note); ok && n.at.before(o.at) {
		return o
	}
	return n
}

// placed makes notes of the annotations of an evaluation here, so that those of several
// are merged alike. Those that count stay as they are.
func (x *execution) placed(ws annotations.Annotations) annotations.Annotations {
	var out annotations.Annotations
	for text, err := range ws {
		if told, ok := err.(interface{ SetQuery(query string) }); ok {
			told.SetQuery(x.text)
			n := newNote(err.Error(), errors.Unwrap(err), nil)
			told.SetQuery("")
			if n.text == text {
				err = n
			}
		}
		out.Add(err)
	}
	return out
}
