package promjson

import (
	"io"
	"slices"
	"strconv"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
)

const (
	// chargeBatch is how many bytes are charged at once.
	chargeBatch = 8 << 10
	// keptScratch and keptSeries are the most samples of working columns, and the most
	// series, whose memory is kept for re-use.
	keptScratch = 32 << 10
	keptSeries  = 16 << 10
)

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// decoder is the state of decoding one response, and memory for the next.
type decoder struct {
	window
	opts    Options
	result  *Result
	pending int // bytes not charged yet

	tok     []byte // the current token, or key
	cols    columns
	slab    slab
	lset    labels.ScratchBuilder
	names   []byte // names and values of the labels of the current series
	cuts    []int  // the end of each of them in names
	buckets []bucket
	series  []Series

	data dataState
	work workings
}

// workings are how much there was at once of what is used again for each series.
type workings struct {
	samples, buckets, names int
}

// freeWork is how much working memory is not charged.
var freeWork = workings{samples: 4 << 10, buckets: 1 << 10, names: 16 << 10}

// dataState is what is known about data, whose keys may come in any order.
type dataState struct {
	seen       bool   // there is data, even if it is null
	wrong      int64  // offset of a data that is neither an object nor null, or -1
	object     bool   // data is an object
	resultSeen bool   // data has a result, even if it is null
	pair       bool   // the result is a pair, as of a scalar or a string
	pairTime   int64  // ms
	pairAt     int64  // offset of pairText
	pairText   string //
	points     int    // elements of the result with a single sample
}

func (d *decoder) reset(r io.Reader, opts Options) {
	d.window.reset(r)
	d.opts, d.result, d.pending = opts, &Result{}, 0
	d.data, d.work = dataState{wrong: -1}, freeWork
}

// release returns d to the pool, without references and without large buffers.
func (d *decoder) release() {
	d.window.reset(nil)
	d.opts, d.result, d.slab = Options{}, nil, slab{}
	d.data = dataState{}
	d.cols.release()
	if cap(d.names) > windowSize || cap(d.tok) > windowSize || cap(d.buckets) > keptScratch {
		d.names, d.cuts, d.tok, d.buckets = nil, nil, nil, nil
	}
	clear(d.series)
	if d.series = d.series[:0]; cap(d.series) > keptSeries {
		d.series = nil
	}
	decoders.Put(d)
}

// grow counts working memory that has n elements now, if it has never had so many. An element takes
// so many bytes; slices have room for twice as many, and are copied when they grow.
func (d *decoder) grow(most *int, n, bytes int) error {
	if n <= *most {
		return nil
	}
	more := n - *most
	*most = n
	return d.hold(3 * more * bytes)
}

// hold counts n bytes that the result is about to hold, and charges them in batches.
func (d *decoder) hold(n int) error {
	if d.pending += n; d.pending < chargeBatch {
		return nil
	}
	return d.charge()
}

func (d *decoder) charge() error {
	n := d.pending
	d.pending = 0
	if d.opts.Charge == nil || n == 0 {
		return nil
	}
	if err := d.opts.Charge(n); err != nil {
		return errorAt(d.offset(), "%w", err)
	}
	return nil
}

var (
	responseKeys = []string{"status", "data", "errorType", "error", "warnings", "infos", "isPartial"}
	dataKeys     = []string{"resultType", "result"}
)

// response reads the input to its end.
func (d *decoder) response() error {
	if err := d.object(responseKeys, d.responseKey); err != nil {
		return err
	}
	if _, ok := d.token(); ok || d.err != io.EOF {
		return d.expected("the end of the input")
	}
	switch d.result.Status {
	case "success":
		if err := d.checkData(); err != nil {
			return err
		}
	case "error":
	default:
		return errorAt(d.offset(), `expected the status "success" or "error", found %q`, d.result.Status)
	}
	switch {
	case len(d.series) > keptSeries:
		d.result.Series, d.series = d.series, nil
	case len(d.series) > 0:
		d.result.Series = slices.Clone(d.series)
	}
	return d.charge()
}

func (d *decoder) responseKey(key string) (err error) {
	res := d.result
	switch key {
	case "status":
		res.Status, err = d.kept()
	case "errorType":
		res.ErrorType, err = d.kept()
	case "error":
		res.Error, err = d.kept()
	case "warnings":
		res.Warnings, err = d.list()
	case "infos":
		res.Infos, err = d.list()
	case "isPartial":
		res.IsPartial, err = d.flag()
	case "data":
		err = d.readData()
	}
	return err
}

// flag reads a boolean. Any other value counts as false.
func (d *decoder) flag() (bool, error) {
	if c, ok := d.token(); ok && c == 't' {
		return true, d.literal("true")
	}
	return false, d.skip(0)
}

// kept reads a string for the result. A null is an empty string.
func (d *decoder) kept() (string, error) {
	if null, err := d.null(); null || err != nil {
		return "", err
	}
	return d.required()
}

// required is kept, but a null is an error.
func (d *decoder) required() (s string, err error) {
	if d.tok, err = d.text(d.tok[:0], "a string"); err != nil {
		return "", err
	}
	return string(d.tok), d.hold(len(d.tok))
}

// list reads an array of strings.
func (d *decoder) list() (list []string, err error) {
	err = d.array("an array of strings", func() error {
		s, err := d.required()
		if err != nil {
			return err
		}
		list = append(list, s)
		return d.hold(textBytes)
	})
	return list, err
}

// readData reads the value of data. A value that is neither an object nor null is only
// remembered: it is allowed in a response with the status "error".
func (d *decoder) readData() error {
	d.data.seen = true
	c, ok := d.token()
	switch {
	case ok && c == '{':
		d.data.object = true
		return d.object(dataKeys, d.dataKey)
	case ok && c != 'n':
		d.data.wrong = d.offset()
		return d.skip(0)
	}
	if null, err := d.null(); null || err != nil {
		return err
	}
	return d.expected("an object")
}

func (d *decoder) dataKey(key string) (err error) {
	if key == "resultType" {
		d.result.ResultType, err = d.kept()
		return err
	}
	return d.readResult()
}

// readResult reads the value of result: an array of series, or a pair.
func (d *decoder) readResult() error {
	d.data.resultSeen = true
	if null, err := d.null(); null || err != nil {
		return err
	}
	if err := d.consume('[', "an array"); err != nil {
		return err
	}
	if c, ok := d.token(); ok && (c == '-' || c >= '0' && c <= '9') {
		return d.readPair()
	}
	return d.elements(d.readSeries)
}

// readPair reads a scalar or string, which is a time and a text, after the opening bracket.
// Which of the two it is may only be known later.
func (d *decoder) readPair() (err error) {
	st := &d.data
	st.pair = true
	if st.pairTime, err = d.time(); err != nil {
		return err
	}
	if err = d.consume(',', "','"); err != nil {
		return err
	}
	d.token()
	st.pairAt = d.offset()
	if st.pairText, err = d.required(); err != nil {
		return err
	}
	return d.consume(']', "']'")
}

// checkData checks that there is data and that the elements of the result are of its type. It
// completes results that are pairs.
func (d *decoder) checkData() error {
	st, at := &d.data, d.offset()
	switch {
	case !st.seen:
		return errorAt(at, "expected data in a response with status \"success\"")
	case st.wrong >= 0:
		return errorAt(st.wrong, "expected an object as data")
	case !st.object:
		return nil
	case !st.resultSeen:
		return errorAt(at, "expected a result in data")
	}
	pair := false
	switch d.result.ResultType {
	case "matrix":
		if st.points > 0 {
			return errorAt(at, "expected values or histograms in all series of a matrix")
		}
	case "vector":
		if st.points < len(d.series) {
			return errorAt(at, "expected a value or a histogram in all samples of a vector")
		}
	case "scalar", "string":
		pair = true
	default:
		return errorAt(at, "expected the result type matrix, vector, scalar or string, found %q", d.result.ResultType)
	}
	if pair != st.pair {
		return errorAt(at, "expected a result of the type %s", d.result.ResultType)
	}
	return d.completePair()
}

func (d *decoder) completePair() error {
	st := &d.data
	switch d.result.ResultType {
	case "string":
		d.result.Text = st.pairText
	case "scalar":
		f, err := strconv.ParseFloat(st.pairText, 64)
		if err != nil {
			return errorAt(st.pairAt, "expected a number, found %.40q", st.pairText)
		}
		s := Series{Samples: dedup.Samples{T: []int64{st.pairTime}, F: []float64{f}}}
		if d.opts.Labels != nil {
			s.Labels = d.opts.Labels(s.Labels)
		}
		d.series = append(d.series, s)
	}
	return nil
}
