package promjson

import (
	"unsafe"

	"github.com/prometheus/prometheus/model/histogram"
)

// bucketBytes is the most that a bucket takes in the result: a count, a span of its own and a
// custom bound, in slices with room for twice as many.
const bucketBytes = 48

var histogramKeys = []string{"count", "sum", "buckets"}

// bucket is one bucket of a printed histogram
// (https://prometheus.io/docs/prometheus/latest/querying/api/#native-histograms).
type bucket struct {
	code          byte // which bounds are included, see the constants
	lo, hi, count float64
}

// The codes of buckets by which of their bounds they include.
const (
	upperClosed = iota // (lo, hi]: positive, or custom
	lowerClosed        // [lo, hi): negative
	open               // (lo, hi): next to 0, if bounds are too small for a float64
	closed             // [lo, hi]: the zero bucket, or the lowest custom one
)

// readHistogram reads {"count":"6","sum":"8","buckets":[[0,"0.5","1","1"],…]}.
func (d *decoder) readHistogram() (*histogram.FloatHistogram, error) {
	var count, sum float64
	var found int
	d.token()
	start := d.offset()
	d.buckets = d.buckets[:0]
	err := d.object(histogramKeys, func(key string) (err error) {
		switch key {
		case "count":
			found++
			count, err = d.float()
		case "sum":
			found++
			sum, err = d.float()
		case "buckets":
			err = d.array("an array of buckets", d.readBucket)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if found < 2 {
		return nil, errorAt(start, "expected count and sum in a histogram")
	}
	h, reason := rebuild(d.buckets)
	if reason != "" {
		return nil, errorAt(start, "expected the buckets of a histogram, found %s", reason)
	}
	h.Count, h.Sum = count, sum
	return h, d.hold(int(unsafe.Sizeof(*h)) + 2*8) // with its pointers
}

// readBucket reads [<code>,"<lower bound>","<upper bound>","<count>"].
func (d *decoder) readBucket() (err error) {
	var b bucket
	if err := d.consume('[', "a bucket"); err != nil {
		return err
	}
	c, ok := d.token()
	if !ok || c < '0'+upperClosed || c > '0'+closed {
		return d.expected("the code of a bucket, 0 to 3")
	}
	d.i++
	b.code = c - '0'
	for _, f := range []*float64{&b.lo, &b.hi, &b.count} {
		if err = d.consume(',', "','"); err != nil {
			return err
		}
		if *f, err = d.float(); err != nil {
			return err
		}
	}
	if err = d.consume(']', "']'"); err != nil {
		return err
	}
	d.buckets = append(d.buckets, b)
	if err := d.grow(&d.work.buckets, len(d.buckets), int(unsafe.Sizeof(b))); err != nil {
		return err
	}
	return d.hold(bucketBytes)
}
