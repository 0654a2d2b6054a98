package federate

import (
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// family is one metric family of an exposition. A metric whose series are of
// several types becomes several families of one name: not by the book, but
// Prometheus writes and reads it so.
type family struct{ dto *dto.MetricFamily }

func (f *family) holds(name string, typ dto.MetricType) bool {
	return f.dto.GetName() == name && f.dto.GetType() == typ
}

// families arranges samples that are sorted by metric name. Native histograms
// need protobuf and are left out elsewhere; those with custom buckets are
// classic histograms in every format. External labels, and an empty instance so
// that the scraper does not put its own, are added where a series lacks them.
func families(samples []sample, external labels.Labels, protobuf bool) []*family {
	added := addedLabels(external)
	var list []*family
	for _, s := range samples {
		name := s.labels.Get(labels.MetricName)
		if name == "" || s.hist != nil && !protobuf && !s.hist.UsesCustomBuckets() {
			continue
		}
		typ := metricType(s)
		if len(list) == 0 || !list[len(list)-1].holds(name, typ) {
			list = append(list, &family{&dto.MetricFamily{Name: new(name), Type: typ.Enum()}})
		}
		fam := list[len(list)-1].dto
		fam.Metric = append(fam.Metric, metric(s, added))
	}
	return list
}

// addedLabels are the external labels and the instance, sorted by name.
func addedLabels(external labels.Labels) []*dto.LabelPair {
	var pairs []*dto.LabelPair
	external.Range(func(l labels.Label) { pairs = append(pairs, labelPair(l.Name, l.Value)) })
	if !external.Has(model.InstanceLabel) {
		pairs = append(pairs, labelPair(model.InstanceLabel, ""))
	}
	slices.SortFunc(pairs, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	return pairs
}

func labelPair(name, value string) *dto.LabelPair {
	return &dto.LabelPair{Name: new(name), Value: new(value)}
}

func metricType(s sample) dto.MetricType {
	switch {
	case s.hist == nil:
		return dto.MetricType_UNTYPED
	case s.hist.CounterResetHint == histogram.GaugeType:
		return dto.MetricType_GAUGE_HISTOGRAM
	default:
		return dto.MetricType_HISTOGRAM
	}
}

func metric(s sample, added []*dto.LabelPair) *dto.Metric {
	m := &dto.Metric{TimestampMs: new(s.ts)}
	s.labels.Range(func(l labels.Label) {
		if l.Name != labels.MetricName && l.Value != "" {
			m.Label = append(m.Label, labelPair(l.Name, l.Value))
		}
	})
	for _, pair := range added {
		if s.labels.Get(pair.GetName()) == "" {
			m.Label = append(m.Label, pair)
		}
	}
	switch {
	case s.hist == nil:
		m.Untyped = &dto.Untyped{Value: new(s.float)}
	case s.hist.UsesCustomBuckets():
		m.Histogram = classicHistogram(s.hist)
	default:
		m.Histogram = nativeHistogram(s.hist)
	}
	return m
}

func nativeHistogram(h *histogram.FloatHistogram) *dto.Histogram {
	return &dto.Histogram{
		SampleCountFloat: new(h.Count),
		SampleSum:        new(h.Sum),
		Schema:           new(h.Schema),
		ZeroThreshold:    new(h.ZeroThreshold),
		ZeroCountFloat:   new(h.ZeroCount),
		PositiveSpan:     bucketSpans(h.PositiveSpans),
		PositiveCount:    h.PositiveBuckets,
		NegativeSpan:     bucketSpans(h.NegativeSpans),
		NegativeCount:    h.NegativeBuckets,
	}
}

func bucketSpans(spans []histogram.Span) []*dto.BucketSpan {
	var list []*dto.BucketSpan
	for _, s := range spans {
		list = append(list, &dto.BucketSpan{Offset: new(s.Offset), Length: new(s.Length)})
	}
	return list
}

// classicHistogram writes custom buckets as cumulative ones. The bucket +Inf is
// optional in protobuf, and the other encoders add it.
func classicHistogram(h *histogram.FloatHistogram) *dto.Histogram {
	counts := make([]float64, len(h.CustomValues)+1)
	for it := h.PositiveBucketIterator(); it.Next(); {
		b := it.At()
		counts[b.Index] = b.Count
	}
	m := &dto.Histogram{SampleCountFloat: new(h.Count), SampleSum: new(h.Sum)}
	total := 0.0
	for i, bound := range h.CustomValues {
		total += counts[i]
		m.Bucket = append(m.Bucket, &dto.Bucket{UpperBound: new(bound), CumulativeCountFloat: new(total)})
	}
	return m
}
