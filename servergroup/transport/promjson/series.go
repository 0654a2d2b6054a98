package promjson

import (
	"strconv"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
)

const (
	// sampleBytes is what a float sample takes in the result, textBytes what a text takes in
	// lists besides its bytes.
	sampleBytes = 16
	textBytes   = 48
	// seriesBytes is what a series takes besides its labels and samples: in the result, whose list
	// is copied when it grows, in the lists and merges of replicas, and in the engine.
	seriesBytes = 2*int(unsafe.Sizeof(Series{})) + 640
	// labelCopies is how often labels are held: as they came, and as they are shown.
	labelCopies = 2
	// labelWork is what a label takes while labels are made of it.
	labelWork = 64
	// maxLabels bounds the labels of a series.
	maxLabels = 10_000
)

var seriesKeys = []string{"metric", "value", "values", "histogram", "histograms"}

// readSeries reads one element of a matrix or vector.
func (d *decoder) readSeries() error {
	d.cols.reset()
	lset := labels.EmptyLabels()
	var points, lists int
	start := d.offset()
	err := d.object(seriesKeys, func(key string) (err error) {
		switch key {
		case "metric":
			lset, err = d.readLabels()
		case "value":
			points++
			err = d.readSample()
		case "values":
			lists++
			err = d.readSamples()
		case "histogram":
			points++
			err = d.readHistogramSample()
		case "histograms":
			lists++
			err = d.array("an array", d.readHistogramSample)
		}
		return err
	})
	if err != nil {
		return err
	}
	if points > 1 || points > 0 && lists > 0 {
		return errorAt(start, "expected either one sample or lists of samples in a series")
	}
	d.data.points += points
	if err := d.hold(seriesBytes); err != nil {
		return err
	}
	samples, t, ok := d.cols.take(&d.slab)
	if !ok {
		return errorAt(start, "expected only one sample at %d ms in a series", t)
	}
	if d.opts.Labels != nil {
		lset = d.opts.Labels(lset)
	}
	d.series = append(d.series, Series{Labels: lset, Samples: samples})
	return nil
}

// readLabels reads the value of metric. It leaves out labels with an empty value, which PromQL
// takes for absent. All names and values are parts of one string.
func (d *decoder) readLabels() (labels.Labels, error) {
	if null, err := d.null(); null || err != nil {
		return labels.EmptyLabels(), err
	}
	start := d.offset()
	d.names, d.cuts = d.names[:0], d.cuts[:0]
	err := d.pairs(func() (err error) {
		before := len(d.names)
		d.names = append(d.names, d.tok...)
		d.cuts = append(d.cuts, len(d.names))
		if d.names, err = d.text(d.names, "a string"); err != nil {
			return err
		}
		if d.cuts = append(d.cuts, len(d.names)); len(d.cuts) > 2*maxLabels {
			return errorAt(start, "expected at most %d labels", maxLabels)
		}
		if err := d.grow(&d.work.names, len(d.names)+labelWork*len(d.cuts), 1); err != nil {
			return err
		}
		return d.hold(labelCopies * (len(d.names) - before + 2))
	})
	if err != nil {
		return labels.EmptyLabels(), err
	}
	all, at := string(d.names), 0
	d.lset.Reset()
	for i := 0; i < len(d.cuts); i += 2 {
		name, val := all[at:d.cuts[i]], all[d.cuts[i]:d.cuts[i+1]]
		at = d.cuts[i+1]
		if name == "" {
			return labels.EmptyLabels(), errorAt(start, "expected label names that are not empty")
		}
		if val != "" {
			d.lset.Add(name, val)
		}
	}
	d.lset.Sort()
	lset := d.lset.Labels()
	if name, twice := lset.HasDuplicateLabelNames(); twice {
		return lset, errorAt(start, "expected the label %q only once", name)
	}
	return lset, nil
}

// readSamples reads the value of values. Samples in the form in which Prometheus prints them
// are scanned in the window, in a tight loop. readSample is for the last one, for those that
// are not completely in the window, and for any other form.
func (d *decoder) readSamples() error {
	return d.array("an array", func() error {
		if err := d.scanSamples(); err != nil {
			return err
		}
		return d.readSample()
	})
}

// scanSamples consumes and appends the samples in the window that are printed like [1.5,"2.5"]
// and are followed by a comma.
func (d *decoder) scanSamples() error {
	for {
		in := d.buf[d.i:d.n]
		t, f, n := scanSample(in)
		if n == 0 || n == len(in) || in[n] != ',' || !d.cols.add(t, f) {
			return nil
		}
		d.i += n + 1
		if err := d.held(sampleBytes); err != nil {
			return err
		}
	}
}

// readSample reads [<time>,"<value>"].
func (d *decoder) readSample() error {
	d.token()
	if t, f, n := scanSample(d.buf[d.i:d.n]); n > 0 && d.cols.add(t, f) {
		d.i += n
		return d.held(sampleBytes)
	}
	if err := d.consume('[', "a sample"); err != nil {
		return err
	}
	start := d.offset()
	t, err := d.time()
	if err != nil {
		return err
	}
	if err = d.consume(',', "','"); err != nil {
		return err
	}
	f, err := d.float()
	if err != nil {
		return err
	}
	if err = d.consume(']', "']'"); err != nil {
		return err
	}
	if !d.cols.add(t, f) {
		return errorAt(start, "expected a time after that of the sample before, found %d ms", t)
	}
	return d.held(sampleBytes)
}

// held counts a sample that was added to the columns.
func (d *decoder) held(bytes int) error {
	if err := d.grow(&d.work.samples, len(d.cols.t)+len(d.cols.ht), sampleBytes); err != nil {
		return err
	}
	return d.hold(bytes)
}

// readHistogramSample reads [<time>,{<histogram>}].
func (d *decoder) readHistogramSample() error {
	if err := d.consume('[', "a histogram sample"); err != nil {
		return err
	}
	start := d.offset()
	t, err := d.time()
	if err != nil {
		return err
	}
	if err = d.consume(',', "','"); err != nil {
		return err
	}
	h, err := d.readHistogram()
	if err != nil {
		return err
	}
	if err = d.consume(']', "']'"); err != nil {
		return err
	}
	if !d.cols.addHistogram(t, h) {
		return errorAt(start, "expected a time after that of the sample before, found %d ms", t)
	}
	return d.held(sampleBytes)
}

// time reads a time in seconds and returns it in ms.
func (d *decoder) time() (int64, error) {
	if err := d.number("a time in seconds"); err != nil {
		return 0, err
	}
	t, ok := parseTime(d.tok)
	if !ok {
		return 0, errorAt(d.offset(), "expected a time that fits in 64 bits of ms, found %.40q", d.tok)
	}
	return t, nil
}

// float reads a number in a string.
func (d *decoder) float() (float64, error) {
	if c, ok := d.token(); ok && c == '"' {
		if f, n := scanFloat(d.buf[d.i+1 : d.n]); n > 0 {
			d.i += n + 2
			return f, nil
		}
	}
	start := d.offset()
	var err error
	if d.tok, err = d.text(d.tok[:0], "a number in a string"); err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(string(d.tok), 64)
	if err != nil {
		return 0, errorAt(start, "expected a number in a string, found %.40q", d.tok)
	}
	return f, nil
}
