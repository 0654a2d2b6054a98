package promjson

import (
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxToken is the longest string or number, in bytes.
	maxToken = 1 << 20
	// maxDepth is how deep values that are skipped may be nested.
	maxDepth = 100
)

// consume consumes white space and then c. what describes c in the error.
func (d *decoder) consume(c byte, what string) error {
	if got, ok := d.token(); !ok || got != c {
		return d.expected(what)
	}
	d.i++
	return nil
}

// more consumes a comma, or the end of all elements. It reports whether another element
// follows.
func (d *decoder) more(end byte, what string) (bool, error) {
	switch c, ok := d.token(); {
	case ok && c == ',':
		d.i++
		return true, nil
	case ok && c == end:
		d.i++
		return false, nil
	default:
		return false, d.expected(what)
	}
}

// object reads an object and calls f at the value of each known key. Other keys are skipped. A
// known key that occurs twice is an error.
func (d *decoder) object(known []string, f func(key string) error) error {
	var seen uint
	return d.pairs(func() error {
		for i, k := range known {
			if string(d.tok) != k {
				continue
			}
			if seen&(1<<i) != 0 {
				return errorAt(d.offset(), "expected the key %q only once", k)
			}
			seen |= 1 << i
			return f(k)
		}
		return d.skip(0)
	})
}

// pairs reads an object and calls f at each value; d.tok is the key.
func (d *decoder) pairs(f func() error) error {
	if err := d.consume('{', "an object"); err != nil {
		return err
	}
	if c, ok := d.token(); ok && c == '}' {
		d.i++
		return nil
	}
	for more := true; more; {
		var err error
		if d.tok, err = d.text(d.tok[:0], "a key"); err != nil {
			return err
		}
		if err = d.consume(':', "':'"); err != nil {
			return err
		}
		if err = f(); err != nil {
			return err
		}
		if more, err = d.more('}', "',' or '}'"); err != nil {
			return err
		}
	}
	return nil
}

// array reads an array and calls f at each element. A null is an empty array.
func (d *decoder) array(what string, f func() error) error {
	if null, err := d.null(); null || err != nil {
		return err
	}
	if err := d.consume('[', what); err != nil {
		return err
	}
	return d.elements(f)
}

// elements is array after the opening bracket.
func (d *decoder) elements(f func() error) error {
	if c, ok := d.token(); ok && c == ']' {
		d.i++
		return nil
	}
	for more := true; more; {
		err := f()
		if err != nil {
			return err
		}
		if more, err = d.more(']', "',' or ']'"); err != nil {
			return err
		}
	}
	return nil
}

// null consumes a null if there is one.
func (d *decoder) null() (bool, error) {
	if c, ok := d.token(); !ok || c != 'n' {
		return false, nil
	}
	return true, d.literal("null")
}

func (d *decoder) literal(word string) error {
	for i := range len(word) {
		if c, ok := d.peek(); !ok || c != word[i] {
			return d.expected(word)
		}
		d.i++
	}
	return nil
}

// skip reads a value of any kind and drops it.
func (d *decoder) skip(depth int) error {
	if depth > maxDepth {
		return errorAt(d.offset(), "expected at most %d levels of values", maxDepth)
	}
	inner := func() error { return d.skip(depth + 1) }
	c, ok := d.token()
	switch {
	case !ok:
		return d.expected("a value")
	case c == '{':
		return d.pairs(inner)
	case c == '[':
		return d.array("an array", inner)
	case c == '"':
		var err error
		d.tok, err = d.text(d.tok[:0], "a string")
		return err
	case c == 't':
		return d.literal("true")
	case c == 'f':
		return d.literal("false")
	case c == 'n':
		return d.literal("null")
	default:
		return d.number("a value")
	}
}

// number reads a number into d.tok.
func (d *decoder) number(what string) error {
	d.tok = d.tok[:0]
	c, ok := d.token()
	if ok && c == '-' {
		d.take()
		c, ok = d.peek()
	}
	if ok && c == '0' {
		d.take()
	} else if err := d.digits(what); err != nil {
		return err
	}
	if c, ok = d.peek(); ok && c == '.' {
		d.take()
		if err := d.digits("a digit"); err != nil {
			return err
		}
		c, ok = d.peek()
	}
	if !ok || c != 'e' && c != 'E' {
		return nil
	}
	d.take()
	if c, ok = d.peek(); ok && (c == '+' || c == '-') {
		d.take()
	}
	return d.digits("a digit")
}

// digits takes one or more digits.
func (d *decoder) digits(what string) error {
	for n := 0; ; n++ {
		c, ok := d.peek()
		if !ok || c < '0' || c > '9' {
			if n == 0 {
				return d.expected(what)
			}
			return nil
		}
		if len(d.tok) >= maxToken {
			return d.tooLong()
		}
		d.take()
	}
}

// take moves the byte that peek has returned to d.tok.
func (d *decoder) take() {
	d.tok = append(d.tok, d.buf[d.i])
	d.i++
}

func (d *decoder) tooLong() error {
	return errorAt(d.offset(), "expected a token of at most %d bytes", maxToken)
}

// text reads a string and appends it to dst. As in encoding/json, bytes that
// are not UTF-8 and halves of surrogate pairs become U+FFFD.
func (d *decoder) text(dst []byte, what string) ([]byte, error) {
	if err := d.consume('"', what); err != nil {
		return dst, err
	}
	start, high := len(dst), byte(0)
	for {
		j := d.i
		for ; j < d.n; j++ {
			c := d.buf[j]
			if c == '"' || c == '\\' || c < ' ' {
				break
			}
			high |= c
		}
		dst = append(dst, d.buf[d.i:j]...)
		d.i = j
		if len(dst)-start > maxToken {
			return dst, d.tooLong()
		}
		switch c, ok := d.peek(); {
		case ok && c == '"':
			d.i++
			if high >= utf8.RuneSelf && !utf8.Valid(dst[start:]) {
				dst = repairUTF8(dst, start)
			}
			return dst, nil
		case ok && c == '\\':
			var err error
			if dst, err = d.escapes(dst, start); err != nil {
				return dst, err
			}
		case !ok || c < ' ':
			return dst, d.expected("the end of the string")
		}
	}
}

// escapes reads consecutive escape sequences and appends the characters that they stand for to
// dst. It starts at a backslash in the string that began at dst[start].
func (d *decoder) escapes(dst []byte, start int) ([]byte, error) {
	half := rune(0) // the first half of a surrogate pair that is not complete yet
	for {
		c, ok := d.peek()
		if !ok || c != '\\' {
			break
		}
		if len(dst)-start > maxToken {
			return dst, d.tooLong()
		}
		d.i++
		r, err := d.escape()
		if err != nil {
			return dst, err
		}
		if half != 0 {
			pair := utf16.DecodeRune(half, r.code)
			half = 0
			if r.utf16 && pair != utf8.RuneError {
				dst = utf8.AppendRune(dst, pair)
				continue
			}
			dst = utf8.AppendRune(dst, utf8.RuneError)
		}
		if r.utf16 && r.code >= 0xd800 && r.code < 0xdc00 {
			half = r.code
			continue
		}
		dst = utf8.AppendRune(dst, r.code)
	}
	if half != 0 {
		dst = utf8.AppendRune(dst, utf8.RuneError)
	}
	return dst, nil
}

// escaped is one escape sequence: a character, or a unit of UTF-16.
type escaped struct {
	code  rune
	utf16 bool
}

// escape reads an escape sequence after its backslash.
func (d *decoder) escape() (escaped, error) {
	const short, means = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	c, ok := d.peek()
	if ok && c == 'u' {
		d.i++
		return d.hex()
	}
	for i := range len(short) {
		if ok && c == short[i] {
			d.i++
			return escaped{code: rune(means[i])}, nil
		}
	}
	return escaped{}, d.expected("an escape sequence")
}

// hex reads the four digits of \uXXXX.
func (d *decoder) hex() (escaped, error) {
	r := escaped{utf16: true}
	for range 4 {
		c, ok := d.peek()
		switch {
		case !ok:
			return r, d.expected("a hexadecimal digit")
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return r, d.expected("a hexadecimal digit")
		}
		r.code = r.code<<4 | rune(c)
		d.i++
	}
	return r, nil
}

// repairUTF8 replaces the bytes of dst[start:] that are not UTF-8.
func repairUTF8(dst []byte, start int) []byte {
	return append(dst[:start], string([]rune(string(dst[start:])))...)
}
