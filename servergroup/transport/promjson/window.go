package promjson

import (
	"errors"
	"fmt"
	"io"
)

const (
	windowSize = 64 << 10
	// emptyReads is how often in a row a reader may return neither a byte nor an error.
	emptyReads = 100
)

// window is the part of the input that is in memory: buf[i:n] has been read from r but not
// consumed.
type window struct {
	r    io.Reader
	buf  [windowSize]byte
	i, n int
	base int64 // offset of buf[0] in the input, in bytes
	err  error // of r; io.EOF at a regular end
}

func (w *window) reset(r io.Reader) {
	w.r, w.i, w.n, w.base, w.err = r, 0, 0, 0, nil
}

// offset is the number of bytes that have been consumed.
func (w *window) offset() int64 { return w.base + int64(w.i) }

// fill moves the bytes that are not consumed to the front and reads more after them. It
// reports whether it has read any: not if the input is at its end or the window is full.
func (w *window) fill() bool {
	if w.err != nil {
		return false
	}
	if w.i > 0 {
		copy(w.buf[:], w.buf[w.i:w.n])
		w.base += int64(w.i)
		w.n -= w.i
		w.i = 0
	}
	if w.n == len(w.buf) {
		return false
	}
	for range emptyReads {
		n, err := w.r.Read(w.buf[w.n:])
		w.n += n
		w.err = err
		if n > 0 {
			return true
		}
		if err != nil {
			return false
		}
	}
	w.err = io.ErrNoProgress
	return false
}

// peek returns the next byte without consuming it. ok is false at the end.
func (w *window) peek() (c byte, ok bool) {
	if w.i == w.n && !w.fill() {
		return 0, false
	}
	return w.buf[w.i], true
}

// token consumes white space and returns the next byte as peek does.
func (w *window) token() (c byte, ok bool) {
	for {
		c, ok = w.peek()
		if !ok || c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c, ok
		}
		w.i++
	}
}

// expected returns the error for a byte, or an end, that is not what the decoder expects next.
func (w *window) expected(what string) error {
	_, ok := w.peek()
	switch {
	case ok:
		return fmt.Errorf("promjson: byte %d: expected %s, found %q", w.offset(), what, w.buf[w.i:w.i+1])
	case errors.Is(w.err, io.EOF):
		return fmt.Errorf("promjson: byte %d: expected %s: %w", w.offset(), what, io.ErrUnexpectedEOF)
	default:
		return fmt.Errorf("promjson: byte %d: expected %s: %w", w.offset(), what, w.err)
	}
}

// errorAt returns the error for input that is well-formed JSON but not a response.
func errorAt(offset int64, format string, args ...any) error {
	return fmt.Errorf("promjson: byte %d: "+format, append([]any{offset}, args...)...)
}
