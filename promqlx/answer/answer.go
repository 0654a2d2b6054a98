// Package answer puts the answers of pieces of the data to a part of a query together:
// those that replicas evaluated, those that were evaluated locally, and series that are
// read at the steps of the part.
package answer

import (
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// ErrDoubtful is the error of answers of which nothing can be made: nothing but the
// samples will do.
var ErrDoubtful = errors.New("the answers of the partitions cannot be put together")

// Answer is the answer to a part, by one piece of a partition or by all of them.
type Answer struct {
	// By is the URL of the replica that evaluated a piece; "" if none did.
	By string
	// Warnings are all annotations.
	Warnings annotations.Annotations
	series   []segment
}

// Add adds the answer of another piece.
func (a *Answer) Add(b Answer) {
	a.series = append(a.series, b.series...)
	a.Warnings.Merge(b.Warnings)
}

// Size is how many series and samples there are in the answer, but for those that come
// about while they are read.
func (a *Answer) Size() (series, samples int) {
	for _, s := range a.series {
		if s.resampled == nil {
			series++
			samples += s.samples.Len()
		}
	}
	return series, samples
}

// Keep leaves of the answer what is at some runs of steps. What is resampled is at them
// already.
func (a *Answer) Keep(turns []transport.Steps) {
	var kept []segment
	for _, s := range a.series {
		if s.resampled != nil {
			kept = append(kept, s)
			continue
		}
		for _, turn := range turns {
			if samples := s.samples.Between(turn.Start, turn.End); samples.Len() > 0 {
				kept = append(kept, segment{labels: s.labels, samples: samples})
			}
		}
	}
	a.series = kept
}

// segment is a series of an answer, for some steps.
type segment struct {
	labels labels.Labels
	// samples are one for each step at which the series is, at least one.
	samples *dedup.Samples
	// resampled is set instead where the samples come about while they are read.
	resampled *resampled
}

// start is the time (ms) of the first sample, or of the first at which one may be.
func (s segment) start() int64 {
	if s.resampled != nil {
		return s.resampled.steps.Start
	}
	return s.samples.T[0]
}

// Remote is what a replica has evaluated. positions returns those in the query, by those
// in the text that the replica was sent.
func Remote(got *servergroup.Answer, positions func() map[string]string) Answer {
	out := Answer{By: got.Replica}
	for _, s := range got.Series {
		out.series = append(out.series, segment{labels: s.Labels, samples: s.Samples})
	}
	if len(got.Infos)+len(got.Warnings) == 0 {
		return out
	}
	at := positions()
	for _, text := range got.Infos {
		out.Warnings.Add(newAnnotation(text, annotations.PromQLInfo, at))
	}
	for _, text := range got.Warnings {
		out.Warnings.Add(newAnnotation(text, annotations.PromQLWarning, at))
	}
	return out
}

// Local is what was evaluated here, for a part of a query. It copies the samples. It is
// ErrDoubtful where the engine gives a series both a float and a histogram at one time.
func Local(m promql.Matrix, ws annotations.Annotations, query string) (Answer, error) {
	out := Answer{Warnings: positioned(ws, query), series: make([]segment, len(m))}
	for i, s := range m {
		samples, ok := columns(s)
		if !ok {
			return Answer{}, ErrDoubtful
		}
		out.series[i] = segment{labels: s.Metric, samples: samples}
	}
	return out, nil
}

// Verify is ErrDoubtful if the answer shows that what it answers must not be a part.
func (a *Answer) Verify(p *plan.Part) error {
	for _, w := range a.Warnings {
		if p.DoubtfulNote(w.Error()) || plan.Collective(w.Error()) {
			return ErrDoubtful
		}
	}
	if !p.Averages {
		return nil
	}
	for _, s := range a.series {
		if slices.ContainsFunc(s.samples.F, p.DoubtfulValue) || slices.ContainsFunc(s.samples.FH, p.DoubtfulHistogram) {
			return ErrDoubtful
		}
	}
	return nil
}
