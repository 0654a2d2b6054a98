package answer

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/prometheus/prometheus/util/annotations"
)

// annotation is an annotation of a part. Its position in the query is part of its text only
// once it is shown, as with upstream's: annotations that differ in their positions alone are
// merged into one.
type annotation struct {
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

// At returns the text of an annotation without its position, and the position in the query as "line:column". ok
// is false if it has none, or is none of Positioned or Annotation.
func At(err error) (text, at string, ok bool) {
	a, is := err.(*annotation)
	if !is || a.at == (position{}) {
		return "", "", false
	}
	return a.text, a.at.String(), true
}

// Annotation makes an annotation of a text and a position, as At returns them.
func Annotation(text, at string, kind error) error {
	return newAnnotation(fmt.Sprintf("%s (%s)", text, at), kind, nil)
}

// newAnnotation makes an annotation of a text that may end with a position. positions are the
// positions in the query by those in the text that was evaluated.
func newAnnotation(text string, kind error, positions map[string]string) *annotation {
	m := atEnd.FindStringSubmatch(text)
	if m == nil {
		return &annotation{text: text, kind: kind}
	}
	at := m[2] + ":" + m[3]
	if own, ok := positions[at]; ok {
		at = own
	}
	a := &annotation{text: m[1], kind: kind}
	_, _ = fmt.Sscanf(at, "%d:%d", &a.at.line, &a.at.column)
	return a
}

func (a *annotation) Error() string {
	if !a.shown || a.at == (position{}) {
		return a.text
	}
	return fmt.Sprintf("%s (%s)", a.text, a.at)
}

func (a *annotation) Unwrap() error { return a.kind }

// SetQuery implements the interface that upstream's annotations have. The position is shown
// from now on.
func (a *annotation) SetQuery(string) {
	if !a.shown {
		a.shown = true
	}
}

// Merge implements the interface that upstream's annotations have. It keeps the annotation
// that the engine comes to last.
func (a *annotation) Merge(other error) error {
	if o, ok := other.(*annotation); ok && a.at.before(o.at) {
		return o
	}
	return a
}

// Positioned converts the annotations of an evaluation, so that they are merged with those of others: of other
// parts of the query, or of other steps. Annotations that count something stay as they are.
func Positioned(ws annotations.Annotations, query string) annotations.Annotations {
	var out annotations.Annotations
	for text, err := range ws {
		if told, ok := err.(interface{ SetQuery(query string) }); ok {
			told.SetQuery(query)
			a := newAnnotation(err.Error(), errors.Unwrap(err), nil)
			told.SetQuery("")
			if a.text == text {
				err = a
			}
		}
		out.Add(err)
	}
	return out
}

// Freeze fixes the texts of annotations, for concurrent readers: printing one of upstream's
// annotations writes the query into it.
func Freeze(ws annotations.Annotations) {
	for key, err := range ws {
		if told, ok := errors.AsType[interface {
			SetQuery(query string)
			error
		}](err); ok {
			ws[key] = &annotation{text: err.Error(), kind: errors.Unwrap(told), shown: true}
		}
	}
}
