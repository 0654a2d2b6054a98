package promjson

import (
	"errors"
	"fmt"
	"io"
)

const (
	windowSize = 64 << 10
	// emptyReads is how often a reader may return neither a byte nor an error.
	emptyReads = 100
)

// window is the part of the input that is in memory: buf[i:n] is read from r
// but not consumed.
type window struct {
	r    io.Reader
	buf  [windowSize]byte
	i, n int
	base int64 // offset of buf[0] in the input, in bytes
	err  error // what r returned; io.EOF at a regular end
}

func (w *window) reset(r io.Reader) {
	w.r, w.i, w.n, w.base, w.err = r, 0, 0, 0, nil
}

// offset is how many bytes were consumed.
func (w *window) offset() int64 { return w.base + int64(w.i) }

// fill reads more input behind what is there, which moves to the front. It
// reports false if nothing more comes, or nothing more fits.
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

// peek returns the next byte without consuming it; ok is false at the end.
func (w *window) peek() (c byte, ok bool) {
	if w.i == w.n && !w.fill() {
		return 0, false
	}
	return w.buf[w.i], true
}

// token is peek after white space was consumed.
func (w *window) token() (c byte, ok bool) {
	for {
		c, ok = w.peek()
		if !ok || c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c, ok
		}
		w.i++
	}
}

// expected returns the error for input that is not what the decoder needs at
// the byte where it is.
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

// errorAt is for input that is well-formed JSON but not an answer.
func errorAt(offset int64, format string, args ...any) error {
	return fmt.Errorf("promjson: byte %d: "+format, append([]any{offset}, args...)...)
}
