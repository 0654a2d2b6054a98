// Package envelope decodes the responses of those endpoints of the HTTP API that return labels,
// series, metadata, rules and the like
// (https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview).
//
// encoding/json decodes a value that is in memory as a whole, and may make hundreds of bytes of
// three, such as a rule group of `{},`. So what has elements is read here element by element, as a
// stream, into what encoding/json would make of it; it decodes the elements that have none. What is
// made is counted by a meter before that.
package envelope

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/oneprom/oneprom/servergroup/transport/meter"
)

// What is made of a response, in bytes.
const (
	// textCopies is how often a text is held: as it was decoded, as it is shown, and twice in the
	// answer that is made of it.
	textCopies = 4
	// elementCopies is how often an element is held: it is merged with those of other servers.
	elementCopies = 2
	// entryBytes is what an entry of a map takes besides its key and value.
	entryBytes = 64
	// buffered is what a byte of the input takes in the buffers of encoding/json.
	buffered = 4
	// unknownBytes is what a byte of a value takes at most that another package decodes.
	unknownBytes = 48
)

// Response is what a response has besides its data.
type Response struct {
	Status    string   `json:"status"`
	ErrorType string   `json:"errorType"`
	Error     string   `json:"error"`
	Warnings  []string `json:"warnings"`
	Infos     []string `json:"infos"`
	IsPartial bool     `json:"isPartial"` // VictoriaMetrics
	// HasData reports whether there are data, even if they are null.
	HasData bool `json:"-"`
}

// FormatError is a body that is not what its content type promises.
type FormatError struct{ msg string }

func (e *FormatError) Error() string { return e.msg }

func unexpected(format string, args ...any) error {
	return &FormatError{"unexpected data: " + fmt.Sprintf(format, args...)}
}

// Decode reads one response to the end of r, and its data into the value that data points to. The
// error is a *FormatError, or that of r or m.
func Decode(r io.Reader, m *meter.Meter, data any) (*Response, error) {
	d := &decoder{r: r, meter: m, types: map[reflect.Type]map[string][]int{}}
	d.json = json.NewDecoder(d)
	var e Response
	into := reflect.ValueOf(&e).Elem()
	err := d.object(func(key string) error {
		if strings.EqualFold(key, "data") {
			e.HasData = true
			_, err := d.value(reflect.ValueOf(data).Elem())
			return err
		}
		return d.field(into, key)
	})
	if err == nil {
		if _, err = d.json.Token(); err == io.EOF {
			return &e, m.Flush()
		} else if err == nil {
			err = unexpected("more after the end, at byte %d", d.json.InputOffset())
		}
	}
	return nil, d.cause(err)
}

// cause returns the error to return for err. What is no other's is one of JSON.
func (d *decoder) cause(err error) error {
	var format *FormatError
	switch {
	case d.failed != nil:
		return d.failed
	case errors.As(err, &format):
		return err
	}
	return &FormatError{"broken JSON: " + err.Error()}
}

type decoder struct {
	r     io.Reader
	json  *json.Decoder
	meter *meter.Meter
	types map[reflect.Type]map[string][]int // the fields of structs by their names in JSON

	failed  error           // of r or meter
	came    int64           // bytes of r
	buffer  meter.Scratch   // those that are not decoded yet
	raw     json.RawMessage // scratch: a value that encoding/json decodes
	foreign meter.Scratch   // what it takes meanwhile
}

// Read counts what encoding/json reads.
func (d *decoder) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	d.came += int64(n)
	if err != nil && err != io.EOF {
		return n, d.fail(err)
	}
	if failed := d.fail(cmp.Or(d.meter.Pass(n), d.buffer.Use(d.meter, buffered*int(d.came-d.json.InputOffset())))); failed != nil {
		return n, failed
	}
	return n, err
}

// fail remembers and returns the first error of the body or the meter.
func (d *decoder) fail(err error) error {
	d.failed = cmp.Or(d.failed, err)
	return d.failed
}

// keep counts what is held until the query ends.
func (d *decoder) keep(bytes int) error { return d.fail(d.meter.Keep(bytes)) }

// open reads the beginning of an object or array. It may be null instead.
func (d *decoder) open(want json.Delim) (null bool, err error) {
	t, err := d.next()
	if err != nil || t == nil {
		return t == nil, err
	}
	if t != want {
		return false, unexpected("%v instead of %v before byte %d", kindOf(t), kindOf(want), d.json.InputOffset())
	}
	return false, nil
}

// next returns the next token. The end of the input is an error.
func (d *decoder) next() (json.Token, error) {
	t, err := d.json.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return t, err
}

func kindOf(t json.Token) string {
	switch t {
	case json.Delim('{'):
		return "an object"
	case json.Delim('['):
		return "an array"
	}
	return fmt.Sprintf("a %T", t)
}

// object reads an object and calls f for each key, which reads the value.
func (d *decoder) object(f func(key string) error) error {
	if null, err := d.open('{'); null || err != nil {
		return err
	}
	return d.members(f)
}

// members is object after the opening brace.
func (d *decoder) members(f func(key string) error) error {
	for d.json.More() {
		t, err := d.next()
		if err != nil {
			return err
		}
		if err := f(t.(string)); err != nil {
			return err
		}
	}
	_, err := d.next()
	return err
}

// field reads the value of a key into the field of a struct, or passes it over.
func (d *decoder) field(v reflect.Value, key string) error {
	path, known := d.fields(v.Type())[strings.ToLower(key)]
	if !known {
		_, err := d.decode(nil)
		return err
	}
	f, err := v.FieldByIndexErr(path)
	if err != nil {
		return err
	}
	f.SetZero()
	_, err = d.value(f)
	return err
}

// fields returns the fields of a struct by their names in JSON, in small letters.
func (d *decoder) fields(t reflect.Type) map[string][]int {
	if names, ok := d.types[t]; ok {
		return names
	}
	names := map[string][]int{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || f.Anonymous && name == "" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		names[strings.ToLower(name)] = f.Index
	}
	d.types[t] = names
	return names
}

// value reads a value into v. null reports whether it is null, which leaves v alone.
func (d *decoder) value(v reflect.Value) (null bool, err error) {
	if _, custom := reflect.TypeAssert[json.Unmarshaler](v.Addr()); custom {
		return d.decode(v.Addr().Interface())
	}
	switch v.Kind() {
	case reflect.Pointer:
		if err := d.keep(int(v.Type().Elem().Size())); err != nil {
			return false, err
		}
		to := reflect.New(v.Type().Elem())
		if null, err = d.value(to.Elem()); !null && err == nil {
			v.Set(to)
		}
		return null, err
	case reflect.Struct:
		if null, err := d.open('{'); null || err != nil {
			return null, err
		}
		return false, d.members(func(key string) error { return d.field(v, key) })
	case reflect.Slice:
		if null, err := d.open('['); null || err != nil {
			return null, err
		}
		return false, d.elements(v)
	case reflect.Map:
		if null, err := d.open('{'); null || err != nil {
			return null, err
		}
		return false, d.entries(v)
	case reflect.String:
		return d.text(v)
	}
	return d.decode(v.Addr().Interface())
}

// elements reads an array after its opening bracket.
func (d *decoder) elements(v reflect.Value) error {
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	size := int(v.Type().Elem().Size())
	for n := 0; d.json.More(); n++ {
		if n == v.Cap() {
			room := max(4, n)
			if err := d.keep(elementCopies * (n + room) * size); err != nil {
				return err
			}
			v.Grow(room)
		}
		v.SetLen(n + 1)
		if _, err := d.value(v.Index(n)); err != nil {
			return err
		}
	}
	_, err := d.next()
	return err
}

// entries reads an object into a map, after its opening brace.
func (d *decoder) entries(v reflect.Value) error {
	if v.Type().Key().Kind() != reflect.String {
		return fmt.Errorf("BUG: a map by %s", v.Type().Key())
	}
	v.Set(reflect.MakeMap(v.Type()))
	elem := v.Type().Elem()
	return d.members(func(key string) error {
		if err := d.keep(textCopies*len(key) + elementCopies*(int(elem.Size())+entryBytes)); err != nil {
			return err
		}
		to := reflect.New(elem).Elem()
		if _, err := d.value(to); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), to)
		return nil
	})
}

// text reads a string.
func (d *decoder) text(v reflect.Value) (null bool, err error) {
	t, err := d.next()
	if err != nil {
		return false, err
	}
	switch t := t.(type) {
	case nil:
		return true, nil
	case string:
		v.SetString(t)
		return false, d.keep(textCopies * len(t))
	}
	return false, unexpected("%s instead of a string before byte %d", kindOf(t), d.json.InputOffset())
}

// decode has encoding/json decode a value, or only checks it if to is nil. null reports whether the
// value is null.
func (d *decoder) decode(to any) (null bool, err error) {
	if err := d.json.Decode(&d.raw); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return false, err
	}
	if to == nil {
		return false, nil
	}
	each := unknownBytes
	if _, copied := to.(*json.RawMessage); copied {
		each = 1
	}
	if err := d.fail(d.foreign.Use(d.meter, (1+each)*len(d.raw))); err != nil {
		return false, err
	}
	if err := d.keep(textCopies * len(d.raw)); err != nil {
		return false, err
	}
	if err := json.Unmarshal(d.raw, to); err != nil {
		return false, unexpected("%v", err)
	}
	return string(d.raw) == "null", nil
}
