// Package promjson decodes answers of the query API of Prometheus,
// /api/v1/query and /api/v1/query_range, as a stream into columns. It knows
// that one shape of JSON and no other.
//
// The body is read through a window of fixed size and never held as a whole.
// Nothing of it is believed: an answer that is cut short, continues after its
// end, lacks its status or has samples out of order is an error, never a
// shorter answer.
//
// What JSON itself loses: the payload of a NaN (a stale marker cannot be
// written, so none is read), start timestamps, and parts of a native histogram;
// see rebuild.
package promjson

import (
	"io"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
)

// Options change how an answer is decoded. The zero value is usable.
type Options struct {
	// Charge is called, some KiB at a time, with the number of bytes that the
	// result is about to hold. An error from it ends the decoding and is
	// returned, wrapped. Not charged: the window (64 KiB), the working columns
	// (up to twice the longest series), and what is read but not kept. Nil means
	// no budget.
	Charge func(n int) error
	// Labels maps the labels of each series, sorted by name, to those wanted. It
	// is called once a series, in the order of the answer. Nil leaves them alone.
	Labels func(labels.Labels) labels.Labels
}

// Result is a decoded answer.
type Result struct {
	// Status is "success" or "error".
	Status string
	// ErrorType and Error say what went wrong if Status is "error".
	ErrorType, Error string
	// ResultType is "matrix", "vector", "scalar", "string", or "" if the answer
	// has null for data or is an error without data.
	ResultType string
	// Series are those of a matrix or vector, in the order of the answer; a scalar
	// is one series without labels. A series of a matrix may be empty. That label
	// sets differ from each other is not checked.
	Series []Series
	// Text is the value of a string.
	Text string
	// Warnings and Infos are the annotations.
	Warnings, Infos []string
	// IsPartial is a flag of VictoriaMetrics: a part of its data was out of reach.
	IsPartial bool
}

// Series is one series of a result; in a vector and a scalar it has one sample.
type Series struct {
	Labels  labels.Labels
	Samples dedup.Samples
}

// Decode reads one answer from r, to the end of r. An answer with the status
// "error" is a result, not an error. Errors name the byte at which something
// else was expected; errors of r and of Options.Charge are wrapped, and input
// that ends too early wraps io.ErrUnexpectedEOF. No result comes with an error.
//
// Decode waits as long as r does; bytes that are skipped (white space, unknown
// keys) are not limited in number, so r must have a deadline.
func Decode(r io.Reader, opts Options) (*Result, error) {
	d := decoders.Get().(*decoder)
	defer d.release()
	d.reset(r, opts)
	if err := d.answer(); err != nil {
		return nil, err
	}
	return d.result, nil
}
